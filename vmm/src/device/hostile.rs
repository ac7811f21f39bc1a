//! What the tests of all devices share: a guest that means harm, with random chains in random queues, the
//! same on every run, which finds panics and loops that do not end; and waiting for a device's files.

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::virtio::VirtioDevice;
use crate::virtio::testing::{Driver, MEMORY};

/// Machines, and what each is offered. Their memory is never given back.
const MACHINES: u64 = 3;
const CHAINS: usize = 700;
/// So many chains, of six descriptors each, are fewer than a ring has.
const MOST_HELD: u32 = 10;

/// Small, repeatable and good enough to choose with (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Mostly in memory, at its edges, or far away.
    fn address(&mut self) -> u64 {
        match self.roll(8) {
            0 => u64::MAX - self.roll(4096),
            1 => MEMORY - self.roll(64),
            2 => self.roll(u64::MAX),
            _ => 0x10_0000 + self.roll(MEMORY - 0x20_0000),
        }
    }

    fn len(&mut self) -> u32 {
        let len = match self.roll(8) {
            0 => 0,
            1 => u64::from(u32::MAX) - self.roll(2),
            2 => 16 + self.roll(2),
            3 => self.roll(1 << 20),
            4 => self.roll(1 << 32),
            _ => self.roll(600),
        };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Of any magnitude.
    fn wide(&mut self) -> u64 {
        let bits = self.roll(64);
        self.roll(1 << bits)
    }

    /// Room, to read, indirect, or flags that do not exist.
    fn flags(&mut self) -> u16 {
        [0, 0, 2, 2, 2, 4, 6, 0xfff8][usize::try_from(self.roll(8)).unwrap()]
    }
}

/// Lets devices be used by such guests. A device may refuse with an error, upon which it is reset and set
/// up anew, as by the transport.
pub(super) fn torture<D: VirtioDevice>(make: impl FnMut() -> D) {
    torture_from(0, make);
}

/// As [`torture`], with numbers in the buffers that begin with `first`.
pub(super) fn torture_from<D: VirtioDevice>(first: u64, mut make: impl FnMut() -> D) {
    let mut dice = Dice(0x5eed);
    for _ in 0..MACHINES {
        let mut device = make();
        let mut driver = Driver::new(&mut device);
        // Chains of each queue that have not come back.
        let mut held = vec![0_u32; driver.queues.len()];
        for _ in 0..CHAINS {
            let index = usize::try_from(dice.roll(held.len() as u64)).unwrap();
            if held[index] < MOST_HELD {
                let mut descriptors = Vec::new();
                for _ in 0..=dice.roll(5) {
                    let address = dice.address();
                    // Numbers that could be a kind of request, a sector, or a page.
                    let words = [(); 16].map(|()| (first + dice.roll(16)) << (dice.roll(4) * 16));
                    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    let _ = driver.mem.write(&words, GuestAddress(address));
                    descriptors.push((address, dice.len(), dice.flags()));
                }
                driver.offer_raw(index, &descriptors);
                held[index] += 1;
            }
            let config = [0xff; 9];
            let len = usize::try_from(dice.roll(9)).unwrap();
            device.write_config(dice.wide(), &config[..len]);
            device.read_config(dice.wide(), &mut [0; 16]);
            let token = u32::try_from(dice.roll(4)).unwrap();
            let served = driver
                .with_io(|io| device.process_queue(index, io))
                .and_then(|()| driver.with_io(|io| device.process_host(token, io)));
            if served.is_err() {
                // The chain that was refused does not come back.
                held[index] = held[index].saturating_sub(1);
                device.reset();
                let features = dice.roll(u64::MAX) & device.features();
                let _ = driver.with_io(|io| device.activate(features, io));
            }
            for (index, held) in held.iter_mut().enumerate() {
                while driver.used(index).is_some() {
                    *held = held.saturating_sub(1);
                }
            }
        }
    }
}

/// Waits until one of the files that the device listens to is ready, and serves it.
pub(super) fn serve_host<D: VirtioDevice>(device: &mut D, driver: &mut Driver) {
    let epoll = Epoll::new().unwrap();
    for file in device.host_files() {
        let mut events = EventSet::empty();
        events.set(EventSet::IN, file.read);
        events.set(EventSet::OUT, file.write);
        let event = EpollEvent::new(events, u64::from(file.token));
        epoll.ctl(ControlOperation::Add, file.fd, event).unwrap();
    }
    let mut ready = [EpollEvent::default()];
    assert_eq!(epoll.wait(60_000, &mut ready).unwrap(), 1, "nothing comes from the host");
    let token = u32::try_from(ready[0].data()).unwrap();
    driver.with_io(|io| device.process_host(token, io)).unwrap();
}
