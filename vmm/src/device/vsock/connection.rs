//! One connection: who may send how much, and what is to be told to the guest.
//!
//! What is to be told is worked out of the state whenever there is room to tell it ([`Connection::news`]),
//! not queued when something happens: nothing can pile up, and nothing is forgotten. It knows no queue
//! and no memory of the guest's.

use super::host::{HostEnd, Incoming};
use super::packet::{Header, NO_RECEIVE, NO_SEND, STREAM, op};

/// Bytes from the guest that are kept for a host that does not read: what the guest is told to be the
/// size of our buffer.
pub(super) const BUFFER: u32 = 256 << 10;

/// A packet that the guest had no right to send: its connection is over.
pub(super) struct Violation;

/// A connection that the guest has asked for.
pub(super) struct Connection {
    pub(super) host: HostEnd,
    pub(super) guest_port: u32,
    answered: bool,

    /// The guest's buffer, as it last said: its size, and the bytes that have left it.
    peer_alloc: u32,
    peer_fwd: u32,
    /// Bytes sent to the guest. This and the next three wrap, as the protocol's counters do.
    sent: u32,
    /// Bytes had from the guest, those of them that left our buffer, and the latter as last told.
    received: u32,
    forwarded: u32,
    told: u32,
    /// The guest asked for the state of our buffer.
    update_asked: bool,
    /// We asked the guest for the state of its buffer, and it has not had room since.
    asked: bool,

    /// The host's stream may have something, or its end, to read: true from when it was found readable
    /// until it is found empty, however long the guest cannot take it in between.
    readable: bool,
    /// The host sends no more.
    host_ended: bool,
    guest_sends: bool,
    guest_receives: bool,
    /// What the guest has been told of [`NO_RECEIVE`] and [`NO_SEND`].
    shutdown_told: u32,
}

impl Connection {
    /// The connection that `request` asks for.
    pub(super) fn new(host: HostEnd, request: &Header) -> Self {
        Self {
            host,
            guest_port: request.src_port,
            answered: false,
            peer_alloc: request.buf_alloc,
            peer_fwd: request.fwd_cnt,
            sent: 0,
            received: 0,
            forwarded: 0,
            told: 0,
            update_asked: false,
            asked: false,
            readable: true,
            host_ended: false,
            guest_sends: true,
            guest_receives: true,
            shutdown_told: 0,
        }
    }

    /// The stream is ready for something.
    pub(super) fn host_ready(&mut self) {
        self.host.unblock();
        self.readable = true;
    }

    /// Whether to wait for the host to send.
    pub(super) fn awaits_host(&self) -> bool {
        !self.readable && !self.host_ended && self.guest_receives
    }

    /// Takes a packet of the guest's but its first and an `RST`.
    ///
    /// # Errors
    /// When the guest breaks the protocol.
    pub(super) fn take(&mut self, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        self.peer_alloc = header.buf_alloc;
        self.peer_fwd = header.fwd_cnt;
        self.asked &= self.credit() == 0;
        match header.op {
            op::RW => return self.take_data(payload),
            op::SHUTDOWN => self.take_shutdown(header.flags),
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => self.update_asked = true,
            _ => return Err(Violation),
        }
        Ok(())
    }

    fn take_data(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let len = u32::try_from(payload.len()).map_err(|_| Violation)?;
        if !self.guest_sends || len > self.room() {
            return Err(Violation);
        }
        self.received = self.received.wrapping_add(len);
        self.host.keep(payload);
        Ok(())
    }

    fn take_shutdown(&mut self, flags: u32) {
        if flags & NO_SEND != 0 && self.guest_sends {
            self.guest_sends = false;
            self.host.end();
        }
        if flags & NO_RECEIVE != 0 && self.guest_receives {
            self.guest_receives = false;
            self.host.stop_reading();
        }
    }

    /// Passes kept bytes on to the host.
    pub(super) fn flush(&mut self) {
        // Never more than the buffer.
        self.forwarded = self.forwarded.wrapping_add(self.host.flush() as u32);
    }

    /// Reads from the host into `room` (not empty) as much as the guest has credit for; how many bytes.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Option<usize> {
        let may = usize::try_from(self.credit()).unwrap_or(usize::MAX).min(room.len());
        if !self.readable || self.host_ended || !self.guest_receives || may == 0 {
            return None;
        }
        match self.host.read(&mut room[..may]) {
            Incoming::Bytes(len) => {
                self.sent = self.sent.wrapping_add(len as u32);
                return Some(len);
            }
            Incoming::Nothing => self.readable = false,
            Incoming::End => self.host_ended = true,
        }
        None
    }

    /// What the guest is to be told next, if anything; it counts as told.
    pub(super) fn news(&mut self) -> Option<Header> {
        let op = if !self.answered {
            self.answered = true;
            op::RESPONSE
        } else if self.update_due() {
            op::CREDIT_UPDATE
        } else if self.request_due() {
            self.asked = true;
            op::CREDIT_REQUEST
        } else if self.shutdown_due() != self.shutdown_told {
            self.shutdown_told = self.shutdown_due();
            op::SHUTDOWN
        } else {
            return None;
        };
        let flags = if op == op::SHUTDOWN { self.shutdown_told } else { 0 };
        Some(Header { flags, ..self.header(op) })
    }

    /// A header that tells the state of our buffer, as every header does; all but `op`, the addresses
    /// and the host's port is left to the caller.
    pub(super) fn header(&mut self, op: u16) -> Header {
        self.told = self.forwarded;
        self.update_asked = false;
        Header {
            dst_port: self.guest_port,
            kind: STREAM,
            op,
            buf_alloc: BUFFER,
            fwd_cnt: self.forwarded,
            ..Header::default()
        }
    }

    /// Whether nothing can come of this connection any more, and the guest knows all but that.
    pub(super) fn finished(&self) -> bool {
        let to_host = !self.host.refused() && (self.guest_sends || self.host.kept() > 0);
        let to_guest = self.guest_receives && self.shutdown_told & NO_SEND == 0;
        self.answered && !to_host && !to_guest
    }

    /// Bytes that the guest may still send by the buffer's size.
    fn room(&self) -> u32 {
        BUFFER.saturating_sub(u32::try_from(self.host.kept()).unwrap_or(u32::MAX))
    }

    /// Bytes that the guest has room for, which is none while its numbers make no sense.
    fn credit(&self) -> u32 {
        self.peer_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_fwd))
    }

    /// Not for each byte that leaves the buffer, but before the guest could run out of credit: as soon
    /// as it knows of no more than half the buffer and there is more to know. The table in
    /// the module above says why no guest waits for ever.
    fn update_due(&self) -> bool {
        let known = BUFFER.saturating_sub(self.received.wrapping_sub(self.told));
        let news = self.forwarded != self.told && known <= BUFFER / 2;
        self.update_asked || self.guest_sends && news
    }

    fn request_due(&self) -> bool {
        let waits = self.readable && !self.host_ended && self.guest_receives;
        waits && !self.asked && self.credit() == 0
    }

    fn shutdown_due(&self) -> u32 {
        let no_send = if self.host_ended { NO_SEND } else { 0 };
        let no_receive = if self.host.refused() { NO_RECEIVE } else { 0 };
        no_send | no_receive
    }
}
