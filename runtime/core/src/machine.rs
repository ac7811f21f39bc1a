//! What a workload asks of the machine it runs in: what only a guest operating system has.
//!
//! All of it is empty for a program that runs as it is. The WebAssembly backend refuses what is set
//! here ([`Machine::named`] says what that is), since a grant that cannot be given must not vanish.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

/// The machine around a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The guest's kernel; found among the installed ones if not named.
    #[serde(with = "crate::text::some_path")]
    pub kernel: Option<PathBuf>,
    /// A host directory that is the guest's root, read-only below a writable layer in its memory.
    #[serde(with = "crate::text::some_path")]
    pub rootfs: Option<PathBuf>,
    /// Raw disk images. The first is the guest's root where there is no `rootfs`.
    pub disks: Vec<Disk>,
    /// How fast each of them may be used.
    pub disk_rate: DiskRate,
    /// An initial RAM disk of the user's own, which replaces sbx's init and all that it does.
    #[serde(with = "crate::text::some_path")]
    pub initrd: Option<PathBuf>,
    /// Words behind the kernel's command line.
    pub cmdline: Option<String>,
    /// Who the workload runs as: a name, `UID` or `UID:GID`.
    pub user: Option<String>,
    /// The guest's name for itself.
    pub hostname: Option<String>,
    /// The guest's network interface.
    pub net: Option<Tap>,
    /// What executes it.
    pub accel: Accel,
}

/// What executes the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// KVM where hardware backs it, else software emulation where that is installed.
    #[default]
    Auto,
    /// KVM, or nothing.
    Kvm,
    /// Software emulation (QEMU's TCG), whatever the host has.
    Tcg,
}

impl FromStr for Accel {
    type Err = String;

    /// Reads `auto`, `kvm` or `tcg`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(format!("'{text}' is none of auto, kvm and tcg")),
        }
    }
}

impl Machine {
    /// The flags of what is set.
    pub fn named(&self) -> Vec<&'static str> {
        let Self { kernel, rootfs, disks, disk_rate, initrd, cmdline, user, hostname, net, accel } =
            self;
        [
            ("--kernel", kernel.is_some()),
            ("--rootfs", rootfs.is_some()),
            ("--disk FILE", !disks.is_empty()),
            ("--disk-bps or --disk-iops", *disk_rate != DiskRate::default()),
            ("--initrd", initrd.is_some()),
            ("--cmdline", cmdline.is_some()),
            ("--user", user.is_some()),
            ("--hostname", hostname.is_some()),
            ("--net", net.is_some()),
            ("--accel", *accel != Accel::Auto),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }

    /// Lays `over` on top: what it says wins, its disks come behind.
    pub(crate) fn overlay(mut self, over: Self) -> Self {
        let Self { kernel, rootfs, disks, disk_rate, initrd, cmdline, user, hostname, net, accel } =
            over;
        self.disks.extend(disks);
        Self {
            kernel: kernel.or(self.kernel),
            rootfs: rootfs.or(self.rootfs),
            disks: self.disks,
            disk_rate: DiskRate {
                bytes: disk_rate.bytes.or(self.disk_rate.bytes),
                operations: disk_rate.operations.or(self.disk_rate.operations),
            },
            initrd: initrd.or(self.initrd),
            cmdline: cmdline.or(self.cmdline),
            user: user.or(self.user),
            hostname: hostname.or(self.hostname),
            net: net.or(self.net),
            accel: if accel == Accel::Auto { self.accel } else { accel },
        }
    }
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The file, or a block device.
    #[serde(with = "crate::text::path")]
    pub file: PathBuf,
    /// Whether every change to it is refused.
    pub read_only: bool,
}

/// How fast a disk may be used, reads and writes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRate {
    /// Bytes a second.
    pub bytes: Option<NonZeroU64>,
    /// Requests a second.
    pub operations: Option<NonZeroU64>,
}

impl FromStr for Disk {
    type Err = String;

    /// Reads `FILE[:ro|rw]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (file, read_only) = match text.rsplit_once(':') {
            Some((file, "ro")) => (file, true),
            Some((file, "rw")) => (file, false),
            _ => (text, false),
        };
        if file.is_empty() {
            return Err(format!("'{text}' is not FILE or FILE:ro"));
        }
        Ok(Self { file: file.into(), read_only })
    }
}

/// A network interface of the guest: a TAP device of the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tap {
    /// The TAP device's name on the host.
    pub name: String,
    /// The guest's address and the length of its network's prefix.
    pub address: Option<IpNet>,
    /// Where the guest sends what is for other networks.
    pub gateway: Option<IpAddr>,
}

/// The longest name of a network interface (Linux, `IFNAMSIZ` less its NUL).
const LONGEST_NAME: usize = 15;

impl FromStr for Tap {
    type Err = String;

    /// Reads `tap=NAME[,ip=ADDRESS/PREFIX][,gateway=ADDRESS]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{what}; write none, or tap=NAME,ip=10.0.0.2/24,gateway=10.0.0.1");
        let mut tap = Self { name: String::new(), address: None, gateway: None };
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| wrong(&format!("'{part}' is not NAME=VALUE")))?;
            let bad = || wrong(&format!("'{value}' is no {key}"));
            match key {
                "tap" => tap.name = value.into(),
                "ip" => tap.address = Some(value.parse().map_err(|_| bad())?),
                "gateway" => tap.gateway = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(wrong(&format!("there is no '{key}' here"))),
            }
        }
        let name = &tap.name;
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['/', '\0', ' ', '%']) {
            return Err(wrong(&format!("'{name}' is no name of a TAP device")));
        }
        Ok(tap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks() {
        let disk = |text: &str| text.parse::<Disk>();
        assert_eq!(disk("a:b:ro"), Ok(Disk { file: "a:b".into(), read_only: true }));
        assert_eq!(disk("x.img"), Ok(Disk { file: "x.img".into(), read_only: false }));
        assert!(disk("").is_err() && disk(":ro").is_err());
    }

    #[test]
    fn interfaces() {
        let tap: Tap = "tap=t0,ip=10.0.0.2/24,gateway=10.0.0.1".parse().unwrap();
        assert_eq!(tap.name, "t0");
        assert_eq!(tap.address, Some("10.0.0.2/24".parse().unwrap()));
        for text in ["", "t0", "tap=", "tap=a/b", "tap=t0,ip=x", "tap=t0,mtu=1", "ip=10.0.0.1/8"] {
            assert!(text.parse::<Tap>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_set_is_named() {
        assert!(Machine::default().named().is_empty());
        let machine = Machine { user: Some("1".into()), ..Machine::default() };
        assert_eq!(machine.named(), ["--user"]);
    }
}
