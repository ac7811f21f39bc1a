//! QEMU while it runs: what its consoles show, what it says on standard error, and its end.
//!
//! One thread of the machine's waits for all of that ([`Emulator::new`] makes it); the control thread holds
//! the [`Emulator`] itself, to end it with the machine.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use sbx_core::{Error, Result};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr};
use std::sync::Arc;

use crate::bus::BusDevice;
use crate::device::boot_timer::BootTimer;
use crate::end::{Cause, End};
use crate::machine::Thread;
use crate::seccomp::Role;

/// How much of what QEMU said last is kept.
const SAID_MAX: usize = 4096;
/// What it says, told to tell of resets (`-d cpu_reset`), where there was more than one.
const TRIPLE_FAULT: &[u8] = b"Triple fault";

/// A QEMU that runs.
pub(crate) struct Emulator {
    process: OwnedFd,
    id: Pid,
}

/// Our end of something that QEMU writes to.
pub(super) enum Voice {
    /// A console of the guest's.
    Console(UnixStream),
    /// The port by which init tells that it runs.
    Timer(UnixStream),
    /// QEMU's own standard error.
    Said(ChildStderr),
}

impl AsFd for Voice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Console(stream) | Self::Timer(stream) => stream.as_fd(),
            Self::Said(pipe) => pipe.as_fd(),
        }
    }
}

impl Voice {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Console(stream) | Self::Timer(stream) => stream.read(bytes),
            Self::Said(pipe) => pipe.read(bytes),
        }
    }
}

impl Emulator {
    /// Takes over the process, and makes the thread that watches it. `show` is given what the consoles
    /// show.
    pub(super) fn new(
        mut child: Child,
        mut voices: Vec<Voice>,
        show: impl FnMut(&[u8]) + Send + 'static,
        timer: Arc<BootTimer>,
    ) -> Result<(Self, Thread)> {
        let failed = |e: io::Error| Error::host("watch QEMU", e);
        voices.extend(child.stderr.take().map(Voice::Said));
        let id = Pid::from_child(&child);
        let process = pidfd_open(id, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
        let watched = process.try_clone().map_err(failed)?;
        let watch = Watch { process: watched, voices, show, timer, said: Said::default() };
        let work =
            Box::new(move |end: &End| {
                end.set(watch.run().unwrap_or_else(|e| {
                    Cause::Host(format!("QEMU cannot be watched any more: {e}"))
                }));
            });
        Ok((Self { process, id }, Thread { name: "emulator", role: Role::Emulator, work }))
    }

    /// The process.
    pub(crate) fn process(&self) -> Pid {
        self.id
    }

    /// Stops all its processors, and whatever else it does, or has it go on.
    pub(crate) fn pause(&self, paused: bool) {
        let _ = pidfd_send_signal(&self.process, if paused { Signal::STOP } else { Signal::CONT });
    }
}

impl Drop for Emulator {
    /// Nothing of it is left when this returns.
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        let mut gone = [PollFd::new(&self.process, PollFlags::IN)];
        let _ = poll(&mut gone, None);
        // The thread that watches it may have been first.
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
    }
}

/// What the thread waits for, and what it does with that.
struct Watch<F> {
    process: OwnedFd,
    voices: Vec<Voice>,
    show: F,
    timer: Arc<BootTimer>,
    said: Said,
}

impl<F: FnMut(&[u8])> Watch<F> {
    /// Hears what there is to hear until QEMU ends, and says how it did.
    fn run(mut self) -> io::Result<Cause> {
        loop {
            let mut files = vec![PollFd::new(&self.process, PollFlags::IN)];
            files.extend(self.voices.iter().map(|voice| PollFd::new(voice, PollFlags::IN)));
            match poll(&mut files, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let ready: Vec<_> = files.iter().map(|file| !file.revents().is_empty()).collect();
            let mut voices = std::mem::take(&mut self.voices);
            for (voice, _) in voices.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                self.hear(voice);
            }
            if ready[0] {
                // Nobody holds the other ends any more, so that there is an end to this.
                for voice in &mut voices {
                    while self.hear(voice) {}
                }
                return self.ended();
            }
            self.voices = voices;
        }
    }

    /// Takes a piece of what a voice says. False if it says no more.
    fn hear(&mut self, voice: &mut Voice) -> bool {
        let mut bytes = [0; 4096];
        let Ok(count @ 1..) = voice.read(&mut bytes) else { return false };
        let bytes = &bytes[..count];
        match voice {
            Voice::Console(_) => (self.show)(bytes),
            Voice::Timer(_) => self.timer.write(0, &bytes[..1]),
            Voice::Said(_) => self.said.add(bytes),
        }
        true
    }

    fn ended(&self) -> io::Result<Cause> {
        let id = WaitId::PidFd(self.process.as_fd());
        let status = waitid(id, WaitIdOptions::EXITED)?;
        let (code, signal) = status
            .map_or((None, None), |status| (status.exit_status(), status.terminating_signal()));
        Ok(match (code, signal) {
            (Some(0), _) if self.said.triple_fault => Cause::TripleFault,
            // Whether reset or switched off makes no difference to anybody here.
            (Some(0), _) => Cause::Reset,
            (_, Some(signal)) => Cause::Host(format!("QEMU was ended by signal {signal}")),
            _ => Cause::Host(format!("QEMU failed: {}", self.said.last())),
        })
    }
}

/// What QEMU said on standard error.
#[derive(Debug, Default)]
struct Said {
    last: Vec<u8>,
    triple_fault: bool,
}

impl Said {
    fn add(&mut self, bytes: &[u8]) {
        self.last.extend(bytes);
        self.triple_fault |= memchr::memmem::find(&self.last, TRIPLE_FAULT).is_some();
        let over = self.last.len().saturating_sub(SAID_MAX);
        self.last.drain(..over);
    }

    /// The last line that is QEMU's own sentence, without its name in front.
    fn last(&self) -> String {
        let text = String::from_utf8_lossy(&self.last);
        let sentence = text.lines().rev().find_map(|line| line.split_once(": "));
        let plain = |c: char| if c.is_control() { '?' } else { c };
        sentence.map_or("it does not say why", |(_, what)| what).chars().map(plain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_known_by_its_end() {
        let mut said = Said::default();
        said.add(&[b'x'; 9000]);
        said.add(b"\nqemu-system-x86_64: -device x: no such");
        said.add(b" device\nCPU Reset (CPU 0)\n");
        assert!(said.last.len() <= SAID_MAX);
        assert_eq!(said.last(), "-device x: no such device");
        assert!(!said.triple_fault);
        said.add(b"Triple ");
        said.add(b"fault\n");
        assert!(said.triple_fault);
        assert_eq!(Said::default().last(), "it does not say why");
    }
}
