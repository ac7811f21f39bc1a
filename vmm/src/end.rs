//! How a machine ends: whoever sees it first (a processor, a device) says so here, and the control
//! thread hears of it.

use std::sync::OnceLock;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Why a machine runs no longer, as the machine saw it. What it means is for the control thread to say,
/// which knows what the guest's init and console told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The guest reset itself: by the keyboard controller, or ACPI. Also the end of a kernel's panic.
    Reset,
    /// The guest turned itself off (ACPI S5).
    PowerOff,
    /// The guest's processor could not even take an exception.
    TripleFault,
    /// KVM could not go on: why, in its terms.
    Kvm(String),
}

/// The end of one machine. The first cause counts.
#[derive(Debug)]
pub struct End {
    cause: OnceLock<Cause>,
    event: EventFd,
}

impl End {
    /// An end that has not come.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new() -> std::io::Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self { cause: OnceLock::new(), event })
    }

    /// Tells the end.
    pub fn set(&self, cause: Cause) {
        if self.cause.set(cause).is_ok() {
            // A full counter is readable too.
            let _ = self.event.write(1);
        }
    }

    /// The end, if it has come.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.get()
    }

    /// Readable once the end has come.
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}
