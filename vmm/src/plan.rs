//! A machine as it will be: what it has, and every file of the host's that it needs, open. A plan can be
//! explained, and built by any [`crate::machine::Executor`]; making one is where a user's mistakes are
//! told.

use sbx_core::machine::{DiskRate, Tap as Interface};
use sbx_core::quota::Quota;
use sbx_core::{Error, Limits, Result, Spec};
use sbx_host::volumes;
use sbx_proto::{Boot, Network, Process, Root, Terminal, Volume};
use std::ffi::OsString;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::INIT;
use crate::boot::board::{self, Board};
use crate::boot::initramfs::Archive;
use crate::boot::{self, acpi};
use crate::control::session::Task;
use crate::device::image::Image;
use crate::device::tap::Tap;
use crate::fs::Access;
use crate::kernel::{self, Kernel};
use crate::workload::{self, Runs, Workload};

/// Memory of a guest for which no limit was set, in bytes.
pub const MEMORY: u64 = 256 << 20;
/// Less than this holds no kernel at all.
const MEMORY_MIN: u64 = 16 << 20;
/// The most processors of one guest.
const CPUS_MAX: u32 = 32;
/// The most virtio devices of one guest: as many as the I/O interrupt controller of KVM's board has
/// interrupts for.
const DEVICES_MAX: usize = 24 - board::KVM.first_irq as usize;

/// What every guest is told. No firmware has looked for devices that are not there, and a kernel that
/// looks for them by itself takes its time. With `pci=off` alone it would complain, a byte at a time, that
/// there is no PCI.
const CMDLINE: &str = "pci=off initcall_blacklist=pci_arch_init panic=-1 8250.nr_uarts=1 \
                       i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=1 swiotlb=noforce";
/// Where it says what it does, unless a guest with an init of its own is told another place.
const CONSOLE: &str = "console=ttyS0";

/// A device of a machine.
#[derive(Debug)]
pub(crate) enum Device {
    /// Random numbers.
    Rng,
    /// Memory that the guest gives back.
    Balloon,
    /// Streams to the host: one, to the agent.
    Vsock,
    /// A terminal, for a guest without sbx's init.
    Console,
    /// A disk.
    Block {
        /// Its content.
        image: Image,
        /// What may be written to it.
        quota: Quota,
        /// How fast it may be used.
        rate: DiskRate,
    },
    /// A network interface.
    Net {
        /// Its other end.
        tap: Tap,
        /// The name of that.
        name: String,
    },
    /// A shared directory.
    Fs {
        /// What the guest knows it by.
        tag: String,
        /// The directory.
        dir: OwnedFd,
        /// What the guest may do there.
        access: Access,
        /// What it may add there.
        quota: Quota,
    },
}

/// An initial RAM disk.
#[derive(Debug)]
pub(crate) enum Initrd {
    /// An archive with sbx's init, which comes behind that of the kernel's modules.
    Own(Vec<u8>),
    /// A file of the user's.
    File(File),
}

/// A machine that can be built.
pub(crate) struct Plan {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Processors.
    pub(crate) cpus: u8,
    pub(crate) kernel: Kernel,
    pub(crate) initrd: Initrd,
    pub(crate) cmdline: String,
    /// Whether the kernel's console, where it takes input, is the virtio one.
    pub(crate) virtio_console: bool,
    pub(crate) devices: Vec<Device>,
    /// What its init is told; nothing if that is the user's own.
    pub(crate) task: Option<Task>,
    pub(crate) limits: Limits,
    /// Whether the caller's standard input is the guest's.
    pub(crate) stdin: bool,
}

