//! The second executor: QEMU's `microvm` machine under software emulation, for hosts without hardware
//! virtualization.
//!
//! QEMU only has the processors, the interrupt controllers and the simplest devices. The kernel is put into
//! memory here, as for KVM; that memory is shared with QEMU, whose firmware is a few instructions of ours
//! ([`firmware`]) that do what KVM's registers are set to otherwise. What touches the host's files, the
//! shared directories and disks, and the agent's socket, is served by this process with the very devices
//! that KVM's machines have, over vhost-user ([`crate::virtio::vhost_user`]).
//!
//! QEMU is a child of the machine's process, is confined as it is and more ([`sbx_host::program`]), sees no
//! file of the user's, and ends with it.
//!
//! Not here: KVM by way of QEMU, other machine types, and reading QEMU's own protocol (QMP): that it has
//! ended, and what it said on standard error, tells all that is to be known.

mod arguments;
mod emulator;
mod firmware;
mod tsc;

pub(crate) use emulator::Emulator;

use sbx_host::program;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use crate::boot;
use crate::boot::board;
use crate::control::console::Keys;
use crate::device::boot_timer::BootTimer;
use crate::end::{Cause, End};
use crate::machine::{self, Executor, Machine, MachineError, Outside, Processors, Shares, Thread};
use crate::memory::{self, GuestMemory};
use crate::plan::{Device, Plan};
use crate::seccomp::Role;
use crate::virtio::VirtioDevice;
use crate::virtio::vhost_user::Backend;
use arguments::Arguments;
use emulator::Voice;

/// Its name among programs.
const NAME: &str = "qemu-system-x86_64";
/// How to get it, as the end of a sentence.
pub(crate) const INSTALL: &str =
    "which is package qemu-system-x86 of Debian, Ubuntu, Fedora and Arch Linux";

/// Finds QEMU by the search path, or without one where distributions put it.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin".into());
    let mut dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    dirs.find_map(|dir| {
        let program = dir.join(NAME);
        rustix::fs::access(&program, rustix::fs::Access::EXEC_OK).is_ok().then_some(program)
    })
}

/// QEMU, at its path.
pub(crate) struct Qemu(PathBuf);

impl Qemu {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self(program)
    }
}

impl Executor for Qemu {
    fn build(self: Box<Self>, plan: &mut Plan, outside: &Outside) -> Result<Machine, MachineError> {
        if let Some(khz) = tsc::khz() {
            plan.cmdline.insert_str(0, &format!("tsc=reliable tsc_early_khz={khz} "));
        }
        let (mem, file) = memory::share(&board::MICROVM.ram_ranges(plan.memory))?;
        let entry = plan.boot(&board::MICROVM, |boot| boot::prepare(&mem, boot))?;
        let shares = Shares::of(plan)?;
        let mut wiring = Wiring {
            arguments: Arguments::new(plan, file, firmware::image(&entry)?),
            mem,
            threads: Vec::new(),
            stream: None,
            console: None,
        };
        let serial = wiring.arguments.serial()?;
        let timer = wiring.arguments.boot_timer()?;
        for device in plan.devices.drain(..) {
            wiring.attach(device, &shares)?;
        }
        let Wiring { arguments, mut threads, stream, console, .. } = wiring;
        let (arguments, files) = arguments.finish();
        let child = program::spawn(&self.0, &arguments, files)?;
        let keys = serial.try_clone()?;
        let mut voices = vec![Voice::Console(serial), Voice::Timer(timer)];
        voices.extend(console.map(Voice::Console));
        let timer = Arc::new(BootTimer::new(outside.begun, Box::new(|_| ())));
        let (emulator, watch) = Emulator::new(child, voices, outside.show(), timer.clone())?;
        threads.push(watch);
        Ok(Machine {
            threads,
            stream,
            terminal: None,
            serial: Some(Keys::Stream(keys)),
            timer,
            processors: Some(Processors::of(emulator)?),
        })
    }
}

/// Makes the devices: QEMU's arguments for all, and threads that serve those that are ours.
struct Wiring {
    arguments: Arguments,
    mem: GuestMemory,
    threads: Vec<Thread>,
    /// The host's end of the agent's stream or the virtio console's.
    stream: Option<UnixStream>,
    /// The same end, for what the virtio console shows.
    console: Option<UnixStream>,
}

impl Wiring {
    fn attach(&mut self, device: Device, shares: &Shares) -> Result<(), MachineError> {
        match device {
            Device::Rng => self.arguments.rng(),
            Device::Balloon => self.arguments.balloon(),
            Device::Net { tap, name } => self.arguments.net(OwnedFd::from(tap), &name),
            Device::Console => {
                let stream = self.arguments.console()?;
                self.console = Some(stream.try_clone()?);
                self.stream = Some(stream);
            }
            Device::Vsock => {
                let (vsock, host) = machine::agent()?;
                self.stream = Some(host);
                let connection = self.arguments.vsock()?;
                self.serve(Role::Devices, Box::new(vsock), connection)?;
            }
            Device::Block { image, quota, rate } => {
                let connection = self.arguments.block()?;
                let disk = machine::disk(image, quota, rate)?;
                self.serve(Role::Devices, Box::new(disk), connection)?;
            }
            Device::Fs { tag, dir, access, quota } => {
                let connection = self.arguments.fs(&tag)?;
                let fs = shares.device(&tag, dir, access, quota)?;
                self.serve(Role::Files, Box::new(fs), connection)?;
            }
        }
        Ok(())
    }

    fn serve(
        &mut self,
        role: Role,
        device: Box<dyn VirtioDevice>,
        connection: UnixStream,
    ) -> Result<(), MachineError> {
        let backend = Backend::new(device, self.mem.clone(), connection)?;
        let work = Box::new(move |end: &End| {
            if let Err(e) = backend.run() {
                end.set(Cause::Host(format!("a device's connection to QEMU failed: {e}")));
            }
        });
        self.threads.push(Thread { name: "devices", role, work });
        Ok(())
    }
}
