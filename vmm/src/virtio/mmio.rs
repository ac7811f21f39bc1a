//! The registers of a virtio device in memory: the transport "virtio over MMIO", version 2 (virtio 1.2,
//! section 4.2), the same for every device.
//!
//! The transport negotiates, sets queues up, and calls the device with one thread at a time. A write to
//! `QueueNotify` is caught by KVM where an ioeventfd stands for it ([`Transport::queue_events`]); one
//! that reaches the registers signals the same event, so that queues are served by the device's thread
//! only. The interrupt is one edge for each reason, by an irqfd.
//! Activation, reset and the configuration space are served by the processor's thread that accessed the
//! register, which may do less (`seccomp`): what a device does there must be allowed to it.
//!
//! What is nonsense is ignored: an access to a register of any other width than 4 bytes, a register
//! written in a state in which it has no meaning, a queue's addresses while it is ready. A device that
//! fails is left alone, with `DEVICE_NEEDS_RESET`, until the driver resets it.
//!
//! Not here: the legacy interface (version 1), shared memory regions (all are told to be absent),
//! resetting a queue on its own, and interrupts per queue.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::bindings::virtio_config::*;
use virtio_bindings::bindings::virtio_mmio::*;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::queue::{self, Queue};
use super::{DeviceError, EVENT_IDX, FEATURES, HostFile, Io, VERSION_1, VirtioDevice};
use crate::bus::BusDevice;
use crate::memory::GuestMemory;

/// Bytes of address space that a device's registers and configuration take.
pub const SIZE: u64 = 0x1000;
/// Where in them a driver writes a queue's number to have it served.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

/// "virt", as the specification wants it.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "sbx": the specification leaves the number to the device's maker.
const VENDOR: u32 = u32::from_le_bytes(*b"sbx\0");
/// The width of every register.
const WIDTH: usize = 4;

/// The states in which nothing goes on until a reset.
const DEAD: u32 = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

/// A device on its registers.
pub struct Transport {
    kind: u32,
    mem: GuestMemory,
    state: Mutex<State>,
    /// The pending reasons of the interrupt, apart from the state: a processor in an interrupt handler
    /// must not wait for a device at work.
    interrupt: AtomicU32,
    irq: EventFd,
    queue_events: Vec<EventFd>,
    changed: EventFd,
}

/// What the driver has made of the device.
struct State {
    device: Box<dyn VirtioDevice>,
    queues: Vec<Queue>,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    generation: u32,
    failure: Option<DeviceError>,
}

/// One of the three addresses of a queue.
#[derive(Clone, Copy)]
enum Ring {
    Descriptors,
    Available,
    Used,
}