/// Plans the machine for `spec`, on this board.
///
/// # Errors
/// Everything that the user can be told before a machine exists.
pub(crate) fn plan(spec: &Spec, board: &'static Board) -> Result<Plan> {
    let memory = memory(&spec.limits)?;
    let cpus = cpus(&spec.limits)?;
    grantable(spec)?;
    let Workload { kernel, runs } = workload::resolve(spec)?;
    let path = kernel.or_else(|| spec.machine.kernel.clone());
    let kernel = kernel::load(&kernel::find(path.as_deref())?)?;
    let own_init = matches!(runs, Runs::OwnInit(_));
    let devices = devices(spec, own_init)?;
    let (initrd, task) = match &runs {
        Runs::OwnInit(path) => (Initrd::File(open_initrd(path)?), None),
        runs => (Initrd::Own(archive(runs)?), Some(task(spec, runs, memory)?)),
    };
    let words = spec.machine.cmdline.as_deref();
    let (cmdline, virtio_console) = cmdline(board, words.unwrap_or_default(), own_init);
    let (limits, stdin) = (spec.limits.clone(), spec.stdin);
    let plan = Plan {
        memory,
        cpus,
        kernel,
        initrd,
        cmdline,
        virtio_console,
        devices,
        task,
        limits,
        stdin,
    };
    plan.boot(board, |boot| boot::check(boot, memory))
        .map_err(|e| Error::Refused(e.to_string()))?;
    Ok(plan)
}

