mod garbage;

use super::*;
use crate::memory;
use std::io::{Read, Write};
use std::sync::atomic::AtomicUsize;
use vm_memory::{Bytes, GuestAddress};

const MEMORY: u64 = 4 << 20;
const RING: u16 = 8;
const ALL_SET: u32 = 0xf;
const NOTHING: u64 = 0;

/// Copies what a chain brings into the room it leaves. Its last queue is for the host's file.
#[derive(Clone, Default)]
struct Echo {
    served: Arc<AtomicUsize>,
    resets: Arc<AtomicUsize>,
    activated: Arc<AtomicUsize>,
    config: [u8; 6],
}

/// The token of the host's file.
const TOKEN: u32 = 7;
const OWN_FEATURE: u64 = 1 << 3;

impl VirtioDevice for Echo {
    fn kind(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        OWN_FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RING, 16, 256]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::super::read_config_space(&self.config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Ok(offset) = usize::try_from(offset) else { return };
        for (to, from) in self.config.iter_mut().skip(offset).zip(data) {
            *to = *from;
        }
    }

    fn activate(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.activated.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn reset(&mut self) {
        self.config = [0; 6];
        self.resets.fetch_add(1, Ordering::SeqCst);
    }

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        while let Some(chain) = io.queues[index].pop(io.mem)? {
            self.served.fetch_add(1, Ordering::SeqCst);
            let mut bytes = Vec::new();
            chain.reader()?.take(4096).read_to_end(&mut bytes)?;
            if bytes.starts_with(b"fail") {
                return Err(DeviceError::Protocol("told to fail"));
            }
            let mut writer = chain.writer()?;
            let len = bytes.len().min(writer.available_bytes());
            writer.write_all(&bytes[..len])?;
            io.queues[index].push(io.mem, chain.head(), u32::try_from(len).unwrap())?;
        }
        Ok(())
    }

    fn host_files(&self) -> Vec<HostFile> {
        vec![HostFile { fd: -1, token: TOKEN, read: true, write: false }]
    }

    fn process_host(&mut self, token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        assert_eq!(token, TOKEN);
        io.config_changed = true;
        self.process_queue(2, io)
    }
}

/// A driver that knows the registers.
struct Driver {
    transport: Arc<Transport>,
    mem: GuestMemory,
    irq: EventFd,
    device: Echo,
}

impl Driver {
    fn new() -> Self {
        let mem = memory::allocate(&[(0, MEMORY)]).unwrap();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let device = Echo::default();
        let handle = irq.try_clone().unwrap();
        let transport = Transport::new(Box::new(device.clone()), mem.clone(), handle).unwrap();
        Self { transport, mem, irq, device }
    }

    /// One that has come as far as `DRIVER_OK`, all queues set up.
    fn ready() -> Self {
        let driver = Self::new();
        driver.negotiate(FEATURES);
        (0..3).for_each(|index| driver.set_up(index));
        driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), ALL_SET);
        driver
    }

    fn read(&self, register: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(u64::from(register), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u32, value: u32) {
        self.transport.write(u64::from(register), &value.to_le_bytes());
    }

    fn negotiate(&self, features: u64) {
        self.write(VIRTIO_MMIO_STATUS, 0);
        self.write(VIRTIO_MMIO_STATUS, 1);
        self.write(VIRTIO_MMIO_STATUS, 3);
        for select in 0..2 {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, word(features, select));
        }
        self.write(VIRTIO_MMIO_STATUS, 0xb);
    }

    fn set_up(&self, index: u32) {
        let base = ring(index);
        self.write(VIRTIO_MMIO_QUEUE_SEL, index);
        self.write(VIRTIO_MMIO_QUEUE_NUM, u32::from(RING));
        self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, base);
        self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, base + 0x100);
        self.write(VIRTIO_MMIO_QUEUE_USED_LOW, base + 0x200);
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(self.read(VIRTIO_MMIO_QUEUE_READY), 1);
    }

    fn poke<T: vm_memory::ByteValued>(&self, address: u32, value: T) {
        self.mem.write_obj(value, GuestAddress(u64::from(address))).unwrap();
    }

    fn peek<T: vm_memory::ByteValued>(&self, address: u32) -> T {
        self.mem.read_obj(GuestAddress(u64::from(address))).unwrap()
    }

    fn descriptor(&self, at: u32, address: u32, len: u32, flags: u16, next: u16) {
        self.poke(at, u64::from(address));
        self.poke(at + 8, len);
        self.poke(at + 12, flags);
        self.poke(at + 14, next);
    }

    /// Offers the chain that begins with descriptor `head`.
    fn offer(&self, index: u32, head: u16) {
        let available = ring(index) + 0x100;
        let at: u16 = self.peek(available + 2);
        self.poke(available + 4 + u32::from(at % RING) * 2, head);
        self.poke(available + 2, at.wrapping_add(1));
    }

    /// Offers `bytes` and room for as many, in descriptors 0 and 1.
    fn offer_echo(&self, index: u32, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap();
        self.mem.write_slice(bytes, GuestAddress(0x8000)).unwrap();
        self.descriptor(ring(index), 0x8000, len, 1, 1);
        self.descriptor(ring(index) + 16, 0x9000, len, 2, 0);
        self.offer(index, 0);
    }

    fn used_index(&self, index: u32) -> u16 {
        self.peek(ring(index) + 0x202)
    }

    /// Has the driver be interrupted once the used index passes `at`.
    fn interrupt_at(&self, index: u32, at: u16) {
        self.poke(ring(index) + 0x104 + u32::from(RING) * 2, at);
    }

    /// What the interrupts since the last call were for.
    fn interrupts(&self) -> u32 {
        let status = self.read(VIRTIO_MMIO_INTERRUPT_STATUS);
        assert_eq!(self.irq.read().is_ok(), status != 0, "reason {status}");
        self.write(VIRTIO_MMIO_INTERRUPT_ACK, status);
        assert_eq!(self.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        status
    }
}

