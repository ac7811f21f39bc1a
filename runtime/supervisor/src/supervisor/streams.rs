//! The workload's standard streams: pipes whose other ends the supervisor reads, an input that is empty.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use sbx_core::{Error, Lifecycle, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::read_now;
use crate::log::Stream;

/// How much is read at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;
const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// The streams of one life of a workload.
pub(super) struct Streams {
    /// Our ends; none of a stream that has ended.
    read: [Option<OwnedFd>; 2],
    /// The workload's, until it has begun.
    write: Option<[OwnedFd; 2]>,
}

impl Streams {
    pub(super) fn new() -> Result<Self> {
        let pipe = || {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&read, true)?;
            Ok((read, write))
        };
        let failed = |e: rustix::io::Errno| Error::host("make the workload's streams", e);
        let (out, to_out) = pipe().map_err(failed)?;
        let (err, to_err) = pipe().map_err(failed)?;
        Ok(Self { read: [Some(out), Some(err)], write: Some([to_out, to_err]) })
    }

    /// Starts the workload with these as its standard streams; this process's own are nothing then. None
    /// of the files in `private` is the workload's.
    pub(super) fn start(
        &mut self,
        lifecycle: &mut Lifecycle,
        private: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let failed = |e: rustix::io::Errno| Error::host("set the workload's streams up", e);
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let null = null.map_err(failed)?;
        let Some([out, err]) = self.write.take() else { return Ok(()) };
        set(&null, &out, &err).map_err(failed)?;
        let own = self.read.iter().flatten().chain([&null, &out, &err]);
        let all: Vec<_> = private.iter().copied().chain(own.map(AsFd::as_fd)).collect();
        let started = lifecycle.start_apart(&all);
        set(&null, &null, &null).map_err(failed)?;
        started
    }

    /// Our ends of those that have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let pairs = BOTH.into_iter().zip(&self.read);
        pairs.filter_map(|(stream, file)| Some((stream, file.as_ref()?.as_fd())))
    }

    /// Reads once what is there.
    pub(super) fn read(&mut self, stream: Stream, mut take: impl FnMut(&[u8])) {
        let mut room = vec![0; CHUNK];
        let slot = &mut self.read[BOTH.iter().position(|s| *s == stream).unwrap_or_default()];
        match slot.as_ref().and_then(|file| read_now(file.as_fd(), &mut room)) {
            Some(0) => *slot = None,
            Some(count) => take(&room[..count]),
            None => {}
        }
    }

    /// Reads to the end of both, for at most so long: somebody else may have been given the other ends.
    pub(super) fn finish(&mut self, patience: Duration, mut take: impl FnMut(Stream, &[u8])) {
        let deadline = Instant::now() + patience;
        loop {
            let open: Vec<_> = self.open().map(|(stream, _)| stream).collect();
            let mut files: Vec<_> = self
                .open()
                .map(|(_, file)| PollFd::from_borrowed_fd(file, PollFlags::IN))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if files.is_empty() || left.is_zero() {
                return;
            }
            let _ = poll(&mut files, Timespec::try_from(left).ok().as_ref());
            for stream in open {
                self.read(stream, |bytes| take(stream, bytes));
            }
        }
    }
}

fn set(input: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)
}
