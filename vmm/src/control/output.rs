//! The caller's standard output and error, written to without ever waiting for a reader.
//!
//! What the workload wrote is kept until its stream takes it; how much that can be is bounded by the
//! agent's credit. `--output` counts every byte of both streams here.

use rustix::event::PollFlags;
use rustix::io::Errno;
use sbx_core::Exit;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

/// A pipe that is writable takes this much without waiting (pipe(7), `PIPE_BUF`).
const PIPE: usize = 4096;
/// What anything else is given at a time.
const CHUNK: usize = 64 << 10;

/// One of the two streams.
struct Stream {
    fd: BorrowedFd<'static>,
    name: &'static str,
    waiting: VecDeque<u8>,
    /// How much is written at a time, so as not to wait.
    chunk: usize,
}

impl Stream {
    fn new(fd: BorrowedFd<'static>, name: &'static str) -> Self {
        let file = rustix::fs::fstat(fd)
            .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file());
        let chunk = if file.unwrap_or(false) { CHUNK } else { PIPE };
        Self { fd, name, waiting: VecDeque::new(), chunk }
    }

    /// Writes once; says how much went.
    fn write(&mut self) -> Result<usize, Exit> {
        let (bytes, _) = self.waiting.as_slices();
        let bytes = &bytes[..bytes.len().min(self.chunk)];
        match rustix::io::write(self.fd, bytes) {
            Ok(count) => {
                self.waiting.drain(..count);
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            // As it would have ended had it written to the pipe itself.
            Err(Errno::PIPE) => Err(Exit::Signal(libc::SIGPIPE)),
            Err(e) => Err(Exit::Failed(format!(
                "standard {} cannot be written: {}",
                self.name,
                std::io::Error::from(e)
            ))),
        }
    }
}

/// Both streams, and what is left of `--output`.
pub(crate) struct Output {
    streams: [Stream; 2],
    limit: Option<u64>,
    left: u64,
    spent: bool,
}

/// Standard output's place.
pub(crate) const STDOUT: usize = 0;
/// Standard error's place.
pub(crate) const STDERR: usize = 1;

impl Output {
    /// The caller's streams, of which `limit` bytes may be written.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        let stdout = Stream::new(rustix::stdio::stdout(), "output");
        let stderr = Stream::new(rustix::stdio::stderr(), "error");
        Self { streams: [stdout, stderr], limit, left: limit.unwrap_or(u64::MAX), spent: false }
    }

    /// Takes what the workload wrote, as far as it may.
    pub(crate) fn take(&mut self, stream: usize, bytes: &[u8]) {
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= allowed as u64;
        self.spent |= allowed < bytes.len();
        self.streams[stream].waiting.extend(&bytes[..allowed]);
    }

    /// Writes a piece of what waits on a stream whose reader can take it; says how much went.
    pub(crate) fn write(&mut self, stream: usize) -> Result<usize, Exit> {
        self.streams[stream].write()
    }

    /// The stream's file, if something waits for it.
    pub(crate) fn waiting(&self, stream: usize) -> Option<(BorrowedFd<'static>, PollFlags)> {
        let stream = &self.streams[stream];
        (!stream.waiting.is_empty()).then_some((stream.fd, PollFlags::OUT))
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.iter().all(|stream| stream.waiting.is_empty())
    }

    /// How the workload ends for having written too much.
    pub(crate) fn spent(&self) -> Option<Exit> {
        self.spent.then(|| Exit::Output(self.limit.unwrap_or_default()))
    }
}
