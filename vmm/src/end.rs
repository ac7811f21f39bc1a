//! How a machine ends: whoever sees it first (a processor, a device) says so here, and the control
//! thread hears of it.

use rustix::event::{EventfdFlags, eventfd};
use sbx_core::Exit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

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
    /// The host failed the machine: how, as a sentence.
    Host(String),
    /// The console's output came to an end, and that ends the workload so.
    Output(Exit),
}

/// The end of one machine. The first cause counts.
#[derive(Debug)]
pub struct End {
    cause: OnceLock<Cause>,
    event: OwnedFd,
}

impl End {
    /// An end that has not come.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { cause: OnceLock::new(), event })
    }

    /// Tells the end.
    pub fn set(&self, cause: Cause) {
        if self.cause.set(cause).is_ok() {
            // A full counter is readable too.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// The end, if it has come.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.get()
    }

    /// Readable once the end has come.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
