//! The workload's standard streams: pipes or a terminal, whose other ends are the supervisor's.
//!
//! A terminal here does nothing by itself: no echo, no line editing, no keys that are signals. All that is
//! the attached terminal's to do, or the guest's.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use sbx_core::{Error, Lifecycle, Result, Spec};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::read_now;
use crate::log::Stream;

/// How much is read at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// How much input waits for the workload at most.
const INPUT_MAX: usize = 64 << 10;
const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// The streams of one life of a workload.
pub(super) struct Streams {
    /// Our ends; none of a stream that has ended.
    read: [Option<OwnedFd>; 2],
    /// Our end of its input, if it has one that has not ended.
    input: Option<OwnedFd>,
    /// What waits for the workload to read it.
    waiting: VecDeque<u8>,
    /// Nothing comes behind that.
    input_ends: bool,
    /// The workload's ends, until it has begun.
    theirs: Option<[OwnedFd; 3]>,
    is_terminal: bool,
}

impl Streams {
    /// Makes what `spec` asks for.
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        let made = if spec.tty { Self::terminal(spec.stdin) } else { Self::pipes(spec.stdin) };
        made.map_err(|e| Error::host("make the workload's streams", e))
    }

    fn pipes(stdin: bool) -> rustix::io::Result<Self> {
        let (out, to_out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, to_err) = pipe_with(PipeFlags::CLOEXEC)?;
        let (from, input) = if stdin {
            let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
            (from, Some(to))
        } else {
            (null()?, None)
        };
        // Ours only: the other ends are files of their own, on which the workload may wait.
        for ours in [&out, &err].into_iter().chain(&input) {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        Ok(Self::of([Some(out), Some(err)], input, [from, to_out, to_err], false))
    }

    fn terminal(stdin: bool) -> rustix::io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(ptsname(&ours, Vec::new())?, flags, Mode::empty())?;
        let mut modes = tcgetattr(&theirs)?;
        modes.make_raw();
        tcsetattr(&theirs, OptionalActions::Now, &modes)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let again = |file: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(file, 3);
        let ends = [again(&theirs)?, again(&theirs)?, theirs];
        let input = stdin.then(|| again(&ours)).transpose()?;
        Ok(Self::of([Some(ours), None], input, ends, true))
    }

    fn of(
        read: [Option<OwnedFd>; 2],
        input: Option<OwnedFd>,
        theirs: [OwnedFd; 3],
        is_terminal: bool,
    ) -> Self {
        let (waiting, theirs) = (VecDeque::new(), Some(theirs));
        Self { read, input, waiting, input_ends: false, theirs, is_terminal }
    }

    /// Starts the workload with these as its standard streams; this process's own are nothing then. None
    /// of the files in `private` is the workload's.
    pub(super) fn start(
        &mut self,
        lifecycle: &mut Lifecycle,
        private: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let failed = |e: Errno| Error::host("set the workload's streams up", e);
        let Some([from, out, err]) = self.theirs.take() else { return Ok(()) };
        let null = null().map_err(failed)?;
        set(&from, &out, &err).map_err(failed)?;
        let own = self.read.iter().flatten().chain(&self.input);
        let own = own.chain([&null, &from, &out, &err]);
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
            let file = |(_, file)| PollFd::from_borrowed_fd(file, PollFlags::IN);
            let mut files: Vec<_> = self.open().map(file).collect();
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

    /// How many bytes of input can be taken. Any number, where nobody will read them.
    pub(super) fn input_room(&self) -> usize {
        if self.input.is_none() { usize::MAX } else { INPUT_MAX.saturating_sub(self.waiting.len()) }
    }

    /// Takes input for the workload.
    pub(super) fn take_input(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.input_ends {
            self.waiting.extend(bytes);
            self.write_input();
        }
    }

    /// There is no more input.
    pub(super) fn end_input(&mut self) {
        // A terminal goes on: others may be attached to it later.
        if !self.is_terminal {
            self.input_ends = true;
            self.write_input();
        }
    }

    /// Our end of the input, if something waits for the workload to make room.
    pub(super) fn input_waits(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// Gives the workload what it has room for.
    pub(super) fn write_input(&mut self) {
        while let (Some(input), (piece @ [_, ..], _)) = (&self.input, self.waiting.as_slices()) {
            match rustix::io::write(input, piece) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // It reads no more.
                Err(_) => {
                    self.input = None;
                    self.waiting.clear();
                }
            }
        }
        if self.input_ends {
            self.input = None;
        }
    }

    /// Tells the terminal its size.
    pub(super) fn resize(&self, columns: u16, lines: u16) {
        if let (true, Some(terminal)) = (self.is_terminal, &self.read[0]) {
            let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(terminal, size);
        }
    }
}

fn null() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn set(input: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)
}