fn ring(index: u32) -> u32 {
    0x1000 + index * 0x1000
}

#[test]
fn the_device_says_what_it_is() {
    let driver = Driver::new();
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(driver.read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_ID), 42);
    let features = [0, 1, 2, u32::MAX].map(|select| {
        driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        driver.read(VIRTIO_MMIO_DEVICE_FEATURES)
    });
    assert_eq!(features, [1 << 3 | 1 << 28 | 1 << 29, 1, 0, 0]);
    let sizes = [0, 1, 2, 3, u32::MAX].map(|queue| {
        driver.write(VIRTIO_MMIO_QUEUE_SEL, queue);
        driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX)
    });
    assert_eq!(sizes, [8, 16, 256, 0, 0]);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_HIGH), u32::MAX);
}

#[test]
fn features_that_are_not_offered_are_not_agreed_on() {
    let driver = Driver::new();
    for bad in [NOTHING, OWN_FEATURE, VERSION_1 | 1 << 4, VERSION_1 | 1 << 63] {
        driver.negotiate(bad);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 3, "{bad:#x}");
        driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 3, "{bad:#x}");
    }
    for good in [VERSION_1, VERSION_1 | OWN_FEATURE] {
        driver.negotiate(good);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0xb, "{good:#x}");
    }
    // Agreed on, they stay.
    driver.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.write(VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), ALL_SET);
    assert_eq!(driver.device.activated.load(Ordering::SeqCst), 1);
    assert!(driver.transport.failure().is_none());
}

#[test]
fn steps_are_not_skipped() {
    let driver = Driver::new();
    for (write, read) in [(4, 0), (2, 0), (8, 0), (1, 1), (4, 1), (8, 1), (3, 3), (64, 3), (7, 3)] {
        driver.write(VIRTIO_MMIO_STATUS, write);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), read, "{write}");
    }
    driver.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
    assert_eq!(driver.device.activated.load(Ordering::SeqCst), 0);
}

#[test]
fn a_queue_is_set_up_only_when_it_may_be() {
    let driver = Driver::new();
    let try_ready = |size: u32, descriptors: u32, available: u32, used: u32| {
        driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
        driver.write(VIRTIO_MMIO_QUEUE_NUM, size);
        driver.write(VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors);
        driver.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, available);
        driver.write(VIRTIO_MMIO_QUEUE_USED_LOW, used);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        driver.read(VIRTIO_MMIO_QUEUE_READY)
    };
    assert_eq!(try_ready(8, 0x1000, 0x2000, 0x3000), 0, "before features are agreed on");
    driver.negotiate(VERSION_1);
    let end = u32::try_from(MEMORY).unwrap();
    assert_eq!(try_ready(8, 0x1000, 0, 0x3000), 0, "no ring");
    assert_eq!(try_ready(8, 0xffff_fff0, 0x2000, 0x3000), 0, "outside");
    assert_eq!(try_ready(8, end - 16, 0x2000, 0x3000), 0, "half outside");
    assert_eq!(try_ready(8, 0x1000, end - 16, 0x3000), 0, "half outside");
    assert_eq!(try_ready(8, 0x1000, 0x2000, end - 16), 0, "half outside");
    assert_eq!(try_ready(8, 0x1000, 0x2000, 0x3000), 1);
    // What is written now is ignored: the queue stays where it was and works.
    assert_eq!(try_ready(2, 0xffff_fff0, 0, 0xffff_fff0), 1);
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    driver.poke(0x2002, 1u16);
    driver.transport.process_queue(0);
    assert_eq!(driver.peek::<u16>(0x3002), 1);
    // A queue that was stopped is not looked at, nor started a second time.
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.poke(0x2002, 2u16);
    driver.transport.process_queue(0);
    assert_eq!(driver.peek::<u16>(0x3002), 1);
    assert_eq!(try_ready(8, 0x1000, 0x2000, 0x3000), 0);
    assert!(driver.transport.failure().is_none());
}

