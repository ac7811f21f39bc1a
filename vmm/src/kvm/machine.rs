//! From a plan to a machine on KVM, in short steps: memory, the kernel in it, the guest, its devices, its
//! processors; then its threads.

use kvm_ioctls::Kvm;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::vcpu::Buses;
use super::{Vcpu, Vm};
use crate::boot::board;
use crate::boot::{self, layout};
use crate::bus::{Bus, BusDevice};
use crate::control::console::Keys;
use crate::device::balloon::Balloon;
use crate::device::boot_timer::{self, BootTimer};
use crate::device::console::{Console, ConsoleHandle};
use crate::device::i8042::{self, I8042};
use crate::device::net::{Net, NetOptions, mac_of};
use crate::device::power::{self, Power};
use crate::device::rng::Rng;
use crate::device::serial::{self, Serial};
use crate::end::{Cause, End};
use crate::machine::{self, Executor, Machine, MachineError, Outside, Processors, Shares, Thread};
use crate::memory::{self, GuestMemory};
use crate::plan::{Device, Plan};
use crate::seccomp::Role;
use crate::virtio::VirtioDevice;
use crate::virtio::mmio::{self, Transport};
use crate::virtio::worker::Worker;

impl Executor for Kvm {
    fn build(self: Box<Self>, plan: &mut Plan, outside: &Outside) -> Result<Machine, MachineError> {
        let mem = memory::allocate(&board::KVM.ram_ranges(plan.memory))?;
        let entry = load(plan, &mem)?;
        let vm = Vm::new(&self, &mem)?;
        let (mut ports, mut mmio) = (Bus::default(), Bus::default());
        let shares = Shares::of(plan)?;
        let mut wiring =
            Wiring { vm: &vm, mem: &mem, mmio: &mut mmio, next: 0, stream: None, terminal: None };
        let (mut together, mut threads) = (Vec::new(), Vec::new());
        for device in plan.devices.drain(..) {
            let blocks = matches!(device, Device::Fs { .. });
            let transport = wiring.attach(device, &shares, outside)?;
            // A device that waits for the host does not share its thread.
            if blocks {
                threads.push(devices(Role::Files, vec![transport])?);
            } else {
                together.push(transport);
            }
        }
        threads.push(devices(Role::Devices, together)?);
        let (stream, terminal) = (wiring.stream.take(), wiring.terminal.take());
        let serial = legacy(&vm, &mut ports, outside)?;
        let timer = Arc::new(BootTimer::new(outside.begun, Box::new(|_| ())));
        put(&mut ports, boot_timer::PORTS, timer.clone())?;
        threads.extend(processors(&self, &vm, plan, &entry, (ports, mmio))?);
        // Closing the guest's file would disconnect its interrupts (KVM_IRQFD); it stays open for good.
        std::mem::forget(vm);
        let (serial, processors) = (Some(Keys::Serial(serial)), Some(Processors::default()));
        Ok(Machine { threads, stream, terminal, serial, timer, processors })
    }
}

/// Puts the kernel and all that it is told into memory.
fn load(plan: &Plan, mem: &GuestMemory) -> Result<boot::Entry, MachineError> {
    // First of all: a page that is there already stays a small one.
    memory::use_huge_pages(mem);
    Ok(plan.boot(&board::KVM, |boot| boot::prepare(mem, boot))?)
}

fn devices(role: Role, transports: Vec<Arc<Transport>>) -> Result<Thread, MachineError> {
    let worker = Worker::new(transports)?;
    let work = Box::new(move |end: &End| {
        let e = worker.run();
        end.set(Cause::Host(format!("the devices' thread failed: {e}")));
    });
    Ok(Thread { name: "devices", role, work })
}

/// A thread for each processor, the first of which begins at `entry`.
fn processors(
    kvm: &Kvm,
    vm: &Vm,
    plan: &Plan,
    entry: &boot::Entry,
    (ports, mmio): (Bus, Bus),
) -> Result<Vec<Thread>, MachineError> {
    let vcpus = (0..plan.cpus).map(|id| vm.vcpu(kvm, id, plan.cpus));
    let vcpus: Vec<Vcpu> = vcpus.collect::<Result<_, _>>()?;
    if let Some(first) = vcpus.first() {
        first.start_at(entry)?;
    }
    let (ports, mmio) = (Arc::new(ports), Arc::new(mmio));
    let thread = |vcpu: Vcpu| {
        let (ports, mmio) = (ports.clone(), mmio.clone());
        let work = Box::new(move |end: &End| vcpu.run(Buses { ports: &ports, mmio: &mmio }, end));
        Thread { name: "vcpu", role: Role::Vcpu, work }
    };
    Ok(vcpus.into_iter().map(thread).collect())
}

/// Connects virtio devices to a guest, in the order of the plan.
struct Wiring<'a> {
    vm: &'a Vm,
    mem: &'a GuestMemory,
    mmio: &'a mut Bus,
    next: usize,
    stream: Option<UnixStream>,
    terminal: Option<ConsoleHandle>,
}

impl Wiring<'_> {
    fn attach(
        &mut self,
        device: Device,
        shares: &Shares,
        outside: &Outside,
    ) -> Result<Arc<Transport>, MachineError> {
        let device = self.device(device, shares, outside)?;
        let place = board::KVM.transport(self.next).ok_or(MachineError::Address)?;
        self.next += 1;
        let address = u64::from(place.address);
        let event = event()?;
        self.vm.irqfd(&event, place.irq)?;
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
        shares: &Shares,
        outside: &Outside,
    ) -> Result<Box<dyn VirtioDevice>, MachineError> {
        Ok(match device {
            Device::Rng => Box::new(Rng),
            // No verb moves the balloon yet; the guest reports its free pages by itself.
            Device::Balloon => Box::new(Balloon::new()?.0),
            Device::Block { image, quota, rate } => Box::new(machine::disk(image, quota, rate)?),
            Device::Net { tap, name } => {
                let options = NetOptions { mac: mac_of(&name), receive: None, send: None };
                Box::new(Net::new(tap, options)?)
            }
            Device::Vsock => {
                let (vsock, host) = machine::agent()?;
                self.stream = Some(host);
                Box::new(vsock)
            }
            Device::Console => {
                let (guest, host) = UnixStream::pair()?;
                self.stream = Some(host);
                let screen = Box::new(outside.show());
                let (console, handle) = Console::new(screen, Some(guest.into()))?;
                self.terminal = Some(handle);
                Box::new(console)
            }
            Device::Fs { tag, dir, access, quota } => {
                Box::new(shares.device(&tag, dir, access, quota)?)
            }
        })
    }
}

/// The devices of a PC that a kernel cannot do without.
fn legacy(vm: &Vm, ports: &mut Bus, outside: &Outside) -> Result<Arc<Serial>, MachineError> {
    let event = event()?;
    vm.irqfd(&event, serial::IRQ)?;
    let serial = Arc::new(Serial::new(event, Box::new(outside.show()))?);
    put(ports, serial::PORTS, serial.clone())?;
    put(ports, i8042::PORTS, Arc::new(I8042::new(outside.end.clone())))?;
    let sleep = u64::from(layout::SLEEP_CONTROL);
    put(ports, sleep..sleep + power::SIZE, Arc::new(Power::new(outside.end.clone())))?;
    Ok(serial)
}

fn put(
    bus: &mut Bus,
    range: std::ops::Range<u64>,
    device: Arc<dyn BusDevice>,
) -> Result<(), MachineError> {
    if bus.insert(range, device) { Ok(()) } else { Err(MachineError::Address) }
}

fn event() -> std::io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
}
