//! A driver that writes garbage: whatever it does, the device neither panics nor hangs, and works after
//! a reset.

use super::*;

/// xorshift64*: the same sequence each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A value that is likely to mean something.
    fn value(&mut self) -> u32 {
        let next = self.next();
        match next >> 61 {
            0 => (next as u32) % 4,
            1 => 1 << (next % 32),
            2 => next as u32 % MEMORY as u32,
            3 => (next as u32 % MEMORY as u32) & !0xfff,
            4 => u32::MAX - next as u32 % 16,
            5 => ALL_SET,
            _ => next as u32,
        }
    }
}

/// Guest memory as a hostile driver fills it: rings and descriptors that point about anywhere.
fn scribble(driver: &Driver, random: &mut Random) {
    let index = u32::try_from(random.below(3)).unwrap();
    let slot = ring(index) + u32::try_from(random.below(u64::from(RING))).unwrap() * 16;
    let (address, len, bits) = (random.value(), random.value(), random.next());
    driver.descriptor(slot, address, len, (bits % 8) as u16, (bits >> 8) as u16 % 9);
    driver.offer(index, (bits >> 24) as u16 % 9);
    if bits >> 40 & 63 == 0 {
        driver.poke(ring(index) + 0x102, (bits >> 48) as u16);
    }
    let address = random.below(MEMORY - 8) & !7;
    driver.poke(u32::try_from(address).unwrap(), random.next());
}

#[test]
fn garbage_does_no_harm() {
    const OPERATIONS: u32 = 400_000;
    let driver = Driver::new();
    let mut random = Random(0x5eed);
    for _ in 0..OPERATIONS {
        let offset = match random.below(8) {
            0 => random.below(SIZE + 16),
            1 => random.below(0x110),
            _ => random.below(0x40) * 4,
        };
        match random.below(64) {
            0 => {
                driver.negotiate(FEATURES);
                let mut ready = driver.read(VIRTIO_MMIO_STATUS) == 0xb;
                ready &= random.below(4) != 0;
                if ready {
                    for index in 0..3 {
                        driver.set_up(index);
                        driver.poke(ring(index) + 0x102, 0u16);
                    }
                    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
                }
            }
            1..16 => scribble(&driver, &mut random),
            16..20 => driver.transport.process_queue(random.below(4) as usize),
            20 => driver.transport.process_host(random.below(9) as u32),
            21 => driver.transport.host_files().truncate(0),
            22..36 => {
                let mut data = vec![0; random.below(9) as usize];
                driver.transport.read(offset, &mut data);
            }
            36..40 => {
                let data = random.next().to_le_bytes();
                driver.transport.write(offset, &data[..random.below(9) as usize]);
            }
            _ => {
                let value = random.value();
                driver.transport.write(offset, &value.to_le_bytes());
            }
        }
    }
    // It was not all refused.
    assert!(driver.device.served.load(Ordering::SeqCst) > 1000);
    assert!(driver.device.activated.load(Ordering::SeqCst) > 1000);
    // And the device is as good as new.
    driver.mem.write_slice(&[0; 0x4000], GuestAddress(u64::from(ring(0)))).unwrap();
    driver.negotiate(FEATURES);
    driver.set_up(0);
    driver.write(VIRTIO_MMIO_STATUS, ALL_SET);
    driver.offer_echo(0, b"still here");
    driver.transport.process_queue(0);
    assert_eq!(driver.peek::<[u8; 10]>(0x9000), *b"still here");
}