#[test]
fn a_buffer_goes_through_an_indirect_table() {
    let driver = Driver::ready();
    driver.mem.write_slice(b"hello", GuestAddress(0x8000)).unwrap();
    driver.descriptor(0x7000, 0x8000, 3, 1, 1);
    driver.descriptor(0x7010, 0x8003, 2, 1, 2);
    driver.descriptor(0x7020, 0x9000, 100, 2, 0);
    driver.descriptor(ring(1) + 5 * 16, 0x7000, 48, 4, 0);
    driver.offer(1, 5);
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert!(driver.transport.queue_events()[1].read().is_ok());
    assert_eq!(driver.used_index(1), 0);
    driver.transport.process_queue(1);
    assert_eq!(driver.used_index(1), 1);
    assert_eq!(driver.peek::<[u32; 2]>(ring(1) + 0x204), [5, 5]);
    assert_eq!(driver.peek::<[u8; 6]>(0x9000), *b"hello\0");
    assert_eq!(driver.interrupts(), VIRTIO_MMIO_INT_VRING);
}

#[test]
fn the_driver_is_interrupted_when_it_asked_for_it() {
    let driver = Driver::ready();
    driver.interrupt_at(0, 2);
    let mut seen = Vec::new();
    for _ in 0..4 {
        driver.offer_echo(0, b"x");
        driver.transport.process_queue(0);
        seen.push(driver.interrupts());
    }
    assert_eq!(seen, [0, 0, VIRTIO_MMIO_INT_VRING, 0]);
    // And the device asks to be notified of the next: the event index, behind the used ring.
    assert_eq!(driver.peek::<u16>(ring(0) + 0x204 + u32::from(RING) * 8), 4);
    // Nothing to do, nothing said.
    driver.transport.process_queue(0);
    assert_eq!(driver.interrupts(), 0);
}

#[test]
fn a_round_takes_one_ring_at_most_and_comes_again() {
    struct Refill(Echo, u16);
    impl VirtioDevice for Refill {
        fn kind(&self) -> u32 {
            1
        }
        fn queue_sizes(&self) -> &[u16] {
            &[RING]
        }
        fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
        fn reset(&mut self) {}
        /// As if the driver had refilled the ring the moment that a chain was taken.
        fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
            while let Some(chain) = io.queues[index].pop(io.mem)? {
                self.1 = self.1.wrapping_add(1);
                self.0.served.fetch_add(1, Ordering::SeqCst);
                io.queues[index].push(io.mem, chain.head(), 0)?;
                io.mem.write_obj(self.1.wrapping_add(1), GuestAddress(0x1102)).unwrap();
            }
            Ok(())
        }
    }
    let mut driver = Driver::new();
    let handle = driver.irq.try_clone().unwrap();
    let device = Box::new(Refill(driver.device.clone(), 0));
    driver.transport = Transport::new(device, driver.mem.clone(), handle).unwrap();
    driver.negotiate(FEATURES);
    driver.set_up(0);
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    let event = &driver.transport.queue_events()[0];
    driver.poke(ring(0) + 0x102, 1u16);
    for round in 1..=3 {
        assert!(event.read().is_ok(), "round {round}");
        driver.transport.process_queue(0);
        let served = driver.device.served.load(Ordering::SeqCst);
        assert_eq!(served, round * usize::from(RING));
    }
}

#[test]
fn nothing_is_served_before_the_driver_is_ready() {
    let driver = Driver::new();
    driver.negotiate(FEATURES);
    driver.set_up(0);
    driver.offer_echo(0, b"early");
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    driver.transport.process_queue(0);
    driver.transport.process_host(TOKEN);
    assert!(driver.transport.host_files().is_empty());
    assert_eq!((driver.used_index(0), driver.interrupts()), (0, 0));
    let event = &driver.transport.queue_events()[0];
    assert!(event.read().is_ok());
    // What it offered early is served once it is.
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    assert!(event.read().is_ok());
    assert!(driver.transport.changed().read().is_ok());
    assert_eq!(driver.transport.host_files().len(), 1);
    driver.transport.process_queue(0);
    assert_eq!(driver.used_index(0), 1);
    assert_eq!(driver.peek::<[u8; 5]>(0x9000), *b"early");
}

