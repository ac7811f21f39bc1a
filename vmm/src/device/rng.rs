//! Entropy (virtio 1.2, 5.4): the host kernel's random bytes, as many as the guest has room for.
//!
//! It does NOT generate anything itself and keeps nothing: what one guest was given no other sees.

use std::io::Write;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::virtio::{DeviceError, Io, VirtioDevice};

/// The most bytes for one chain: the guest asks for the rest with another.
const MOST: usize = 4096;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Rng;

impl VirtioDevice for Rng {
    fn kind(&self) -> u32 {
        4
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn reset(&mut self) {}

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.get_mut(index) else { return Ok(()) };
        let mut bytes = [0; MOST];
        while let Some(chain) = queue.pop(io.mem)? {
            let mut room = chain.writer()?;
            let wanted = room.available_bytes().min(MOST);
            let got = random(&mut bytes[..wanted])?;
            room.write_all(&bytes[..got])?;
            let written = u32::try_from(got).unwrap_or(0);
            queue.push(io.mem, chain.head(), written)?;
        }
        Ok(())
    }
}

/// Fills from the host; a signal may cut it short.
fn random(bytes: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::hostile;
    use crate::virtio::testing::Driver;

    #[test]
    fn a_guest_gets_random_bytes() {
        let mut rng = Rng;
        let mut driver = Driver::new(&mut rng);
        let first = driver.offer(0, &[], &[32, 32])[0];
        let second = driver.offer(0, &[], &[32])[0];
        driver.with_io(|io| rng.process_queue(0, io)).unwrap();
        assert_eq!([driver.used(0), driver.used(0)], [Some(64), Some(32)]);
        let bytes = driver.bytes(first, 64);
        assert_ne!(bytes[..32], bytes[32..]);
        assert_ne!(bytes[..32], driver.bytes(second, 32));
    }

    #[test]
    fn a_chain_gets_no_more_than_the_bound_and_no_room_gets_nothing() {
        let mut rng = Rng;
        let mut driver = Driver::new(&mut rng);
        let room = driver.offer(0, &[], &[1 << 20])[0];
        driver.offer(0, &[b"to read"], &[]);
        driver.offer_raw(0, &[(u64::MAX, 0, 2)]);
        driver.with_io(|io| rng.process_queue(0, io)).unwrap();
        assert_eq!(
            [driver.used(0), driver.used(0), driver.used(0)],
            [Some(4096), Some(0), Some(0)]
        );
        assert_eq!(driver.bytes(room + 4096, 1 << 19), vec![0; 1 << 19]);
    }

    #[test]
    fn nonsense_is_survived() {
        hostile::torture(|| Rng);
        let mut rng = Rng;
        let mut driver = Driver::new(&mut rng);
        driver.offer_raw(0, &[(u64::MAX - 8, 4096, 2)]);
        assert!(driver.with_io(|io| rng.process_queue(0, io)).is_err());
    }
}
