//! A machine that was built from its plan and has not begun, whoever executes it.
//!
//! There are two who do: KVM with sbx's own devices around its processors ([`crate::kvm::machine`]), and
//! QEMU, which emulates the processors in software ([`crate::qemu`]). They differ in an [`Executor`]; what
//! they execute is one plan, and what comes of it is one [`Machine`], whose end, console and agent the
//! control thread knows by the same names.
//!
//! The process is the machine: nothing here is ever taken down, and all of it goes when the process ends.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sbx_core::machine::DiskRate;
use sbx_core::quota::Quota;
use sbx_host::process::CpuTime;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::boot::BootError;
use crate::control::console::Keys;
use crate::device::block::{Block, BlockOptions};
use crate::device::boot_timer::BootTimer;
use crate::device::console::ConsoleHandle;
use crate::device::fs::Fs;
use crate::device::image::Image;
use crate::device::rate::{Limit, Rate};
use crate::device::vsock::Vsock;
use crate::end::{Cause, End};
use crate::fs::{Access, Server};
use crate::kvm::KvmError;
use crate::plan::{Device, Plan};
use crate::qemu::Emulator;
use crate::seccomp::Role;
use crate::virtio::DeviceError;

/// The guest's own address among vsock's contexts: the first that is free (virtio 1.2, 5.10.4).
const GUEST_CID: u64 = 3;

/// Bytes of its memory that a guest's kernel needs at least for a file that it knows.
const KERNEL_INODE: u64 = 1 << 10;
/// Files that a machine itself has open, generously.
const DESCRIPTORS_OWN: usize = 256;
/// A process may hold no more for its guest, whatever it is allowed.
const DESCRIPTORS_MAX: usize = 1 << 18;

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("a device cannot be made: {0}")]
    Device(#[from] DeviceError),
    #[error("a directory cannot be shared: {0}")]
    Fs(#[from] crate::fs::Error),
    #[error("this host's system refused what a machine needs: {0}")]
    Host(#[from] std::io::Error),
    #[error(transparent)]
    Tag(#[from] crate::device::fs::BadTag),
    #[error("two devices have one address")]
    Address,
    #[error("a thread cannot be confined: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error(transparent)]
    Core(#[from] sbx_core::Error),
}

/// Executes machines.
pub(crate) trait Executor {
    /// Builds the machine of a plan, whose devices it takes.
    ///
    /// # Errors
    /// When the host does not have what the machine needs.
    fn build(self: Box<Self>, plan: &mut Plan, outside: &Outside) -> Result<Machine, MachineError>;
}

/// Where a machine's console goes: twice, for a serial and a virtio one.
pub(crate) type Screen = Arc<Mutex<dyn FnMut(&[u8]) + Send>>;

/// What a machine knows of what is around it.
pub(crate) struct Outside {
    /// Where its end is told.
    pub(crate) end: Arc<End>,
    /// Where its console goes.
    pub(crate) screen: Screen,
    /// When its process began.
    pub(crate) begun: Instant,
}

impl Outside {
    /// Shows what a console wrote.
    pub(crate) fn show(&self) -> impl FnMut(&[u8]) + Send + 'static {
        let screen = self.screen.clone();
        move |bytes| {
            let mut screen = screen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            screen(bytes);
        }
    }
}

/// A thread of a machine's.
pub(crate) struct Thread {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) work: Box<dyn FnOnce(&End) + Send>,
}

/// A machine that has not begun.
pub(crate) struct Machine {
    /// All that it does.
    pub(crate) threads: Vec<Thread>,
    /// The host's end of the virtio console's or the agent's stream.
    pub(crate) stream: Option<UnixStream>,
    /// The virtio console's size, if there is one that can be told.
    pub(crate) terminal: Option<ConsoleHandle>,
    /// What types at the serial port.
    pub(crate) serial: Option<Keys>,
    pub(crate) timer: Arc<BootTimer>,
    /// What runs the guest, for the control thread to hold.
    pub(crate) processors: Option<Processors>,
}

/// What runs the guest: threads of this process, or another process, which ends with this value.
#[derive(Default)]
pub(crate) struct Processors(Option<(Emulator, CpuTime)>);

impl Processors {
    /// Those of another process.
    pub(crate) fn of(emulator: Emulator) -> sbx_core::Result<Self> {
        let time = CpuTime::of(emulator.process())?;
        Ok(Self(Some((emulator, time))))
    }

    /// Has the control thread hear of it (`signals::CPU_TIME`) when the guest has used `limit` more of
    /// processor time.
    pub(crate) fn limit(&self, limit: Duration) -> sbx_core::Result<()> {
        match &self.0 {
            Some((_, time)) => time.limit(limit),
            None => sbx_host::process::limit_cpu_time(limit),
        }
    }

    /// Stops those of another process, or has them go on. Threads of this one stop with it.
    pub(crate) fn pause(&self, paused: bool) {
        if let Some((emulator, _)) = &self.0 {
            emulator.pause(paused);
        }
    }
}

impl Machine {
    /// Begins.
    pub(crate) fn start(self, end: &Arc<End>) -> Result<(), MachineError> {
        for Thread { name, role, work } in self.threads {
            let end = end.clone();
            let named = std::thread::Builder::new().name(name.into());
            // One that cannot be confined does nothing but end the machine.
            named.spawn(move || match role.confine() {
                Ok(()) => work(&end),
                Err(e) => end.set(Cause::Host(format!("a thread cannot be confined: {e}"))),
            })?;
        }
        Ok(())
    }
}

/// Makes the shared directories of a machine, of which each has an equal part of what there is.
pub(crate) struct Shares {
    /// How many files of each directory the guest may know.
    nodes: usize,
    /// How many files each directory may hold open.
    descriptors: usize,
}

impl Shares {
    /// Those of `plan`, in a process that may from here on open as many files as the host lets it.
    pub(crate) fn of(plan: &Plan) -> std::io::Result<Self> {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        let all = maximum.map_or(usize::MAX, |all| usize::try_from(all).unwrap_or(usize::MAX));
        let shares = plan.devices.iter().filter(|d| matches!(d, Device::Fs { .. })).count();
        let descriptors = all.min(DESCRIPTORS_MAX).saturating_sub(DESCRIPTORS_OWN) / shares.max(1);
        let nodes = usize::try_from(plan.memory / KERNEL_INODE).unwrap_or(usize::MAX);
        Ok(Self { nodes, descriptors })
    }

    /// The device of one.
    pub(crate) fn device(
        &self,
        tag: &str,
        dir: OwnedFd,
        access: Access,
        quota: Quota,
    ) -> Result<Fs, MachineError> {
        let Self { nodes, descriptors } = *self;
        let options = crate::fs::Options { access, quota, nodes, descriptors };
        Ok(Fs::new(tag, Server::new(dir, options)?)?)
    }
}

/// Makes the device that the agent is spoken to through, and the host's end of that.
pub(crate) fn agent() -> std::io::Result<(Vsock, UnixStream)> {
    let (guest, host) = UnixStream::pair()?;
    Ok((Vsock::new(GUEST_CID, vec![(sbx_proto::PORT, guest)])?, host))
}

/// Makes a disk, of whose rate a second's worth may come at once.
pub(crate) fn disk(image: Image, quota: Quota, rate: DiskRate) -> std::io::Result<Block> {
    let limit = |per_second: NonZeroU64| Limit { per_second, burst: per_second.get() };
    let rate = (rate != DiskRate::default())
        .then(|| Rate { bytes: rate.bytes.map(limit), operations: rate.operations.map(limit) });
    Block::new(image, BlockOptions { serial: String::new(), rate, quota })
}