#[test]
fn a_reset_forgets_everything() {
    let driver = Driver::ready();
    driver.write(VIRTIO_MMIO_CONFIG, 0x0102_0304);
    driver.offer_echo(0, b"one");
    driver.transport.process_queue(0);
    driver.offer_echo(0, b"two");
    let _ = driver.transport.changed().read();
    driver.write(VIRTIO_MMIO_STATUS, 0);
    assert!(driver.transport.changed().read().is_ok());
    assert_eq!(driver.device.resets.load(Ordering::SeqCst), 1);
    driver.transport.process_queue(0);
    driver.transport.process_host(TOKEN);
    assert_eq!(driver.used_index(0), 1);
    for register in [
        VIRTIO_MMIO_STATUS,
        VIRTIO_MMIO_INTERRUPT_STATUS,
        VIRTIO_MMIO_QUEUE_READY,
        VIRTIO_MMIO_CONFIG,
    ] {
        assert_eq!(driver.read(register), 0, "{register:#x}");
    }
    // The rings begin anew.
    driver.mem.write_slice(&[0; 0x1000], GuestAddress(u64::from(ring(0)))).unwrap();
    driver.negotiate(FEATURES);
    driver.set_up(0);
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    driver.offer_echo(0, b"new");
    driver.transport.process_queue(0);
    assert_eq!(driver.used_index(0), 1);
    assert_eq!(driver.peek::<[u8; 3]>(0x9000), *b"new");
}

#[test]
fn a_failing_device_is_left_alone_until_reset() {
    let driver = Driver::ready();
    driver.offer_echo(0, b"fail");
    driver.transport.process_queue(0);
    assert_eq!(driver.interrupts(), VIRTIO_MMIO_INT_CONFIG);
    let failed = ALL_SET | VIRTIO_CONFIG_S_NEEDS_RESET;
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), failed);
    assert_eq!(driver.transport.failure().unwrap(), "a protocol error: told to fail");
    let served = driver.device.served.load(Ordering::SeqCst);
    driver.offer_echo(1, b"more");
    driver.transport.process_queue(1);
    driver.transport.process_host(TOKEN);
    assert!(driver.transport.host_files().is_empty());
    assert_eq!(driver.device.served.load(Ordering::SeqCst), served);
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), failed);
    driver.negotiate(FEATURES);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0xb);
    assert!(driver.transport.failure().is_none());
}

#[test]
fn a_ring_that_makes_no_sense_fails_the_device() {
    let driver = Driver::ready();
    driver.poke(ring(0) + 0x102, 0x8000u16);
    driver.transport.process_queue(0);
    assert!(driver.read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET != 0);
    assert!(driver.transport.failure().unwrap().starts_with("a broken queue"));
}

#[test]
fn a_change_of_the_configuration_is_announced() {
    let driver = Driver::ready();
    let generation = driver.read(VIRTIO_MMIO_CONFIG_GENERATION);
    driver.transport.process_host(TOKEN + 1);
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    driver.transport.process_host(TOKEN);
    assert_ne!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    assert_eq!(driver.interrupts(), VIRTIO_MMIO_INT_CONFIG);
}

#[test]
fn the_configuration_is_read_in_any_width_and_registers_in_one() {
    let driver = Driver::ready();
    driver.transport.write(0x100, &[1, 2, 3]);
    driver.transport.write(0x104, &[5, 6, 7, 8]);
    for (offset, expected) in
        [(0x100, &[1u8, 2, 3, 0, 5, 6, 0, 0][..]), (0x105, &[6, 0]), (0xfff, &[0])]
    {
        let mut data = vec![0xaa; expected.len()];
        driver.transport.read(offset, &mut data);
        assert_eq!(data, expected);
    }
    for len in [0, 1, 2, 3, 8] {
        let mut data = vec![0xaa; len];
        driver.transport.read(0, &mut data);
        assert_eq!(data, vec![0; len]);
        driver.transport.write(u64::from(VIRTIO_MMIO_STATUS), &vec![0; len]);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), ALL_SET);
    }
    // A word that only begins before the configuration is none.
    let mut data = [0xaa; 4];
    driver.transport.read(0xfe, &mut data);
    assert_eq!(data, [0; 4]);
}
