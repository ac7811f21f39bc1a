//! The rate of the host's time stamp counter, which an emulated guest's is: QEMU gives it the host's count.
//! A kernel would find the rate out by a timer that this machine has not.
#![allow(unsafe_code, reason = "the counter is read by an instruction")]

use core::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

/// How long it is measured. The two clocks are read within a tenth of a microsecond of one another, so that
/// the result is right to 50 millionths.
const LONG: Duration = Duration::from_millis(2);
/// How often they are read, to find two readings that nothing came between.
const READINGS: usize = 8;

/// Measures the rate, in kHz. `None` if the counter does not count.
pub(super) fn khz() -> Option<u64> {
    let (begin, first) = reading();
    while begin.elapsed() < LONG {
        std::hint::spin_loop();
    }
    let (end, last) = reading();
    let nanoseconds = end.duration_since(begin).as_nanos();
    let ticks = u128::from(last.checked_sub(first)?);
    u64::try_from((ticks * 1_000_000).checked_div(nanoseconds)?).ok().filter(|khz| *khz > 0)
}

/// The time by both clocks.
fn reading() -> (Instant, u64) {
    let read = || {
        let before = Instant::now();
        // SAFETY: every x86-64 processor has the instruction, and it does nothing but read.
        let ticks = unsafe { _rdtsc() };
        (before.elapsed(), before, ticks)
    };
    let closest = (0..READINGS).map(|_| read()).min_by_key(|(apart, ..)| *apart);
    let (apart, before, ticks) = closest.unwrap_or_else(read);
    (before + apart / 2, ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_a_processor() {
        let khz = khz().unwrap();
        assert!((100_000..20_000_000).contains(&khz), "{khz}");
    }
}
