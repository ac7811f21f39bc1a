//! The workload's standard streams: the caller's own, passed through.
//!
//! Output is written straight to the file descriptor, one write(2) for what the workload wrote: no
//! buffer that a kill could lose, and `--output` counts every byte. A reader that goes away ends the
//! workload by SIGPIPE, as it would a native program.

use bytes::Bytes;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// The most that is read or written at once; bounds what a guest can make the host allocate.
const CHUNK: usize = 64 * 1024;

/// Why a stream ended the workload: it has used up its `--output`.
#[derive(Debug, thiserror::Error)]
#[error("the output limit is used up")]
pub(crate) struct OutputSpent;

/// Standard output or standard error.
#[derive(Clone)]
pub(crate) struct Output {
    stream: BorrowedFd<'static>,
    terminal: bool,
    /// What is left of `--output`, which both streams share.
    left: Option<Arc<AtomicU64>>,
}

impl Output {
    /// Both output streams. They say that they are terminals only if `tty` is granted.
    pub(crate) fn both(tty: bool, limit: Option<u64>) -> (Self, Self) {
        let left = limit.map(|bytes| Arc::new(AtomicU64::new(bytes)));
        let new = |stream: BorrowedFd<'static>| Self {
            stream,
            terminal: tty && rustix::termios::isatty(stream),
            left: left.clone(),
        };
        (new(rustix::stdio::stdout()), new(rustix::stdio::stderr()))
    }

    fn write_all(&self, mut bytes: &[u8]) -> StreamResult<()> {
        while !bytes.is_empty() {
            match rustix::io::write(self.stream, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    wait_for(self.stream, rustix::event::PollFlags::OUT)?
                }
                Err(e) => return Err(StreamError::LastOperationFailed(io(e).into())),
            }
        }
        Ok(())
    }
}

fn io(error: rustix::io::Errno) -> std::io::Error {
    error.into()
}

/// Blocks until the descriptor, which somebody else has set to non-blocking, is ready.
fn wait_for(stream: BorrowedFd<'_>, events: rustix::event::PollFlags) -> StreamResult<()> {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(stream, events)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(StreamError::LastOperationFailed(io(e).into())),
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only preview 3 asks for this form, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Some(left) = &self.left else { return self.write_all(&bytes) };
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(bytes.len() as u64))
        });
        let allowed = before.unwrap_or(0).min(bytes.len() as u64) as usize;
        self.write_all(&bytes[..allowed])?;
        if allowed < bytes.len() { Err(StreamError::Trap(OutputSpent.into())) } else { Ok(()) }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

/// Standard input, where it is granted.
#[derive(Clone)]
pub(crate) struct Input {
    terminal: bool,
}

impl Input {
    pub(crate) fn new(tty: bool) -> Self {
        Self { terminal: tty && rustix::termios::isatty(rustix::stdio::stdin()) }
    }
}

/// Whether a read would not block: there is data, the end, or an error to report.
fn readable() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(stdin, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Only preview 3 asks for this form, which is not linked.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

/// Registers standard input with the reactor.
#[allow(unsafe_code, reason = "tokio wants a promise about the descriptor's life")]
fn watch(stdin: BorrowedFd<'static>) -> Option<AsyncFd<BorrowedFd<'static>>> {
    // SAFETY: the descriptor is standard input, which stays open for the life of the process.
    unsafe { AsyncFd::register_with_interest(stdin, tokio::io::Interest::READABLE) }.ok()
}

#[wasmtime_wasi::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        if readable() {
            return;
        }
        let stdin = rustix::stdio::stdin();
        // Inside a runtime there may be a clock to watch as well; outside of one, there is nothing
        // else to do than to wait. Regular files cannot be watched, and are always readable.
        let watched = tokio::runtime::Handle::try_current().ok().and_then(|_| watch(stdin));
        match watched {
            Some(watched) => drop(watched.readable().await),
            None => drop(wait_for(stdin, rustix::event::PollFlags::IN)),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 || !readable() {
            return Ok(Bytes::new());
        }
        let mut buffer = vec![0; size.min(CHUNK)];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => Err(StreamError::Closed),
            Ok(n) => {
                buffer.truncate(n);
                Ok(buffer.into())
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Bytes::new()),
            Err(e) => Err(StreamError::LastOperationFailed(io(e).into())),
        }
    }
}