impl Plan {
    /// Calls `with` with what is to be started on this board.
    pub(crate) fn boot<T>(&self, board: &Board, with: impl FnOnce(&boot::Boot<'_>) -> T) -> T {
        let pieces: [&[u8]; 2];
        let initrd = match &self.initrd {
            Initrd::File(file) => boot::Initrd::File(file),
            Initrd::Own(archive) => {
                pieces = [&self.kernel.modules, archive];
                boot::Initrd::Pieces(&pieces)
            }
        };
        let transports = (0..self.devices.len()).filter_map(|index| board.transport(index));
        let transports = &transports.collect::<Vec<_>>();
        // A keyboard is what Ctrl-Alt-Del is sent by; init is told otherwise.
        let machine = acpi::Machine { board, cpus: self.cpus, transports, keyboard: false };
        with(&boot::Boot {
            kernel: &self.kernel.image,
            way: boot::Way::Auto,
            initrd: Some(initrd),
            cmdline: &self.cmdline,
            machine,
        })
    }
}

/// The kernel's command line, and whether its console is the virtio one. It writes to all that are named,
/// and reads from the last.
fn cmdline(board: &Board, words: &str, own_init: bool) -> (String, bool) {
    let mut consoles = words.split_whitespace().filter_map(|word| word.strip_prefix("console="));
    let last = consoles.next_back();
    let console = if own_init && last.is_some() { None } else { Some(CONSOLE) };
    // A guest with an init of its own is to be seen starting.
    let quiet = (!own_init).then_some("quiet");
    let words = Some(words).filter(|words| !words.is_empty());
    let all: Vec<&str> =
        [console, Some(CMDLINE), Some(board.cmdline), quiet, words].into_iter().flatten().collect();
    (all.join(" "), last.is_some_and(|name| name.starts_with("hvc")))
}

/// The guest's memory, of whole pages.
fn memory(limits: &Limits) -> Result<u64> {
    let memory = limits.memory.unwrap_or(MEMORY);
    let size = sbx_core::units::format_size;
    if memory < MEMORY_MIN {
        return Err(Error::Refused(format!(
            "--memory {} holds no guest; give it {} or more",
            size(memory),
            size(MEMORY_MIN)
        )));
    }
    let info = rustix::system::sysinfo();
    let host = info.totalram as u64 * u64::from(info.mem_unit);
    if memory > host {
        return Err(Error::Refused(format!(
            "--memory {} is more than this host has, {} MiB",
            size(memory),
            host >> 20
        )));
    }
    Ok(memory & !0xfff)
}

/// The guest's processors: as many as are begun; `--cpus` of a fraction is the control group's to hold.
fn cpus(limits: &Limits) -> Result<u8> {
    let cpus = limits.cpus.unwrap_or(1000).div_ceil(1000);
    match u8::try_from(cpus) {
        Ok(cpus) if u32::from(cpus) <= CPUS_MAX && cpus > 0 => Ok(cpus),
        _ => Err(Error::Refused(format!(
            "--cpus {cpus} is more than a microVM can have; give it {CPUS_MAX} or fewer"
        ))),
    }
}

/// Refuses what is asked for and only means something elsewhere.
fn grantable(spec: &Spec) -> Result<()> {
    let refused = |why: &str| Err(Error::Refused(why.into()));
    if spec.invoke.is_some() {
        return refused("--invoke calls a function of a WebAssembly module, and this is none");
    }
    if !spec.allow_net.is_empty() || !spec.listen.is_empty() {
        return refused(
            "a microVM's network is not told apart by address; leave --allow-net and --listen out, \
             and give it an interface with --net tap=NAME, which the host's firewall can filter",
        );
    }
    spec.machine.net.as_ref().map(network).transpose()?;
    if spec.volumes.iter().any(|volume| volume.guest.trim_matches('/').is_empty()) {
        return refused(
            "a volume cannot take the place of the guest's root; give it a path below /, or share the \
             directory as the root with --rootfs",
        );
    }
    if spec.machine.initrd.is_some() {
        let machine = &spec.machine;
        let unusable = [
            ("-v", !spec.volumes.is_empty()),
            ("-e", !spec.env.is_empty()),
            ("-w", spec.workdir.is_some()),
            ("--rootfs", machine.rootfs.is_some()),
            ("--user", machine.user.is_some()),
            ("--hostname", machine.hostname.is_some()),
            ("--pids", spec.limits.pids.is_some()),
            ("--fds", spec.limits.fds.is_some()),
        ];
        if let Some((flag, _)) = unusable.iter().find(|(_, set)| *set) {
            return refused(&format!(
                "{flag} is for sbx's init to see to, and --initrd replaces that; leave one of them out"
            ));
        }
    }
    Ok(())
}

fn devices(spec: &Spec, own_init: bool) -> Result<Vec<Device>> {
    let mut devices = vec![if own_init { Device::Console } else { Device::Vsock }, Device::Rng];
    let quota = Quota::new(spec.limits.disk);
    if let Some(dir) = &spec.machine.rootfs {
        let (tag, dir) = (ROOT_TAG.into(), volumes::open("root", dir)?);
        devices.push(Device::Fs { tag, dir, access: Access::Root, quota: quota.clone() });
    }
    for (i, volume) in spec.volumes.iter().enumerate() {
        let (tag, dir) = (volume_tag(i), volumes::open("volume", &volume.host)?);
        let access = if volume.read_only { Access::ReadOnly } else { Access::ReadWrite };
        devices.push(Device::Fs { tag, dir, access, quota: quota.clone() });
    }
    for disk in &spec.machine.disks {
        let image = Image::open(&disk.file, disk.read_only);
        let image = image.map_err(|e| Error::Refused(e.to_string()))?;
        let rate = spec.machine.disk_rate;
        devices.push(Device::Block { image, quota: quota.clone(), rate });
    }
    if let Some(Interface { name, .. }) = &spec.machine.net {
        let tap = Tap::open(name).map_err(|e| Error::Refused(e.to_string()))?;
        devices.push(Device::Net { tap, name: name.clone() });
    }
    devices.push(Device::Balloon);
    if devices.len() > DEVICES_MAX {
        return Err(Error::Refused(format!(
            "the guest would have {} devices, and {DEVICES_MAX} is the most; share fewer directories \
             or disks",
            devices.len()
        )));
    }
    Ok(devices)
}

const ROOT_TAG: &str = "root";

fn volume_tag(index: usize) -> String {
    format!("volume{index}")
}

fn open_initrd(path: &Path) -> Result<File> {
    let name = path.display();
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Refused(format!("there is no initial RAM disk at {name}"))
        }
        _ => Error::host(format!("open the initial RAM disk {name}"), e),
    })?;
    match file.metadata() {
        Ok(meta) if meta.is_file() && meta.len() > 0 => Ok(file),
        _ => Err(Error::Refused(format!("{name} is no initial RAM disk: it is no file, or empty"))),
    }
}

