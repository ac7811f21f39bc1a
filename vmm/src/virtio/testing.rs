//! A driver for tests: what a guest does with a device's queues, written plainly, with room to lie.

use vm_memory::{Bytes, GuestAddress};

use super::queue::Queue;
use super::{DeviceError, Io, VirtioDevice};
use crate::memory::{self, GuestMemory};
use virtio_queue::QueueT;

/// Bytes of memory that the driver has.
pub(crate) const MEMORY: u64 = 16 << 20;
/// Entries of each of its queues.
const SIZE: u16 = 64;
/// Where the rings begin, and what each queue takes there.
const RINGS: u64 = 0x1000;
const RING: u64 = 0x3000;
/// Where buffers begin.
const BUFFERS: u64 = 0x10_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A driver, with the device's queues.
pub(crate) struct Driver {
    pub(crate) mem: GuestMemory,
    pub(crate) queues: Vec<Queue>,
    /// By queue: descriptors handed out, entries seen in the used ring.
    places: Vec<(u16, u16)>,
    next_buffer: u64,
    pub(crate) config_changed: bool,
}

impl Driver {
    /// Sets up all queues of `device`, and activates it with every feature that it offers.
    pub(crate) fn new(device: &mut dyn VirtioDevice) -> Self {
        let mem = memory::allocate(&[(0, MEMORY)]).unwrap();
        let queues: Vec<_> = (0..device.queue_sizes().len()).map(queue).collect();
        let places = vec![(0, 0); queues.len()];
        let mut driver = Self { mem, queues, places, next_buffer: BUFFERS, config_changed: false };
        let features = device.features();
        driver.with_io(|io| device.activate(features, io)).unwrap();
        driver
    }

    /// Calls the device with the queues.
    pub(crate) fn with_io<T>(
        &mut self,
        call: impl FnOnce(&mut Io<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let mut io = Io { mem: &self.mem, queues: &mut self.queues, config_changed: false };
        let result = call(&mut io);
        self.config_changed |= io.config_changed;
        result
    }

    /// Offers bytes to read and lengths of room to write to; returns the addresses of the rooms.
    pub(crate) fn offer(&mut self, index: usize, read: &[&[u8]], write: &[u32]) -> Vec<u64> {
        let mut descriptors = Vec::new();
        for bytes in read {
            let address = self.buffer(bytes.len() as u64);
            self.mem.write_slice(bytes, GuestAddress(address)).unwrap();
            descriptors.push((address, u32::try_from(bytes.len()).unwrap(), 0));
        }
        let mut rooms = Vec::new();
        for len in write {
            let address = self.buffer(u64::from(*len));
            rooms.push(address);
            descriptors.push((address, *len, WRITE));
        }
        self.offer_raw(index, &descriptors);
        rooms
    }

    /// Offers descriptors as they are: address, length and flags, chained in this order.
    pub(crate) fn offer_raw(&mut self, index: usize, descriptors: &[(u64, u32, u16)]) {
        let base = RINGS + RING * index as u64;
        let first = self.places[index].0;
        let last = descriptors.len() - 1;
        for (at, (address, len, flags)) in descriptors.iter().enumerate() {
            let slot = u64::from(first.wrapping_add(u16::try_from(at).unwrap()) % SIZE);
            let next = (slot + 1) % u64::from(SIZE);
            let flags = if at == last { *flags } else { flags | NEXT };
            let entry = GuestAddress(base + slot * 16);
            self.mem.write_obj(*address, entry).unwrap();
            self.mem.write_obj(*len, GuestAddress(entry.0 + 8)).unwrap();
            self.mem.write_obj(flags, GuestAddress(entry.0 + 12)).unwrap();
            self.mem.write_obj(u16::try_from(next).unwrap(), GuestAddress(entry.0 + 14)).unwrap();
        }
        self.places[index].0 = first.wrapping_add(u16::try_from(descriptors.len()).unwrap());
        let avail = base + 0x1000;
        let at: u16 = self.mem.read_obj(GuestAddress(avail + 2)).unwrap();
        let slot = GuestAddress(avail + 4 + u64::from(at % SIZE) * 2);
        self.mem.write_obj(first % SIZE, slot).unwrap();
        self.mem.write_obj(at.wrapping_add(1), GuestAddress(avail + 2)).unwrap();
    }

    /// The next chain that the device gave back: how many bytes it says it wrote.
    pub(crate) fn used(&mut self, index: usize) -> Option<u32> {
        let used = RINGS + RING * index as u64 + 0x2000;
        let seen = self.places[index].1;
        let at: u16 = self.mem.read_obj(GuestAddress(used + 2)).unwrap();
        if at == seen {
            return None;
        }
        self.places[index].1 = seen.wrapping_add(1);
        let entry = used + 4 + u64::from(seen % SIZE) * 8;
        Some(self.mem.read_obj(GuestAddress(entry + 4)).unwrap())
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// A buffer of its own for `len` bytes.
    pub(crate) fn buffer(&mut self, len: u64) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += len.next_multiple_of(16);
        assert!(self.next_buffer <= MEMORY, "the test offers more than its memory");
        address
    }
}

fn queue(index: usize) -> Queue {
    let base = RINGS + RING * index as u64;
    let mut queue = Queue::new(SIZE).unwrap();
    queue.ring.set_size(SIZE);
    queue.ring.try_set_desc_table_address(GuestAddress(base)).unwrap();
    queue.ring.try_set_avail_ring_address(GuestAddress(base + 0x1000)).unwrap();
    queue.ring.try_set_used_ring_address(GuestAddress(base + 0x2000)).unwrap();
    queue.ring.set_ready(true);
    queue
}

mod tests {
    use super::*;
    use std::io::{Read, Write};

    struct Echo;

    impl VirtioDevice for Echo {
        fn kind(&self) -> u32 {
            0
        }

        fn queue_sizes(&self) -> &[u16] {
            &[64]
        }

        fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

        fn reset(&mut self) {}

        fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
            while let Some(chain) = io.queues[index].pop(io.mem)? {
                let mut bytes = Vec::new();
                chain.reader()?.take(4096).read_to_end(&mut bytes)?;
                chain.writer()?.write_all(&bytes)?;
                let len = u32::try_from(bytes.len()).unwrap();
                io.queues[index].push(io.mem, chain.head(), len)?;
            }
            Ok(())
        }
    }

    #[test]
    fn a_chain_goes_to_the_device_and_back() {
        let mut driver = Driver::new(&mut Echo);
        for round in 0..100 {
            let rooms = driver.offer(0, &[b"he", b"llo"], &[3, 9]);
            assert_eq!(driver.used(0), None);
            driver.with_io(|io| Echo.process_queue(0, io)).unwrap();
            assert_eq!(driver.used(0), Some(5), "round {round}");
            assert_eq!(driver.bytes(rooms[0], 3), b"hel");
            assert_eq!(driver.bytes(rooms[1], 3), b"lo\0");
        }
    }
}
