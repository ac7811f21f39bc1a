//! How long a start took, for those who ask: what sbx itself used before the guest ran, and when the
//! guest's init first ran (`device/boot_timer.rs`).

use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::device::boot_timer::BootTimer;

/// Processor time of this process.
pub(crate) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// A start that is under way.
pub(crate) struct Times {
    /// Processor time of the parent, from its `exec` until it forked.
    pub(crate) parent: Duration,
    /// When the machine's process began, which is what its timer counts from.
    pub(crate) begun: Instant,
    pub(crate) timer: Arc<BootTimer>,
}

/// A start whose guest is about to run.
pub(crate) struct Entered {
    cpu: Duration,
    after: Duration,
    timer: Arc<BootTimer>,
}

impl Times {
    /// The guest is about to be entered.
    pub(crate) fn entering(self) -> Entered {
        let cpu = self.parent + cpu_time();
        Entered { cpu, after: self.begun.elapsed(), timer: self.timer }
    }
}

impl Entered {
    /// The times as a sentence, once the guest's init has run.
    pub(crate) fn note(&self) -> Option<String> {
        let init = self.timer.taken()?;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        Some(format!(
            "times: sbx used {:.1} ms of processor time before the guest; the guest was entered after \
             {:.1} ms, and its init ran after {:.1} ms",
            ms(self.cpu),
            ms(self.after),
            ms(init)
        ))
    }
}
