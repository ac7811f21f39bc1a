//! The other end of a connection that is attached to a workload: this process's standard streams are the
//! workload's, and its signals too, until the end of one of them.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sbx_core::{Command, Error, Result};
use sbx_host::signals::{self, Signals};
use sbx_host::terminal::{self, Raw};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use crate::control::{self, Request};
use crate::store::Entry;
use sbx_host::frame::{Decoder, End, Frame};

/// The keys that detach from a terminal, as in docker: Ctrl-P, Ctrl-Q.
const DETACH: [u8; 2] = [0x10, 0x11];
/// How much is read at a time.
const CHUNK: usize = 32 << 10;

/// What of the caller's is the workload's.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The standard input.
    pub stdin: bool,
    /// The terminal, with every key: the workload's own terminal makes of them what it will.
    pub raw: bool,
    /// The terminal's size.
    pub tty: bool,
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Left {
    /// The workload ended.
    Ended(End),
    /// The user has detached.
    Detached,
}

/// Attaches to a sandbox that runs; `None` if it does not.
///
/// # Errors
/// When it refuses.
pub fn connect(entry: &Entry) -> Result<Option<UnixStream>> {
    Ok(control::converse(entry, &Request::Attach)?.map(|(_, stream)| stream))
}

/// Has a further process run in a sandbox that runs; `None` if it does not.
///
/// # Errors
/// When it refuses.
pub fn exec(entry: &Entry, command: Command) -> Result<Option<UnixStream>> {
    Ok(control::converse(entry, &Request::Exec(command))?.map(|(_, stream)| stream))
}

/// Carries streams and signals until the end. The signals ([`Signals::of_attached`]) are taken over before
/// there is a connection, so that none of them ends this process alone.
///
/// # Errors
/// When the supervisor is gone, or the caller's streams cannot be written.
pub fn run(connection: UnixStream, options: Options, signals: Signals) -> Result<Left> {
    let raw = options.raw.then(Raw::keys).flatten();
    let keys = raw.is_some();
    let mut attached = Attached { connection, options, signals, input: Decoder::default(), keys };
    let left = attached.run();
    // Before anything is said about the end.
    drop(raw);
    left
}

struct Attached {
    connection: UnixStream,
    options: Options,
    signals: Signals,
    input: Decoder,
    /// Whether detaching is by keys.
    keys: bool,
}

impl Attached {
    fn run(&mut self) -> Result<Left> {
        self.tell_size()?;
        let mut stdin = self.options.stdin;
        let mut prefix = false;
        loop {
            let mut files = vec![
                PollFd::new(&self.connection, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            if stdin {
                files.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
            match poll(&mut files, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Error::host("wait for the sandbox", e)),
            }
            let ready: Vec<_> = files.iter().map(|file| !file.revents().is_empty()).collect();
            if ready[1] {
                self.pass_on()?;
            }
            if ready[0]
                && let Some(end) = self.show()?
            {
                return Ok(Left::Ended(end));
            }
            if ready.get(2) == Some(&true) {
                let mut bytes = vec![0; CHUNK];
                match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Ok(0) | Err(_) => {
                        stdin = false;
                        self.send(&Frame::InputEnd)?;
                    }
                    Ok(count) => {
                        let typed = bytes[..count].to_vec();
                        if self.keys && detaches(&typed, &mut prefix) {
                            return Ok(Left::Detached);
                        }
                        self.send(&Frame::Input(typed))?;
                    }
                }
            }
        }
    }

    fn send(&mut self, frame: &Frame) -> Result<()> {
        match self.connection.write_all(&frame.encode()) {
            // What it has said last is still to be read, and tells the end.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|e| Error::host("speak with the supervisor", e)),
        }
    }

    fn tell_size(&mut self) -> Result<()> {
        match terminal::size().filter(|_| self.options.tty) {
            Some((columns, lines)) => self.send(&Frame::Size(columns, lines)),
            None => Ok(()),
        }
    }

    fn pass_on(&mut self) -> Result<()> {
        while let Some(received) = self.signals.next() {
            match received.signal {
                signals::WINDOW => self.tell_size()?,
                number => self.send(&Frame::Signal(number))?,
            }
        }
        Ok(())
    }

    /// Shows what has come; the end, if that has.
    fn show(&mut self) -> Result<Option<End>> {
        let lost =
            || Error::Refused("the sandbox's supervisor is gone, and the sandbox with it".into());
        let mut bytes = [0; CHUNK];
        match self.connection.read(&mut bytes) {
            Ok(0) => return Err(lost()),
            Ok(count) => self.input.add(&bytes[..count]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(lost()),
        }
        while let Some(frame) =
            self.input.next_frame().map_err(|e| Error::Refused(e.to_string()))?
        {
            let failed = |e| Error::host("write to standard output", e);
            match frame {
                Frame::Output(bytes) => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(&bytes).and_then(|()| out.flush()).map_err(failed)?;
                }
                Frame::Error(bytes) => std::io::stderr().write_all(&bytes).map_err(failed)?,
                Frame::End(end) => return Ok(Some(end)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Whether the keys that detach are among these, the first of them having come earlier if `prefix`.
fn detaches(typed: &[u8], prefix: &mut bool) -> bool {
    typed.iter().any(|key| {
        let both = *prefix && *key == DETACH[1];
        *prefix = *key == DETACH[0];
        both
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_detach() {
        let pressed = |pieces: &[&[u8]]| {
            let mut prefix = false;
            pieces.iter().any(|piece| detaches(piece, &mut prefix))
        };
        assert!(pressed(&[b"ls\x10\x11"]) && pressed(&[b"\x10", b"\x11"]));
        assert!(!pressed(&[b"\x10x\x11"]) && !pressed(&[b"\x11\x10"]));
    }
}
