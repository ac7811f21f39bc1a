//! `--policy FILE.toml`: the same grants and limits as the command line's, in a file.
//!
//! Unknown keys are refused: a grant that was misspelt must not vanish silently. A policy fills a
//! [`Spec`] first; flags are laid over it with [`Policy::overlay`], so that a flag wins where both
//! speak of the same thing (a guest path, a variable, a limit) and adds where they do not.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::machine::{Accel, Disk, DiskRate, Machine, Tap};
use crate::{Error, Limits, Result, Spec, Volume, net::NetRule, spec, units};

/// Grants and limits, from a file or from flags.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Policy {
    /// Host directories, `HOST:GUEST[:ro]`; a relative host path starts at the policy file.
    #[serde(deserialize_with = "parse_list")]
    pub volumes: Vec<Volume>,
    /// Environment variables.
    #[serde(deserialize_with = "parse_env")]
    pub env: Vec<(OsString, OsString)>,
    /// The working directory inside the sandbox.
    pub workdir: Option<String>,
    /// Hosts and ports the workload may connect to.
    #[serde(deserialize_with = "parse_list")]
    pub allow_net: Vec<NetRule>,
    /// Addresses it may accept connections on.
    #[serde(deserialize_with = "parse_list")]
    pub listen: Vec<SocketAddr>,
    /// Whether it reads the caller's standard input.
    pub stdin: bool,
    /// Whether its standard streams are a terminal where the caller's are.
    pub tty: bool,
    /// What it may use.
    #[serde(deserialize_with = "parse_limits")]
    pub limits: Limits,
    /// The machine around it; relative paths start at the policy file.
    #[serde(deserialize_with = "parse_machine")]
    pub machine: Machine,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// A file that cannot be read, that is not TOML, or that says something sbx does not know.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::host(format!("read the policy {name}"), e))?;
        let mut policy: Self = toml::from_str(&text).map_err(|e| {
            Error::Refused(format!("the policy {name} is wrong: {}", one_line(&e, &text)))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let Machine { kernel, rootfs, disks, initrd, .. } = &mut policy.machine;
        let hosts = policy.volumes.iter_mut().map(|v| &mut v.host);
        let machine = [kernel, rootfs, initrd].into_iter().flatten();
        for path in hosts.chain(machine).chain(disks.iter_mut().map(|d| &mut d.file)) {
            *path = folder.join(&path);
        }
        Ok(policy)
    }

    /// Lays `over` on top of this one: what it says wins, the rest is added.
    pub fn overlay(mut self, over: Self) -> Self {
        let Self { volumes, env, workdir, allow_net, listen, stdin, tty, limits, machine } = over;
        self.volumes.retain(|old| volumes.iter().all(|new| new.guest != old.guest));
        self.volumes.extend(volumes);
        self.env.retain(|(old, _)| env.iter().all(|(new, _)| new != old));
        self.env.extend(env);
        self.workdir = workdir.or(self.workdir);
        self.allow_net.extend(allow_net);
        self.listen.extend(listen);
        self.stdin |= stdin;
        self.tty |= tty;
        self.limits = overlay_limits(self.limits, limits);
        self.machine = self.machine.overlay(machine);
        self
    }

    /// Puts the grants and limits into `spec`.
    pub fn apply(self, spec: &mut Spec) -> Result<()> {
        let Self { volumes, env, workdir, allow_net, listen, stdin, tty, limits, machine } = self;
        for (i, volume) in volumes.iter().enumerate() {
            if volumes[..i].iter().any(|v| v.guest == volume.guest) {
                let guest = &volume.guest;
                return Err(Error::Refused(format!("two volumes have the guest path {guest}")));
            }
        }
        spec.workdir = workdir
            .map(|dir| spec::guest_path(&dir))
            .transpose()
            .map_err(|e| Error::Refused(format!("the working directory is wrong: {e}")))?;
        spec.volumes = volumes;
        spec.env = env;
        spec.allow_net = allow_net;
        spec.listen = listen;
        spec.stdin = stdin;
        spec.tty = tty;
        spec.limits = limits;
        spec.machine = machine;
        Ok(())
    }
}

fn overlay_limits(under: Limits, over: Limits) -> Limits {
    let Limits { memory, timeout, cpu_time, cpus, pids, fds, output, disk, fuel } = over;
    Limits {
        memory: memory.or(under.memory),
        timeout: timeout.or(under.timeout),
        cpu_time: cpu_time.or(under.cpu_time),
        cpus: cpus.or(under.cpus),
        pids: pids.or(under.pids),
        fds: fds.or(under.fds),
        output: output.or(under.output),
        disk: disk.or(under.disk),
        fuel: fuel.or(under.fuel),
    }
}

/// TOML's own rendering of an error spans lines and draws the source; one line is enough here.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let newlines = |end: usize| text.bytes().take(end).filter(|b| *b == b'\n').count();
    let line = error.span().map(|span| newlines(span.start) + 1);
    let message = error.message().replace('\n', " ");
    line.map_or(message.clone(), |line| format!("line {line}: {message}"))
}

fn parse_list<'de, D, T>(from: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|t| t.parse().map_err(|e| bad(t, e))).collect()
}

fn bad<E: serde::de::Error>(text: &str, error: impl Display) -> E {
    E::custom(format!("'{text}': {error}"))
}

fn parse_env<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<(OsString, OsString)>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(from)?;
    Ok(map.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
}

