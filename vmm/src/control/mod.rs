//! The thread that a machine is controlled from: it stands between the workload, the caller's streams,
//! and the parent's signals, until one of them brings the end.
//!
//! A machine with sbx's init in it is spoken to through the agent ([`session`]); one with the user's own
//! has nothing but its console ([`console`]). What both share is here: how an end of the machine is told.

pub(crate) mod console;
pub(crate) mod exec;
mod output;
pub(crate) mod session;

pub(crate) use output::Output;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sbx_core::{Ending, Exit};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::console_log::ConsoleLog;
use crate::end::{Cause, End};

/// The console's last lines, which its device writes and an ending tells.
pub(crate) type Log = Arc<Mutex<ConsoleLog>>;

/// What a kernel wrote last, one note a line.
fn last_lines(log: &Log) -> Vec<String> {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.lines().into_iter().map(|line| format!("console: {line}")).collect()
}

/// An ending that nobody understands without the console.
fn with_console(exit: Exit, log: &Log) -> Ending {
    Ending { exit, notes: last_lines(log) }
}

/// What the machine's own end means; `reset` is what a reset or power-off without a panic does.
fn ending_of(cause: &Cause, log: &Log, reset: impl FnOnce() -> Ending) -> Ending {
    let panic = log.lock().unwrap_or_else(PoisonError::into_inner).panic();
    match (cause, panic) {
        (Cause::Reset | Cause::PowerOff | Cause::TripleFault, Some(reason)) => {
            with_console(Exit::Trap(format!("the guest's kernel panicked: {reason}")), log)
        }
        (Cause::Reset | Cause::PowerOff, None) => reset(),
        (Cause::TripleFault, None) => {
            let what = "the guest's processor met a fault that its kernel could not handle (a triple fault)";
            with_console(Exit::Trap(what.into()), log)
        }
        (Cause::Kvm(what), _) => {
            with_console(Exit::Failed(format!("KVM could not go on: {what}")), log)
        }
        (Cause::Host(what), _) => Exit::Failed(what.clone()).into(),
        (Cause::Output(exit), _) => exit.clone().into(),
    }
}

/// Waits until one of the files is ready, or `until` has come. A wait that is cut short does no harm.
fn wait(files: &mut [PollFd<'_>], until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // Rounded up, lest the last fraction be spent turning in circles.
    let left = left.map(|left| left + Duration::from_millis(1));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let _ = poll(files, left.as_ref());
}

/// Whether `fd` is ready now, or has failed, which using it tells.
fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut files = [PollFd::from_borrowed_fd(fd, flags)];
    !matches!(poll(&mut files, Some(&now)), Ok(0))
}

/// Whether the machine has ended.
fn ended(end: &End) -> Option<Cause> {
    end.cause().cloned()
}
