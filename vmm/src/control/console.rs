//! A machine with the user's own initial RAM disk: its console is the caller's standard input and output,
//! and its end is the workload's.

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use sbx_core::{Ending, Exit};
use sbx_host::signals::{self, Received, Signals};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::{Log, ended, ending_of, is_ready, wait};
use crate::device::console::ConsoleHandle;
use crate::device::serial::Serial;
use crate::end::{Cause, End};
use crate::machine::Processors;

/// How much of standard input is read at a time; a serial port has no large buffer.
const CHUNK: usize = 16;

/// The caller's standard output, as a console's device writes to it: on the processor's own thread, which
/// a slow reader so holds up.
pub(crate) struct Screen {
    end: Arc<End>,
    limit: Option<u64>,
    left: u64,
    log: Log,
}

impl Screen {
    /// A screen of `limit` bytes.
    pub(crate) fn new(end: Arc<End>, limit: Option<u64>, log: Log) -> Self {
        Self { end, limit, left: limit.unwrap_or(u64::MAX), log }
    }

    /// Shows `bytes`, as far as `--output` lets it.
    pub(crate) fn show(&mut self, bytes: &[u8]) {
        if let Ok(mut log) = self.log.lock() {
            log.write(bytes);
        }
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= allowed as u64;
        let mut rest = &bytes[..allowed];
        while !rest.is_empty() {
            match rustix::io::write(rustix::stdio::stdout(), rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let stdout = rustix::stdio::stdout();
                    wait(&mut [PollFd::from_borrowed_fd(stdout, PollFlags::OUT)], None);
                }
                Err(Errno::PIPE) => {
                    return self.end.set(Cause::Output(Exit::Signal(libc::SIGPIPE)));
                }
                Err(e) => {
                    let e = std::io::Error::from(e);
                    let what = format!("standard output cannot be written: {e}");
                    return self.end.set(Cause::Host(what));
                }
            }
        }
        if allowed < bytes.len() {
            self.end.set(Cause::Output(Exit::Output(self.limit.unwrap_or_default())));
        }
    }
}

/// Where the guest takes its input.
pub(crate) enum Keys {
    /// At its serial port.
    Serial(Arc<Serial>),
    /// At a console that reads from the other end of this.
    Stream(UnixStream),
}

impl Keys {
    /// The file to wait for, for the guest to have room.
    fn room(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Serial(serial) => (serial.room(), PollFlags::IN),
            Self::Stream(stream) => (stream.as_fd(), PollFlags::OUT),
        }
    }

    /// Gives the guest what it has room for; says how many bytes that was.
    fn give(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Serial(serial) => {
                serial.look_for_room();
                serial.input(bytes)
            }
            Self::Stream(stream) => match send(stream, bytes, SendFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => 0,
                // The device is gone, and with it who could want this.
                taken => taken.unwrap_or(bytes.len()),
            },
        }
    }
}

/// A console under way.
pub(crate) struct Console {
    pub(crate) end: Arc<End>,
    pub(crate) signals: Signals,
    /// The process whose signals count. A thread that is confined can no longer ask.
    pub(crate) parent: u32,
    pub(crate) log: Log,
    pub(crate) keys: Keys,
    pub(crate) terminal: Option<ConsoleHandle>,
    pub(crate) stdin: bool,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) processors: Processors,
}

impl Console {
    /// Carries keys to the guest until its end.
    pub(crate) fn run(mut self) -> Ending {
        if let Some(Err(e)) = self.cpu_time.map(|limit| self.processors.limit(limit)) {
            return Exit::Failed(e.to_string()).into();
        }
        self.tell_size();
        let mut waiting = Vec::new();
        loop {
            self.wait(!waiting.is_empty());
            if let Some(ending) = self.answer_signals() {
                return ending;
            }
            if let Some(cause) = ended(&self.end) {
                return ending_of(&cause, &self.log, || Exit::Code(0).into());
            }
            self.read_input(&mut waiting);
        }
    }

    fn wait(&self, waiting: bool) {
        let mut files = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.end.file(), PollFlags::IN),
        ];
        if waiting {
            let (fd, flags) = self.keys.room();
            files.push(PollFd::from_borrowed_fd(fd, flags));
        } else if self.stdin {
            files.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        wait(&mut files, None);
    }

    fn answer_signals(&self) -> Option<Ending> {
        while let Some(Received { signal, sender }) = self.signals.next() {
            match signal {
                signals::WINDOW => self.tell_size(),
                signals::CPU_TIME | libc::SIGXCPU => {
                    return Some(Exit::CpuTime(self.cpu_time.unwrap_or_default()).into());
                }
                _ if sender != self.parent => {}
                signals::PAUSE => self.processors.pause(true),
                signals::RESUME => self.processors.pause(false),
                signals::LAST_WORDS => return Some(Exit::Signal(9).into()),
                // There is nobody in the guest to tell.
                other => return Some(Exit::Signal(other).into()),
            }
        }
        None
    }

    fn read_input(&mut self, waiting: &mut Vec<u8>) {
        let stdin = rustix::stdio::stdin();
        if waiting.is_empty() && self.stdin && is_ready(stdin, PollFlags::IN) {
            let mut bytes = [0; CHUNK];
            match rustix::io::read(stdin, &mut bytes) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(0) | Err(_) => self.stdin = false,
                Ok(count) => waiting.extend(&bytes[..count]),
            }
        }
        if !waiting.is_empty() {
            let taken = self.keys.give(waiting);
            waiting.drain(..taken);
        }
    }

    /// Tells a virtio console the size of the caller's terminal, if there is one.
    fn tell_size(&self) {
        if let (Some(terminal), Some((cols, rows))) = (&self.terminal, sbx_host::terminal::size()) {
            terminal.resize(cols, rows);
        }
    }
}
