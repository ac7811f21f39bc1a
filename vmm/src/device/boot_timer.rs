//! How long a start took: the guest's init writes to a port once it runs, and the time since
//! the start of the machine is told.
//!
//! Only the first write counts. The time is the host's monotonic clock when the processor left the
//! guest, not the guest's.

use sbx_proto::{BOOT_TIMER_PORT, BOOT_TIMER_VALUE};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::bus::BusDevice;

/// The port. On a PC it is the floppy controller's, which this machine has not and which a kernel does
/// not look for unless the firmware's tables name one.
pub const PORTS: Range<u64> = BOOT_TIMER_PORT as u64..BOOT_TIMER_PORT as u64 + 1;

/// What is told of the time.
pub type Report = Box<dyn Fn(Duration) + Send + Sync>;

/// The port.
pub struct BootTimer {
    start: Instant,
    report: Report,
    taken: OnceLock<Duration>,
}

impl BootTimer {
    /// A port that tells `report`, on the processor's thread, the time from `start` on.
    pub fn new(start: Instant, report: Report) -> Self {
        Self { start, report, taken: OnceLock::new() }
    }

    /// The time, once init has run.
    pub fn taken(&self) -> Option<Duration> {
        self.taken.get().copied()
    }
}

impl BusDevice for BootTimer {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let taken = self.start.elapsed();
        if data == [BOOT_TIMER_VALUE] && self.taken.set(taken).is_ok() {
            (self.report)(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_first_start_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let teller = told.clone();
        let start = Instant::now();
        let report = Box::new(move |time| teller.lock().unwrap().push(time));
        let timer = BootTimer::new(start, report);
        for nothing in [&[0][..], &[], &[BOOT_TIMER_VALUE, 0], &[BOOT_TIMER_VALUE; 4]] {
            timer.write(0, nothing);
        }
        assert_eq!(timer.taken(), None);
        timer.write(0, &[BOOT_TIMER_VALUE]);
        timer.write(0, &[BOOT_TIMER_VALUE]);
        let taken = timer.taken().unwrap();
        assert!(taken <= start.elapsed());
        assert_eq!(*told.lock().unwrap(), [taken]);
    }
}