impl Transport {
    /// Puts `device` behind registers. `irq` is signalled once for each interrupt.
    ///
    /// # Errors
    /// When the host has no more descriptors, or the device has a queue of an impossible size.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        mem: GuestMemory,
        irq: EventFd,
    ) -> Result<Arc<Self>, DeviceError> {
        let event = || EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK);
        let queues = device.queue_sizes().iter().map(|size| Queue::new(*size));
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        let queue_events = queues.iter().map(|_| event()).collect::<Result<_, _>>()?;
        let state = State {
            queues,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            generation: 0,
            failure: None,
            device,
        };
        Ok(Arc::new(Self {
            kind: state.device.kind(),
            mem,
            state: Mutex::new(state),
            interrupt: AtomicU32::new(0),
            irq,
            queue_events,
            changed: event()?,
        }))
    }

    /// One event for each queue, signalled when the driver has put something into it: for
    /// `Vm::ioeventfd` at [`QUEUE_NOTIFY`] with the queue's index, and for the device's thread, which
    /// reads it and calls [`Self::process_queue`].
    pub fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    /// Signalled when [`Self::host_files`] may have changed for a reason that the device's thread cannot
    /// know: the driver activated or reset the device.
    pub fn changed(&self) -> &EventFd {
        &self.changed
    }

    /// Has the device serve queue `index`, if the driver is ready for it.
    pub fn process_queue(&self, index: usize) {
        let mut state = self.lock();
        if index < state.queues.len() {
            self.call(&mut state, |device, io| device.process_queue(index, io));
        }
    }

    /// Has the device serve the host's file that it knows by `token`, if it still listens to that.
    pub fn process_host(&self, token: u32) {
        let mut state = self.lock();
        if state.device.host_files().iter().any(|file| file.token == token) {
            self.call(&mut state, |device, io| device.process_host(token, io));
        }
    }

    /// What the device listens to at present: nothing unless the driver is ready.
    pub fn host_files(&self) -> Vec<HostFile> {
        let state = self.lock();
        if state.is_running() { state.device.host_files() } else { Vec::new() }
    }

    /// Why the device waits for a reset, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.as_ref().map(ToString::to_string)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the device if it is running, and then tells the driver what came of it.
    fn call(
        &self,
        state: &mut State,
        call: impl FnOnce(&mut dyn VirtioDevice, &mut Io<'_>) -> Result<(), DeviceError>,
    ) {
        if !state.is_running() {
            return;
        }
        queue::allot(&mut state.queues);
        let State { device, queues, .. } = state;
        let mut io = Io { mem: &self.mem, queues, config_changed: false };
        let result = call(&mut **device, &mut io);
        if io.config_changed {
            state.generation = state.generation.wrapping_add(1);
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
        let result = result.and(self.settle(&mut state.queues));
        if let Err(failure) = result {
            state.fail(failure);
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    /// After a call of the device: interrupts the driver if it wants that, and leaves what it has offered
    /// meanwhile to the next round.
    fn settle(&self, queues: &mut [Queue]) -> Result<(), DeviceError> {
        let mut interrupt = false;
        for (queue, event) in queues.iter_mut().zip(&self.queue_events) {
            let settled = queue.settle(&self.mem)?;
            interrupt |= settled.interrupt;
            if settled.again {
                signal(event);
            }
        }
        if interrupt {
            self.raise(VIRTIO_MMIO_INT_VRING);
        }
        Ok(())
    }

    fn raise(&self, reason: u32) {
        self.interrupt.fetch_or(reason, Ordering::SeqCst);
        signal(&self.irq);
    }

    fn read_register(&self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.kind,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.load(Ordering::SeqCst),
            // A region of this length does not exist.
            VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH => u32::MAX,
            VIRTIO_MMIO_SHM_BASE_LOW | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => self.lock().read_register(register),
        }
    }

    fn write_register(&self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                let index = usize::try_from(value).ok();
                if let Some(event) = index.and_then(|index| self.queue_events.get(index)) {
                    signal(event);
                }
            }
            VIRTIO_MMIO_INTERRUPT_ACK => {
                self.interrupt.fetch_and(!value, Ordering::SeqCst);
            }
            VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.lock().write_register(register, value, &self.mem),
        }
    }

    /// Zero resets; other than that, each bit is granted if it is its turn (section 3.1.1), and none
    /// goes away.
    fn write_status(&self, value: u32) {
        let mut state = self.lock();
        if value == 0 {
            if state.status != 0 {
                state.reset();
                self.interrupt.store(0, Ordering::SeqCst);
                signal(&self.changed);
            }
            return;
        }
        state.status |= value & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
        state.advance(value, VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER);
        if state.features_are_good() {
            state.advance(value, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_FEATURES_OK);
        }
        if state.advance(value, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK) {
            let features = state.driver_features;
            self.call(&mut state, |device, io| device.activate(features, io));
            // A driver may have offered before it was ready, and even notified: that was ignored.
            self.queue_events.iter().for_each(signal);
        }
        signal(&self.changed);
    }
}

impl State {
    fn is_running(&self) -> bool {
        self.status & (VIRTIO_CONFIG_S_DRIVER_OK | DEAD) == VIRTIO_CONFIG_S_DRIVER_OK
    }

    /// Whether the driver is past `done`, not yet at `next`, and nothing is broken.
    fn is_between(&self, done: u32, next: u32) -> bool {
        self.status & (done | next | DEAD) == done
    }

    /// Sets the bit `next` of the status if `value` has it and its turn has come.
    fn advance(&mut self, value: u32, done: u32, next: u32) -> bool {
        let granted = value & next != 0 && self.is_between(done, next);
        self.status |= if granted { next } else { 0 };
        granted
    }

    fn features(&self) -> u64 {
        self.device.features() | FEATURES
    }

    fn features_are_good(&self) -> bool {
        self.driver_features & !self.features() == 0 && self.driver_features & VERSION_1 != 0
    }

    fn fail(&mut self, failure: DeviceError) {
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        self.failure = Some(failure);
    }

    fn reset(&mut self) {
        self.device.reset();
        for queue in &mut self.queues {
            queue.ring.reset();
            queue.used = false;
        }
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.failure = None;
    }

    fn queue(&mut self) -> Option<&mut Queue> {
        let index = usize::try_from(self.queue_select).ok()?;
        self.queues.get_mut(index)
    }