/// The archive with sbx's init, and with the program if that comes from the host.
fn archive(runs: &Runs) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    let fill = |archive: &mut Archive| {
        // What the kernel gives init as its standard streams.
        archive.device("dev/console", 0o600, 5, 1)?;
        archive.file("init", 0o755, INIT)?;
        match runs {
            Runs::Packed { name, content, .. } => {
                archive.file(&Runs::packed_path(name), 0o755, content)
            }
            Runs::InGuest(_) | Runs::OwnInit(_) => Ok(()),
        }
    };
    fill(&mut archive).map_err(|e| Error::Refused(e.to_string()))?;
    Ok(archive.finish())
}

/// What sbx's init is to do.
fn task(spec: &Spec, runs: &Runs, memory: u64) -> Result<Task> {
    let machine = &spec.machine;
    let root = match (&machine.rootfs, machine.disks.first()) {
        (Some(_), _) => Root::Fs { tag: ROOT_TAG.into() },
        (None, Some(disk)) => Root::Disk { index: 0, read_only: disk.read_only },
        (None, None) => Root::Initramfs,
    };
    let volumes = spec.volumes.iter().enumerate().map(|(i, volume)| Volume {
        tag: volume_tag(i),
        path: volume.guest.clone(),
        read_only: volume.read_only,
    });
    let Limits {
        memory: _,  // the guest's memory
        timeout: _, // the core's clock
        cpu_time,   // the session's, from the workload's start
        cpus: _,    // processors, and the control group
        pids,
        fds: _, // the process's
        output,
        disk,    // and the shared directories' and disks' quota
        fuel: _, // refused
    } = spec.limits;
    let boot = Boot {
        hostname: machine.hostname.clone().unwrap_or_else(|| "sbx".into()),
        root,
        volumes: volumes.collect(),
        network: machine.net.as_ref().map(network).transpose()?.flatten(),
        pids,
        disk,
    };
    let writes = spec.volumes.iter().any(|v| !v.read_only)
        || machine.disks.iter().any(|disk| !disk.read_only);
    let process = process(spec, runs);
    Ok(Task { boot, process, writes, memory, cpu_time, output })
}

fn process(spec: &Spec, runs: &Runs) -> Process {
    let mut env = spec.env.clone();
    if let Some(dir) = &spec.workdir
        && env.iter().all(|(name, _)| name != "PWD")
    {
        env.push(("PWD".into(), dir.into()));
    }
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name.into_vec()
    };
    let is_terminal = spec.tty && rustix::termios::isatty(rustix::stdio::stdout());
    let size = sbx_host::terminal::size().unwrap_or((80, 24));
    Process {
        argv: runs.argv().into_iter().map(OsString::into_vec).collect(),
        env: env.into_iter().map(variable).collect(),
        cwd: spec.workdir.clone().unwrap_or_else(|| "/".into()),
        user: spec.machine.user.clone(),
        terminal: is_terminal.then_some(Terminal { rows: size.1, cols: size.0 }),
        stdin: spec.stdin,
        // The standard streams are not counted.
        fds: spec.limits.fds.map(|fds| u64::from(fds) + 3),
    }
}

fn network(interface: &Interface) -> Result<Option<Network>> {
    let v6 = || Error::Refused("the guest's address and gateway must be IPv4 addresses".into());
    let Some(net) = interface.address else { return Ok(None) };
    let IpAddr::V4(address) = net.addr() else { return Err(v6()) };
    let gateway = match interface.gateway {
        None => None,
        Some(IpAddr::V4(gateway)) => Some(gateway),
        Some(IpAddr::V6(_)) => return Err(v6()),
    };
    let dns = if gateway.is_some() { name_servers() } else { Vec::new() };
    Ok(Some(Network { address, prefix: net.prefix_len(), gateway, dns }))
}

/// The host's name servers, but for those that only the host itself reaches.
fn name_servers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback())
        .collect()
}
