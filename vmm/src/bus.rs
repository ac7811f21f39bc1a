//! An address space of devices: who answers which addresses. Made once, before the guest runs, and never
//! changed, so that processors read it without a lock; what changes is behind each device's own.
//!
//! An access that nobody answers reads as all ones and writes nothing, as on a real bus. So does one
//! that runs past the end of a device's range: none of the devices here has registers there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A device that processors reach by address. It is called by any of them, at the same time.
pub trait BusDevice: Send + Sync {
    /// Fills `data` from `offset` within the device's range.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data` for `offset` within the device's range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// An address space.
#[derive(Default)]
pub struct Bus {
    /// By the range's start: its end and the device.
    devices: BTreeMap<u64, (u64, Arc<dyn BusDevice>)>,
}

impl Bus {
    /// Puts `device` at `range`; false if another is there already, or the range is empty.
    pub fn insert(&mut self, range: Range<u64>, device: Arc<dyn BusDevice>) -> bool {
        let below = self.devices.range(..range.end).next_back();
        if range.is_empty() || below.is_some_and(|(_, (end, _))| *end > range.start) {
            return false;
        }
        self.devices.insert(range.start, (range.end, device));
        true
    }

    /// A processor's read of `address`.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A processor's write to `address`.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    fn find(&self, address: u64, len: usize) -> Option<(&dyn BusDevice, u64)> {
        let (start, (end, device)) = self.devices.range(..=address).next_back()?;
        let last = address.checked_add(len as u64)?;
        (last <= *end).then(|| (&**device, address - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Seen {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }

        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    #[test]
    fn each_address_has_one_device() {
        let device = Arc::new(Seen::default());
        let mut bus = Bus::default();
        assert!(bus.insert(16..32, device.clone()));
        for taken in [16..17, 0..17, 31..40, 0..100] {
            assert!(!bus.insert(taken, device.clone()));
        }
        assert!(bus.insert(0..16, device.clone()));
        assert!(bus.insert(32..33, device));
    }

    #[test]
    fn nobody_answers_with_all_ones() {
        let device = Arc::new(Seen::default());
        let mut bus = Bus::default();
        assert!(bus.insert(16..32, device.clone()));
        let read = |address, len| {
            let mut data = vec![0; len];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(20, 2), [4, 4]);
        for (address, len) in [(15, 1), (32, 1), (31, 2), (u64::MAX, 1), (u64::MAX, 8)] {
            assert_eq!(read(address, len), vec![0xff; len]);
            bus.write(address, &vec![0; len]);
        }
        assert!(device.0.lock().unwrap().is_empty());
        bus.write(31, &[9]);
        assert_eq!(*device.0.lock().unwrap(), [(15, vec![9])]);
    }
}