    fn read_register(&mut self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES => word(self.features(), self.device_features_select),
            VIRTIO_MMIO_QUEUE_NUM_MAX => {
                self.queue().map_or(0, |queue| u32::from(queue.ring.max_size()))
            }
            VIRTIO_MMIO_QUEUE_READY => {
                self.queue().map_or(0, |queue| u32::from(queue.ring.ready()))
            }
            VIRTIO_MMIO_STATUS => self.status,
            VIRTIO_MMIO_CONFIG_GENERATION => self.generation,
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u32, value: u32, mem: &GuestMemory) {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_features(value),
            VIRTIO_MMIO_QUEUE_NUM => self.write_size(value),
            VIRTIO_MMIO_QUEUE_READY => self.write_ready(value, mem),
            VIRTIO_MMIO_QUEUE_DESC_LOW => self.write_address(Ring::Descriptors, Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => self.write_address(Ring::Descriptors, None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => self.write_address(Ring::Available, Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => self.write_address(Ring::Available, None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => self.write_address(Ring::Used, Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => self.write_address(Ring::Used, None, Some(value)),
            _ => {}
        }
    }

    /// Features are the driver's to choose until they are agreed on.
    fn write_features(&mut self, value: u32) {
        if !self.is_between(VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        let (shift, mask) = match self.driver_features_select {
            0 => (0, u64::from(u32::MAX)),
            1 => (32, u64::from(u32::MAX) << 32),
            // There are no features so far out; a driver that wants one will find it not granted.
            _ => return,
        };
        self.driver_features = self.driver_features & !mask | u64::from(value) << shift;
    }

    /// The selected queue, if it is the driver's to set up: between the agreement on features and
    /// being ready, and not while the queue itself is.
    fn idle_queue(&mut self) -> Option<&mut Queue> {
        if !self.is_between(VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK) {
            return None;
        }
        self.queue().filter(|queue| !queue.ring.ready())
    }

    fn write_size(&mut self, value: u32) {
        if let (Some(queue), Ok(size)) = (self.idle_queue(), u16::try_from(value)) {
            // A size that is none leaves the old one.
            queue.ring.set_size(size);
        }
    }

    fn write_address(&mut self, ring: Ring, low: Option<u32>, high: Option<u32>) {
        if let Some(Queue { ring: queue, .. }) = self.idle_queue() {
            // An address that is not aligned leaves the old one.
            match ring {
                Ring::Descriptors => queue.set_desc_table_address(low, high),
                Ring::Available => queue.set_avail_ring_address(low, high),
                Ring::Used => queue.set_used_ring_address(low, high),
            }
        }
    }

    /// A queue whose rings are not in guest memory does not become ready. A driver may stop a queue at
    /// any time, but start it only once.
    fn write_ready(&mut self, value: u32, mem: &GuestMemory) {
        if value & 1 == 0 {
            if let Some(queue) = self.queue() {
                queue.ring.set_ready(false);
            }
            return;
        }
        let event_idx = self.driver_features & EVENT_IDX != 0;
        if let Some(Queue { ring, .. }) = self.idle_queue() {
            ring.set_event_idx(event_idx);
            ring.set_ready(true);
            // The queue takes address 0 for a ring that was never set.
            if ring.avail_ring() == 0 || !ring.is_valid(mem) {
                ring.set_ready(false);
            }
        }
    }
}

impl BusDevice for Transport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match register(offset) {
            Register::Config(offset) => self.lock().device.read_config(offset, data),
            Register::At(register) if data.len() == WIDTH => {
                data.copy_from_slice(&self.read_register(register).to_le_bytes());
            }
            Register::At(_) => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (register(offset), <[u8; WIDTH]>::try_from(data)) {
            (Register::Config(offset), _) => {
                let mut state = self.lock();
                if state.is_between(VIRTIO_CONFIG_S_DRIVER, 0) {
                    state.device.write_config(offset, data);
                }
            }
            (Register::At(register), Ok(value)) => {
                self.write_register(register, u32::from_le_bytes(value));
            }
            (Register::At(_), Err(_)) => {}
        }
    }
}

/// What an offset stands for.
enum Register {
    At(u32),
    /// An offset into the configuration space.
    Config(u64),
}

fn register(offset: u64) -> Register {
    match offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
        Some(offset) => Register::Config(offset),
        // Below the configuration space, and so in range. No register has an odd number.
        None => Register::At(u32::try_from(offset).unwrap_or(u32::MAX)),
    }
}

/// The 32 bits of `features` that `select` names.
fn word(features: u64, select: u32) -> u32 {
    let [low, high] = [features as u32, (features >> 32) as u32];
    match select {
        0 => low,
        1 => high,
        _ => 0,
    }
}

/// A full counter is as good as one more.
fn signal(event: &EventFd) {
    let _ = event.write(1);
}
