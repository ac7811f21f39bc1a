//! The host's end of a connection: a stream, and the guest's bytes that it has not taken yet.
//!
//! It outlives the connection: what the guest has sent reaches the host also when the guest has closed,
//! was reset, or is gone. It bounds nothing itself; its user keeps within the credit that it gives.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::SendFlags;

/// What a read from the host came to.
pub(super) enum Incoming {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now: the stream must become readable first.
    Nothing,
    /// The host sends no more.
    End,
}

/// The host's end.
pub(super) struct HostEnd {
    stream: UnixStream,
    kept: VecDeque<u8>,
    /// The stream took no more when last asked, so that it must become writable first.
    blocked: bool,
    /// The host takes no more for ever: what is meant for it is dropped.
    refused: bool,
    /// The guest sends no more, and so the stream's writing half ends behind the last byte kept.
    ended: bool,
}

impl HostEnd {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, kept: VecDeque::new(), blocked: false, refused: false, ended: false }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    /// Has the next [`Self::flush`] try the stream again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Takes bytes of the guest's, for [`Self::flush`] to pass on.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
    }

    /// Passes on what is kept, as far as the stream takes it; returns how many bytes are kept no more.
    pub(super) fn flush(&mut self) -> usize {
        let before = self.kept.len();
        while !self.refused && !self.blocked && !self.kept.is_empty() {
            // Not `write`, which would end the process by SIGPIPE where it is not ignored.
            match rustix::net::send(&self.stream, self.kept.as_slices().0, SendFlags::NOSIGNAL) {
                Ok(0) | Err(Errno::AGAIN) => self.blocked = true,
                Ok(sent) => drop(self.kept.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(_) => self.refuse(),
            }
        }
        if self.refused {
            self.kept.clear();
        }
        if before > 0 {
            self.end_if_due();
        }
        before - self.kept.len()
    }

    /// The guest sends no more.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.end_if_due();
    }

    /// The guest receives no more: the host must not wait for room that never comes.
    pub(super) fn stop_reading(&self) {
        // It can only fail on a stream that is closed on the other side, which has the same effect.
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Reads what the host sends; `into` is not empty.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Incoming {
        loop {
            match self.stream.read(into) {
                Ok(0) => return Incoming::End,
                Ok(len) => return Incoming::Bytes(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Incoming::Nothing;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.refuse();
                    return Incoming::End;
                }
            }
        }
    }

    /// Closes the stream so that the host reads its end and no error: closing one with bytes unread
    /// would be a reset to the host, which could hide that all the guest's bytes have come.
    pub(super) fn close(mut self) {
        self.stop_reading();
        // Ends, since nothing is added behind what the stream holds now.
        while let Incoming::Bytes(_) = self.read(&mut [0; 4096]) {}
    }

    fn refuse(&mut self) {
        self.refused = true;
        self.blocked = false;
    }

    fn end_if_due(&mut self) {
        if self.ended && self.kept.is_empty() {
            // As in `stop_reading`.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}
