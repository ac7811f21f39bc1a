//! How fast a device may be used: token buckets, and the timer that wakes a device which was held back.
//!
//! A bucket fills steadily and holds at most a burst. A request that needs more than that goes ahead
//! when the bucket is full, and the debt is paid off before the next one goes, so that the average still
//! holds. Integers only: nothing is lost to rounding over a long life.
//!
//! It does NOT order or share among devices: each has buckets of its own.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A limit of one kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many a second, on average.
    pub per_second: NonZeroU64,
    /// How many at once after a rest; at least one is always let through.
    pub burst: u64,
}

/// How fast a device may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Of bytes moved.
    pub bytes: Option<Limit>,
    /// Of requests or packets.
    pub operations: Option<Limit>,
}

/// Parts of a token: what a limit of one a second gains in a nanosecond.
const PARTS: i128 = 1_000_000_000;

#[derive(Debug)]
struct Bucket {
    per_second: i128,
    full: i128,
    /// Parts of tokens; negative while a debt is paid off.
    level: i128,
    filled: Instant,
}

impl Bucket {
    fn new(limit: Limit, now: Instant) -> Self {
        let full = i128::from(limit.burst.max(1)) * PARTS;
        let per_second = i128::from(limit.per_second.get());
        Self { per_second, full, level: full, filled: now }
    }

    /// How long until there are so many tokens in it, or as many as it holds.
    fn wait(&mut self, tokens: u64, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        let gained = i128::try_from(elapsed).unwrap_or(i128::MAX).saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.full);
        self.filled = self.filled.max(now);
        let missing = self.full.min(i128::from(tokens) * PARTS) - self.level;
        if missing <= 0 {
            return None;
        }
        let nanos = (missing - 1) / self.per_second + 1;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * PARTS);
    }
}

/// What is left of a [`Rate`].
#[derive(Debug)]
pub struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Limiter {
    /// Full buckets.
    pub fn new(rate: Rate, now: Instant) -> Self {
        let Rate { bytes, operations } = rate;
        Self {
            bytes: bytes.map(|limit| Bucket::new(limit, now)),
            operations: operations.map(|limit| Bucket::new(limit, now)),
        }
    }

    /// Takes one operation of so many bytes, or nothing.
    ///
    /// # Errors
    /// How long to wait before it makes sense to ask again.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let waits = [(&mut self.bytes, bytes), (&mut self.operations, 1)]
            .map(|(bucket, tokens)| bucket.as_mut().and_then(|bucket| bucket.wait(tokens, now)));
        if let Some(wait) = waits.into_iter().flatten().max() {
            return Err(wait);
        }
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.take(tokens);
            }
        }
        Ok(())
    }
}

/// A limiter with a timer that becomes readable when a device that was held back may go on.
#[derive(Debug)]
pub struct Throttle {
    limiter: Limiter,
    timer: OwnedFd,
    waiting: bool,
}

impl Throttle {
    /// A throttle that holds nothing back yet.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new(rate: Rate) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { limiter: Limiter::new(rate, Instant::now()), timer, waiting: false })
    }

    /// Whether an operation of so many bytes may go ahead. If not, [`Self::waits_for`] is what to wait
    /// for before asking again.
    ///
    /// # Errors
    /// When the timer cannot be set.
    pub fn admits(&mut self, bytes: u64) -> io::Result<bool> {
        let wait = self.limiter.take(bytes, Instant::now()).err();
        self.waiting = wait.is_some();
        if let Some(wait) = wait {
            self.set(wait)?;
        }
        Ok(!self.waiting)
    }

    fn set(&self, wait: Duration) -> io::Result<()> {
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: wait };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// The timer, while something is held back.
    pub fn waits_for(&self) -> Option<RawFd> {
        self.waiting.then(|| self.timer.as_raw_fd())
    }

    /// Nobody waits any longer: the timer fired, or the device was reset. What was used stays used.
    pub fn forget(&mut self) {
        self.waiting = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_second: u64, burst: u64) -> Option<Limit> {
        Some(Limit { per_second: NonZeroU64::new(per_second).unwrap(), burst })
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate { operations: limit(10, 3), bytes: None }, start);
        for _ in 0..3 {
            assert_eq!(limiter.take(1 << 40, start), Ok(()));
        }
        let wait = limiter.take(0, start).unwrap_err();
        assert!(limiter.take(0, start + wait).is_ok());
        let mut passed = 0;
        let mut now = start + wait;
        let end = now + Duration::from_secs(100);
        while now < end {
            match limiter.take(0, now) {
                Ok(()) => passed += 1,
                Err(wait) => now += wait,
            }
        }
        assert!((999..=1001).contains(&passed), "{passed}");
    }

    #[test]
    fn more_than_a_burst_passes_and_is_paid_for() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate { bytes: limit(1000, 1), operations: None }, start);
        assert_eq!(limiter.take(5001, start), Ok(()));
        let wait = limiter.take(1, start).unwrap_err();
        assert_eq!(wait.as_secs(), 5);
        assert!(limiter.take(1, start + wait - Duration::from_millis(1)).is_err());
        assert!(limiter.take(1, start + wait).is_ok());
    }

    #[test]
    fn what_one_limit_refuses_costs_nothing_of_the_other() {
        let start = Instant::now();
        let rate = Rate { bytes: limit(10, 10), operations: limit(1, 1) };
        let mut limiter = Limiter::new(rate, start);
        assert!(limiter.take(1, start).is_ok());
        for _ in 0..100 {
            assert!(limiter.take(9, start).is_err());
        }
        assert!(limiter.take(9, start + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn extremes_and_a_clock_that_stands() {
        let start = Instant::now();
        for (per_second, burst) in [(1, 0), (u64::MAX, u64::MAX), (1, u64::MAX), (u64::MAX, 0)] {
            let rate = Rate { bytes: limit(per_second, burst), operations: None };
            let mut limiter = Limiter::new(rate, start);
            for _ in 0..4 {
                let _ = limiter.take(u64::MAX, start);
                let _ = limiter.take(u64::MAX, start + Duration::from_secs(1 << 40));
            }
        }
        let mut limiter = Limiter::new(Rate::default(), start);
        assert!((0..1000).all(|_| limiter.take(u64::MAX, start).is_ok()));
    }
}
