//! From a plan to a machine on KVM, in short steps: memory, the kernel in it, the guest, its devices, its
//! processors; then its threads.
//!
//! The process is the machine: nothing here is ever taken down, and all of it goes when the process ends.

use kvm_ioctls::Kvm;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sbx_core::machine::DiskRate;
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::boot::{self, BootError, acpi, layout};
use crate::bus::Bus;
use crate::device::balloon::Balloon;
use crate::device::block::{Block, BlockOptions};
use crate::device::boot_timer::{self, BootTimer};
use crate::device::console::{Console, ConsoleHandle};
use crate::device::fs::Fs;
use crate::device::i8042::{self, I8042};
use crate::device::net::{Net, NetOptions, mac_of};
use crate::device::power::{self, Power};
use crate::device::rate::{Limit, Rate};
use crate::device::rng::Rng;
use crate::device::serial::{self, Serial};
use crate::device::vsock::Vsock;
use crate::end::{Cause, End};
use crate::fs::Server;
use crate::kvm::vcpu::Buses;
use crate::kvm::{KvmError, Vcpu, Vm};
use crate::memory::{self, GuestMemory};
use crate::plan::{Device, FIRST_IRQ, Plan};
use crate::seccomp::Role;
use crate::virtio::mmio::{self, Transport};
use crate::virtio::worker::Worker;
use crate::virtio::{DeviceError, VirtioDevice};

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
}

/// A machine that has not begun.
pub(crate) struct Machine {
    vcpus: Vec<Vcpu>,
    ports: Arc<Bus>,
    mmio: Arc<Bus>,
    /// The devices that share a thread, and those that have one of their own.
    shared: Vec<Arc<Transport>>,
    own: Vec<Arc<Transport>>,
    /// The host's end of the console's or the agent's stream.
    pub(crate) stream: Option<UnixStream>,
    /// The virtio console's size, if there is one.
    pub(crate) terminal: Option<ConsoleHandle>,
    pub(crate) serial: Arc<Serial>,
    pub(crate) timer: Arc<BootTimer>,
}

/// Where a machine's console goes: twice, for a serial and a virtio one.
pub(crate) type Screen = Arc<Mutex<dyn FnMut(&[u8]) + Send>>;

/// Builds the machine of a plan.
pub(crate) fn build(
    plan: &mut Plan,
    kvm: &Kvm,
    end: &Arc<End>,
    screen: &Screen,
    start: Instant,
) -> Result<Machine, MachineError> {
    let mem = memory::allocate(&layout::ram_ranges(plan.memory))?;
    let entry = load(plan, &mem)?;
    let vm = Vm::new(kvm, &mem)?;
    let (mut ports, mut mmio) = (Bus::default(), Bus::default());
    let descriptors = descriptors_each(plan)?;
    let mut wiring = Wiring {
        vm: &vm,
        mem: &mem,
        mmio: &mut mmio,
        next: 0,
        stream: None,
        terminal: None,
        descriptors,
        nodes: usize::try_from(plan.memory / KERNEL_INODE).unwrap_or(usize::MAX),
    };
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    for device in plan.devices.drain(..) {
        let blocks = matches!(device, Device::Fs { .. });
        let transport = wiring.attach(device, screen)?;
        if blocks { own.push(transport) } else { shared.push(transport) }
    }
    let (stream, terminal) = (wiring.stream.take(), wiring.terminal.take());
    let serial = legacy(&vm, &mut ports, end, screen)?;
    let timer = Arc::new(BootTimer::new(start, Box::new(|_| ())));
    put(&mut ports, boot_timer::PORTS, timer.clone())?;
    let vcpus = (0..plan.cpus).map(|id| vm.vcpu(kvm, id, plan.cpus));
    let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = vcpus.first() {
        first.start_at(&entry)?;
    }
    // Closing the guest's file would disconnect its interrupts (KVM_IRQFD); it stays open for good.
    std::mem::forget(vm);
    let (ports, mmio) = (Arc::new(ports), Arc::new(mmio));
    Ok(Machine { vcpus, ports, mmio, shared, own, stream, terminal, serial, timer })
}

/// Puts the kernel and all that it is told into memory.
fn load(plan: &Plan, mem: &GuestMemory) -> Result<boot::Entry, MachineError> {
    let transports = transports(plan.devices.len());
    // First of all: a page that is there already stays a small one.
    memory::use_huge_pages(mem);
    Ok(plan.boot(&transports, |boot| boot::prepare(mem, boot))?)
}

/// How many files each shared directory may hold open: an equal part of all that the process may.
fn descriptors_each(plan: &Plan) -> std::io::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let all = maximum.map_or(usize::MAX, |all| usize::try_from(all).unwrap_or(usize::MAX));
    let shares = plan.devices.iter().filter(|d| matches!(d, Device::Fs { .. })).count();
    Ok(all.min(DESCRIPTORS_MAX).saturating_sub(DESCRIPTORS_OWN) / shares.max(1))
}

fn transports(count: usize) -> Vec<acpi::Transport> {
    let place = |index| Some((layout::transport(index)?, irq(index)));
    let places = (0..count).filter_map(place);
    places.map(|(address, irq)| acpi::Transport { address, irq }).collect()
}

