//! Signals as a file, for a sandbox whose process has to do something about them.
//!
//! A process that makes [`Signals`] is no longer ended by them, nor are the threads that it starts
//! later. Who sent one is told, since a terminal sends its signals to the sandbox's process as well as
//! to sbx, which passes them on: only one of the two is to count.
#![allow(unsafe_code, reason = "signalfd has no safe interface")]

use sbx_core::{Error, Result};
use std::fs::File;
use std::io::{Error as IoError, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::process::FORWARDED;

/// The window's size has changed.
pub const WINDOW: i32 = libc::SIGWINCH;
/// The processor time is used up ([`crate::process::limit_cpu_time`]).
pub const CPU_TIME: i32 = libc::SIGPROF;
/// The sandbox is about to be killed, and may say what it knows.
pub const LAST_WORDS: i32 = libc::SIGPWR;
/// The sandbox is to stop whatever else runs for it, by [`RESUME`] to go on. The first two of the signals
/// that mean nothing to the kernel and to C libraries.
pub const PAUSE: i32 = 35;
/// See [`PAUSE`].
pub const RESUME: i32 = 36;

/// The number of a signal that is named by its number, or as in `TERM` or `SIGTERM`.
pub fn number(text: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 24] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("CHLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("URG", libc::SIGURG),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
    ];
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.into_iter().find_map(|(known, number)| (known == name).then_some(number))
}

/// Whether a machine's process passes this signal on to the workload, or is itself all that it is for. Any
/// other means something to that process, or ends it.
pub fn reaches_a_machine(number: i32) -> bool {
    number == libc::SIGKILL || FORWARDED.contains(&number)
}

/// The signals that a sandbox's process answers to.
#[derive(Debug)]
pub struct Signals {
    file: File,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// The process that sent it; 0 is the kernel.
    pub sender: u32,
}

impl Signals {
    /// Takes over the signals that sbx passes on, and those named above.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn take_over() -> Result<Self> {
        let own = [WINDOW, CPU_TIME, LAST_WORDS, PAUSE, RESUME, libc::SIGXCPU];
        Self::take(FORWARDED.into_iter().chain(own))
    }

    /// Takes over only the signals that sbx passes on.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn of_callers() -> Result<Self> {
        Self::take(FORWARDED.into_iter())
    }

    /// Takes over those, and the news that the window's size has changed.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn of_attached() -> Result<Self> {
        Self::take(FORWARDED.into_iter().chain([WINDOW]))
    }

    fn take(signals: impl Iterator<Item = i32>) -> Result<Self> {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the pointer is valid for writing a set, which the call initializes.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialized above.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: the set is initialized and the signal has a valid number.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        // SAFETY: the set is initialized; null asks for no old mask.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        // A stream whose reader is gone is to be an error like others: there are streams here that are
        // not the workload's.
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        // SAFETY: the set is initialized; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::host("watch for signals", IoError::last_os_error()));
        }
        // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { file: fd.into() })
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<Received> {
        /// signalfd(2): `ssi_signo` comes first, `ssi_pid` is the fourth word, of 128 bytes.
        const LEN: usize = 128;
        let mut bytes = [0; LEN];
        let read = (&self.file).read(&mut bytes).ok()?;
        let word = |i: usize| {
            let bytes = bytes[i * 4..][..4].try_into().unwrap_or_default();
            u32::from_ne_bytes(bytes)
        };
        (read == LEN).then(|| Received { signal: word(0).cast_signed(), sender: word(3) })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