/// The `[limits]` table as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct WrittenLimits {
    memory: Option<String>,
    timeout: Option<String>,
    cpu_time: Option<String>,
    cpus: Option<f64>,
    pids: Option<u32>,
    fds: Option<u32>,
    output: Option<String>,
    disk: Option<String>,
    fuel: Option<u64>,
}

fn parse_limits<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Limits, D::Error> {
    fn read<T, E: serde::de::Error>(
        text: Option<String>,
        parse: fn(&str) -> std::result::Result<T, String>,
    ) -> std::result::Result<Option<T>, E> {
        text.map(|t| parse(&t).map_err(E::custom)).transpose()
    }
    let WrittenLimits { memory, timeout, cpu_time, cpus, pids, fds, output, disk, fuel } =
        WrittenLimits::deserialize(from)?;
    Ok(Limits {
        memory: read(memory, units::parse_size)?,
        timeout: read(timeout, units::parse_duration)?,
        cpu_time: read(cpu_time, units::parse_duration)?,
        cpus: cpus.map(units::cpus_from).transpose().map_err(serde::de::Error::custom)?,
        pids,
        fds,
        output: read(output, units::parse_size)?,
        disk: read(disk, units::parse_size)?,
        fuel,
    })
}

/// The `[machine]` table as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct WrittenMachine {
    kernel: Option<PathBuf>,
    rootfs: Option<PathBuf>,
    #[serde(deserialize_with = "parse_list")]
    disks: Vec<Disk>,
    disk_bps: Option<String>,
    disk_iops: Option<NonZeroU64>,
    initrd: Option<PathBuf>,
    cmdline: Option<String>,
    user: Option<String>,
    hostname: Option<String>,
    net: Option<String>,
    accel: Option<String>,
}

fn parse_machine<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Machine, D::Error> {
    let written = WrittenMachine::deserialize(from)?;
    let WrittenMachine { kernel, rootfs, disks, initrd, cmdline, user, hostname, net, .. } =
        written;
    let bps = written.disk_bps.map(|bps| units::parse_rate(&bps).map_err(|e| bad(&bps, e)));
    let disk_rate = DiskRate { bytes: bps.transpose()?, operations: written.disk_iops };
    let net = net.filter(|net| net != "none");
    let net = net.map(|net| net.parse::<Tap>().map_err(|e| bad(&net, e))).transpose()?;
    let accel = written.accel.map(|accel| accel.parse::<Accel>().map_err(|e| bad(&accel, e)));
    let accel = accel.transpose()?.unwrap_or_default();
    Ok(Machine { kernel, rootfs, disks, disk_rate, initrd, cmdline, user, hostname, net, accel })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> std::result::Result<Policy, String> {
        toml::from_str(text).map_err(|e: toml::de::Error| one_line(&e, text))
    }

    #[test]
    fn every_key() {
        let p = policy(
            r#"
            volumes = ["data:/data:ro"]
            env = { A = "1" }
            workdir = "/data"
            allow-net = ["example.com:443"]
            listen = ["127.0.0.1:8080"]
            stdin = true
            tty = true
            [limits]
            memory = "64M"
            timeout = "10s"
            cpu-time = "5s"
            cpus = 0.5
            pids = 1
            fds = 16
            output = "1M"
            disk = "16M"
            fuel = 1000
            [machine]
            kernel = "vmlinux"
            rootfs = "root"
            disks = ["data.img:ro"]
            disk-bps = "10M"
            disk-iops = 100
            initrd = "initrd"
            cmdline = "debug"
            user = "1000:1000"
            hostname = "guest"
            net = "tap=t0"
            accel = "kvm"
            "#,
        )
        .unwrap();
        assert!(p.volumes[0].read_only && p.stdin && p.tty);
        assert_eq!(p.limits.describe().len(), 9);
        assert_eq!(p.limits.cpus, Some(500));
        assert_eq!(p.machine.named().len(), 10);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "volume = []",
            "[limits]\nmem = '1M'",
            "volumes = ['x']",
            "listen = ['nowhere']",
            "[limits]\nmemory = 64",
            "[limits]\ncpus = 0",
            "stdin = 'yes'",
            "[machine]\nnet = 'bridge'",
            "[machine]\ndisk-bps = '0'",
            "[machine]\ndisk-iops = 0",
            "[machine]\ninit = '/sbin/init'",
            "[machine]\naccel = 'hvf'",
            "= broken",
        ] {
            let error = policy(text).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(policy("\n\nvolume = []").unwrap_err().starts_with("line 3:"));
    }

    #[test]
    fn flags_win_and_add() {
        let file = policy(
            "volumes = ['a:/a', 'b:/b']\nenv = { A = '1', B = '1' }\n[limits]\nmemory = '1M'\nfds = 4",
        )
        .unwrap();
        let flags = Policy {
            volumes: vec!["c:/b:ro".parse().unwrap()],
            env: vec![("B".into(), "2".into())],
            limits: Limits { memory: Some(2), ..Limits::default() },
            ..Policy::default()
        };
        let mut spec = Spec::default();
        file.overlay(flags).apply(&mut spec).unwrap();
        assert_eq!(spec.volumes.len(), 2);
        assert!(spec.volumes.iter().any(|v| v.guest == "/b" && v.read_only));
        assert_eq!(spec.env, [("A".into(), "1".into()), ("B".into(), "2".into())]);
        assert_eq!((spec.limits.memory, spec.limits.fds), (Some(2), Some(4)));
    }

    #[test]
    fn one_guest_path_one_volume() {
        let twice = policy("volumes = ['a:/a', 'b:/a']").unwrap();
        assert!(twice.apply(&mut Spec::default()).is_err());
    }
}
