//! A machine with the user's own initial RAM disk: its console is the caller's standard input and output,
//! and its end is the workload's.

use rustix::event::{PollFd, PollFlags};
use sbx_core::{Ending, Exit};
use sbx_host::process;
use sbx_host::signals::{self, Received, Signals};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::{Log, ended, ending_of, wait};
use crate::device::console::ConsoleHandle;
use crate::device::serial::Serial;
use crate::end::{Cause, End};

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
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let stdout = rustix::stdio::stdout();
                    wait(&mut [PollFd::from_borrowed_fd(stdout, PollFlags::OUT)], None);
                }
                Err(rustix::io::Errno::PIPE) => {
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

/// A console under way.
pub(crate) struct Console {
    pub(crate) end: Arc<End>,
    pub(crate) signals: Signals,
    /// The process whose signals count. A thread that is confined can no longer ask.
    pub(crate) parent: u32,
    pub(crate) log: Log,
    pub(crate) serial: Arc<Serial>,
    /// Where a virtio console takes its input, if the guest has one.
    pub(crate) keys: Option<UnixStream>,
    pub(crate) terminal: Option<ConsoleHandle>,
    pub(crate) stdin: bool,
    pub(crate) cpu_time: Option<Duration>,
}

impl Console {
    /// Carries keys to the guest until its end.
    pub(crate) fn run(mut self) -> Ending {
        if let Some(Err(e)) = self.cpu_time.map(process::limit_cpu_time) {
            return Exit::Failed(e.to_string()).into();
        }
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
            files.push(PollFd::from_borrowed_fd(self.serial.room(), PollFlags::IN));
        } else if self.stdin {
            files.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        wait(&mut files, None);
    }

    fn answer_signals(&self) -> Option<Ending> {
        while let Some(Received { signal, sender }) = self.signals.next() {
            match signal {
                signals::WINDOW => {
                    if let (Some(terminal), Some((cols, rows))) =
                        (&self.terminal, sbx_host::terminal::size())
                    {
                        terminal.resize(cols, rows);
                    }
                }
                signals::CPU_TIME | libc::SIGXCPU => {
                    return Some(Exit::CpuTime(self.cpu_time.unwrap_or_default()).into());
                }
                _ if sender != self.parent => {}
                signals::LAST_WORDS => return Some(Exit::Signal(9).into()),
                // There is nobody in the guest to tell.
                other => return Some(Exit::Signal(other).into()),
            }
        }
        None
    }

    fn read_input(&mut self, waiting: &mut Vec<u8>) {
        if waiting.is_empty() && self.stdin {
            let mut bytes = [0; CHUNK];
            match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => self.stdin = false,
                Ok(count) => waiting.extend(&bytes[..count]),
            }
        }
        if let Some(keys) = &mut self.keys {
            let _ = keys.write(waiting);
        }
        self.serial.look_for_room();
        let taken = self.serial.input(waiting);
        waiting.drain(..taken);
    }
}