fn irq(index: usize) -> u32 {
    FIRST_IRQ.saturating_add(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Connects virtio devices to a guest, in the order of the plan.
struct Wiring<'a> {
    vm: &'a Vm,
    mem: &'a GuestMemory,
    mmio: &'a mut Bus,
    next: usize,
    stream: Option<UnixStream>,
    terminal: Option<ConsoleHandle>,
    /// How many files each shared directory may hold open.
    descriptors: usize,
    /// How many files of each shared directory the guest may know.
    nodes: usize,
}

impl Wiring<'_> {
    fn attach(&mut self, device: Device, screen: &Screen) -> Result<Arc<Transport>, MachineError> {
        let device = self.device(device, screen)?;
        let index = self.next;
        self.next += 1;
        let address = u64::from(layout::transport(index).ok_or(MachineError::Address)?);
        let event = event()?;
        self.vm.irqfd(&event, irq(index))?;
        let transport = Transport::new(device, self.mem.clone(), event)?;
        for (queue, event) in (0..).zip(transport.queue_events()) {
            self.vm.ioeventfd(event, address + mmio::QUEUE_NOTIFY, queue)?;
        }
        put(self.mmio, address..address + mmio::SIZE, transport.clone())?;
        Ok(transport)
    }

    fn device(
        &mut self,
        device: Device,
        screen: &Screen,
    ) -> Result<Box<dyn VirtioDevice>, MachineError> {
        Ok(match device {
            Device::Rng => Box::new(Rng),
            // No verb moves the balloon yet; the guest reports its free pages by itself.
            Device::Balloon => Box::new(Balloon::new()?.0),
            Device::Block { image, quota, rate } => {
                let options = BlockOptions { serial: String::new(), rate: throttle(rate), quota };
                Box::new(Block::new(image, options)?)
            }
            Device::Net { tap, name } => {
                let options = NetOptions { mac: mac_of(&name), receive: None, send: None };
                Box::new(Net::new(tap, options)?)
            }
            Device::Vsock => {
                let (guest, host) = UnixStream::pair()?;
                self.stream = Some(host);
                Box::new(Vsock::new(GUEST_CID, vec![(sbx_proto::PORT, guest)])?)
            }
            Device::Console => {
                let (guest, host) = UnixStream::pair()?;
                self.stream = Some(host);
                let (console, handle) = Console::new(sink(screen), Some(guest.into()))?;
                self.terminal = Some(handle);
                Box::new(console)
            }
            Device::Fs { tag, dir, access, quota } => {
                let (nodes, descriptors) = (self.nodes, self.descriptors);
                let options = crate::fs::Options { access, quota, nodes, descriptors };
                Box::new(Fs::new(&tag, Server::new(dir, options)?)?)
            }
        })
    }
}

/// A disk's rate, of which a second's worth may come at once.
fn throttle(rate: DiskRate) -> Option<Rate> {
    let limit = |per_second: NonZeroU64| Limit { per_second, burst: per_second.get() };
    (rate != DiskRate::default())
        .then(|| Rate { bytes: rate.bytes.map(limit), operations: rate.operations.map(limit) })
}

/// The devices of a PC that a kernel cannot do without.
fn legacy(
    vm: &Vm,
    ports: &mut Bus,
    end: &Arc<End>,
    screen: &Screen,
) -> Result<Arc<Serial>, MachineError> {
    let event = event()?;
    vm.irqfd(&event, serial::IRQ)?;
    let serial = Arc::new(Serial::new(event, sink(screen))?);
    put(ports, serial::PORTS, serial.clone())?;
    put(ports, i8042::PORTS, Arc::new(I8042::new(end.clone())))?;
    let sleep = u64::from(layout::SLEEP_CONTROL);
    put(ports, sleep..sleep + power::SIZE, Arc::new(Power::new(end.clone())))?;
    Ok(serial)
}

fn sink(screen: &Screen) -> serial::Output {
    let screen = screen.clone();
    Box::new(move |bytes| {
        let mut screen = screen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        screen(bytes);
    })
}

fn put(
    bus: &mut Bus,
    range: std::ops::Range<u64>,
    device: Arc<dyn crate::bus::BusDevice>,
) -> Result<(), MachineError> {
    if bus.insert(range, device) { Ok(()) } else { Err(MachineError::Address) }
}

fn event() -> std::io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
}

impl Machine {
    /// Begins: a thread for each processor, one for the devices, and one for each shared directory.
    pub(crate) fn start(self, end: &Arc<End>) -> Result<(), MachineError> {
        let workers = std::iter::once((Role::Devices, self.shared))
            .chain(self.own.into_iter().map(|transport| (Role::Files, vec![transport])));
        for (role, transports) in workers {
            let worker = Worker::new(transports)?;
            thread("devices", end, role, move |end| {
                let e = worker.run();
                end.set(Cause::Host(format!("the devices' thread failed: {e}")));
            })?;
        }
        for vcpu in self.vcpus {
            let (ports, mmio) = (self.ports.clone(), self.mmio.clone());
            thread("vcpu", end, Role::Vcpu, move |end| {
                vcpu.run(Buses { ports: &ports, mmio: &mmio }, end);
            })?;
        }
        Ok(())
    }
}

/// Starts a thread of this role. One that cannot be confined does nothing but end the machine.
fn thread(
    name: &str,
    end: &Arc<End>,
    role: Role,
    work: impl FnOnce(&End) + Send + 'static,
) -> Result<(), MachineError> {
    let end = end.clone();
    let named = std::thread::Builder::new().name(name.into());
    named.spawn(move || match role.confine() {
        Ok(()) => work(&end),
        Err(e) => end.set(Cause::Host(format!("a thread cannot be confined: {e}"))),
    })?;
    Ok(())
}
