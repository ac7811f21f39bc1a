//! A socket device (virtio 1.2 section 5.10): byte streams between guest and host, in user space.
//!
//! The guest connects to ports of the host (CID 2) that were opened when the device was made. Each port
//! takes one connection in its life, carried by the stream that it was given; anything else is refused.
//! `packet.rs` is what a packet looks like, `connection.rs` who may send how much, `host.rs` the host's
//! end of a connection; here packets are taken from the guest and given to it.
//!
//! What it does *not* do: connections from the host to the guest, from guest to guest, datagrams and
//! sequenced packets; ports that come and go; the end of the host's stream is not seen while the guest
//! has no buffer for more data. It uses nothing of the host's own vsock.
//!
//! # No byte is lost
//! What the guest has sent is written to the stream, or kept until it can be, at most
//! 256 KiB a connection, which is the credit that the guest is given. That holds past the guest's close, reset, and power-off, as
//! long as the device is served. It has delivered everything when none of [`Vsock::host_files`] asks to
//! be written.
//!
//! # What waits for what
//! Nothing may wait for ever for what has already happened. Every wait, and what ends it:
//!
//! | who waits, for what | what ends it |
//! |---|---|
//! | the guest's bytes, for room in the stream | the stream is listed for `write` from the moment it refuses until it is ready |
//! | the guest, for credit | bytes that leave our buffer are told as soon as the guest knows of no more than half the buffer: if it knows of none at all, all it sent is untold, so either there is news, or bytes are still here and the row above will make news |
//! | the host's bytes, for being there | the stream is listed for `read` until it is readable; that is then remembered until it is found empty, so that the next two rows need no second event |
//! | the host's bytes, for buffers of the guest's | the driver's notification of the receive queue |
//! | the host's bytes, for credit | any packet of this connection brings it; the guest is asked for one when it has run out |
//! | answers, ends and news of credit, for buffers of the guest's | the driver's notification of the receive queue; what is to be told is worked out anew then |
//! | the guest's packets, for room among the refusals that wait | the same: every call goes on with both queues |
//! | packets left in a queue because a call takes and gives only so many, for the next call | a file of ours that is always readable, listed when that is so |
//!
//! The first and the third are independent of each other, so a host that reads only after it has written
//! all, or the reverse, stops one direction and not the other. An `RST` is never answered, so that two
//! full queues cannot wait for each other.
//!
//! This rests on the transport: after a call that emptied a queue, it must ask for the driver's
//! notification of that queue and look again, and it must watch the files in their level, not their edge.

mod connection;
mod host;
mod packet;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::EventfdFlags;

use crate::virtio::{DeviceError, HostFile, Io, VirtioDevice, read_config_space};
use connection::Connection;
use host::HostEnd;
use packet::{HEADER, Header, PAYLOAD, STREAM, op};

/// The device's number in the specification.
const KIND: u32 = 19;
/// The host's address (5.10.4).
const HOST_CID: u64 = 2;
/// The addresses that a guest can have: lower ones and the last are reserved.
const GUEST_CIDS: std::ops::RangeInclusive<u64> = 3..=0xffff_fffe;

const RX: usize = 0;
const TX: usize = 1;
/// The third is for events of migration, of which there are none.
const QUEUES: [u16; 3] = [256, 256, 16];

/// Refusals that wait for buffers of the guest's. With so many, its packets are left in their queue.
const REFUSALS: usize = 256;
/// Packets taken, and packets given, in one call: neither direction nor another device of this thread
/// waits for a guest that never pauses.
const BATCH: usize = 32;
/// Known by it: the file that asks for another call. Ports are known by their place.
const AGAIN: u32 = u32::MAX;

/// The device.
pub struct Vsock {
    cid: u64,
    ports: Vec<Port>,
    refusals: VecDeque<Header>,
    /// The port that is first asked for data.
    turn: usize,
    /// A payload on its way.
    payload: Box<[u8]>,
    /// Always readable; of interest if `again`.
    bell: OwnedFd,
    again: bool,
}

struct Port {
    number: u32,
    state: State,
}

/// The life of a port, which goes only downwards.
enum State {
    Idle(UnixStream),
    Open(Connection),
    /// The guest is done with it; the host has not taken all yet.
    Closing(HostEnd),
    Closed,
}

impl Vsock {
    /// A device for a guest with this address, which can connect to these ports of the host, once each.
    /// The streams are made non-blocking.
    ///
    /// # Errors
    /// When the address is a reserved one, a port is given twice, or the host fails.
    pub fn new(cid: u64, ports: Vec<(u32, UnixStream)>) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        if !GUEST_CIDS.contains(&cid) {
            return Err(invalid("the guest's vsock address is a reserved one"));
        }
        let mut known = Vec::with_capacity(ports.len());
        for (number, stream) in ports {
            if known.iter().any(|port: &Port| port.number == number) {
                return Err(invalid("a vsock port is given twice"));
            }
            stream.set_nonblocking(true)?;
            known.push(Port { number, state: State::Idle(stream) });
        }
        Ok(Self {
            cid,
            ports: known,
            refusals: VecDeque::new(),
            turn: 0,
            payload: vec![0; PAYLOAD].into_boxed_slice(),
            bell: rustix::event::eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            again: false,
        })
    }

    /// Moves what can be moved, in both directions.
    fn pump(&mut self, io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.again = false;
        let taken = self.take(io);
        // Also if the guest broke its queue: what came before that is for the host.
        self.ports.iter_mut().for_each(Port::flush);
        let (taken, stopped) = (taken?, self.refusals.len() >= REFUSALS);
        let given = self.give(io)?;
        let go_on = stopped && self.refusals.len() < REFUSALS;
        self.again = taken == BATCH || given == BATCH || go_on;
        Ok(())
    }

    /// Takes packets from the guest; how many.
    fn take(&mut self, io: &mut Io<'_>) -> Result<usize, DeviceError> {
        for count in 0..BATCH {
            if self.refusals.len() >= REFUSALS {
                return Ok(count);
            }
            let Some(chain) = io.queues[TX].pop(io.mem)? else {
                return Ok(count);
            };
            self.take_packet(chain.reader()?);
            io.queues[TX].push(io.mem, chain.head(), 0)?;
        }
        Ok(BATCH)
    }

    /// One packet: passes it to its connection, or refuses it.
    fn take_packet(&mut self, mut packet: virtio_queue::Reader<'_>) {
        let mut raw = [0; HEADER];
        if packet.read_exact(&mut raw).is_err() {
            return;
        }
        let header = Header::parse(&raw);
        // An answer to another address than its own would not reach the guest.
        if header.src_cid != self.cid {
            return;
        }
        if header.dst_cid != HOST_CID || header.kind != STREAM {
            return self.refuse(&header);
        }
        let Some(at) = self.ports.iter().position(|port| port.number == header.dst_port) else {
            return self.refuse(&header);
        };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let whole = match self.payload.get_mut(..len) {
            Some(payload) => packet.read_exact(payload).is_ok(),
            None => false,
        };
        let port = &mut self.ports[at];
        match &mut port.state {
            State::Idle(_) if header.op == op::REQUEST && whole => port.open(&header),
            State::Open(connection) if connection.guest_port == header.src_port => {
                let fine = header.op != op::RST && whole;
                if !fine || connection.take(&header, &self.payload[..len]).is_err() {
                    port.abandon();
                    self.refuse(&header);
                }
            }
            _ => self.refuse(&header),
        }
    }

    /// Answers by `RST`, but never an `RST`.
    fn refuse(&mut self, header: &Header) {
        if header.op != op::RST {
            self.refusals.push_back(header.refusal());
        }
    }

    /// Gives packets to the guest; how many.
    fn give(&mut self, io: &mut Io<'_>) -> Result<usize, DeviceError> {
        for count in 0..BATCH {
            let Some(chain) = io.queues[RX].pop(io.mem)? else {
                return Ok(count);
            };
            let mut writer = chain.writer()?;
            let room = writer.available_bytes().saturating_sub(HEADER).min(PAYLOAD);
            if room == 0 {
                return Err(DeviceError::Protocol("a receive buffer without room for a packet"));
            }
            let Some(header) = self.next_packet(room) else {
                io.queues[RX].unpop();
                return Ok(count);
            };
            let len = header.len as usize;
            writer.write_all(&header.bytes())?;
            writer.write_all(&self.payload[..len])?;
            // At most a header and `PAYLOAD`.
            io.queues[RX].push(io.mem, chain.head(), (HEADER + len) as u32)?;
        }
        Ok(BATCH)
    }

    /// The next packet for the guest, with at most `room` bytes of payload.
    fn next_packet(&mut self, room: usize) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        // To look for data can end a connection, which is news again.
        let packet = match self.news() {
            Some(news) => Some(news),
            None => self.data(room).or_else(|| self.news()),
        };
        packet.map(|packet| Header { src_cid: HOST_CID, dst_cid: self.cid, ..packet })
    }

    fn news(&mut self) -> Option<Header> {
        self.ports.iter_mut().find_map(Port::news)
    }

    /// Data from the first port in turn that has any, put into `payload`.
    fn data(&mut self, room: usize) -> Option<Header> {
        let count = self.ports.len();
        for at in (0..count).map(|step| (self.turn + step) % count) {
            let Port { number, state: State::Open(connection) } = &mut self.ports[at] else {
                continue;
            };
            if let Some(len) = connection.read(&mut self.payload[..room]) {
                self.turn = (at + 1) % count;
                // At most `PAYLOAD`.
                let len = len as u32;
                return Some(Header { len, src_port: *number, ..connection.header(op::RW) });
            }
        }
        None
    }
}

impl Port {
    fn open(&mut self, request: &Header) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Idle(stream) => {
                let connection = Connection::new(HostEnd::new(stream), request);
                self.state = State::Open(connection);
            }
            other => self.state = other,
        }
    }

    /// Ends the guest's part in a connection.
    fn abandon(&mut self) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Open(Connection { mut host, .. }) => {
                host.stop_reading();
                host.end();
                self.state = State::Closing(host);
                self.flush();
            }
            other => self.state = other,
        }
    }

    /// Passes kept bytes on to the host.
    fn flush(&mut self) {
        match &mut self.state {
            State::Open(connection) => connection.flush(),
            State::Closing(host) => {
                host.flush();
                if host.kept() == 0 {
                    self.close();
                }
            }
            State::Idle(_) | State::Closed => {}
        }
    }

    fn close(&mut self) {
        if let State::Closing(host) = mem::replace(&mut self.state, State::Closed) {
            host.close();
        }
    }

    /// What the guest is to be told next, the last of which is that the connection is over.
    fn news(&mut self) -> Option<Header> {
        let State::Open(connection) = &mut self.state else {
            return None;
        };
        let mut news = connection.news();
        if news.is_none() && connection.finished() {
            news = Some(connection.header(op::RST));
            self.abandon();
        }
        news.map(|news| Header { src_port: self.number, ..news })
    }

    fn host_file(&self, token: u32) -> Option<HostFile> {
        let (fd, read, write) = match &self.state {
            State::Open(it) => (it.host.fd(), it.awaits_host(), it.host.blocked()),
            State::Closing(host) => (host.fd(), false, host.blocked()),
            State::Idle(_) | State::Closed => return None,
        };
        // Not listed without interest, since a closed stream would be ready all the same.
        (read || write).then_some(HostFile { fd, token, read, write })
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.cid.to_le_bytes(), offset, data);
    }

    /// Ports that were connected to stay taken; what the guest had sent is still delivered.
    fn reset(&mut self) {
        self.ports.iter_mut().for_each(Port::abandon);
        self.refusals.clear();
        self.again = false;
    }

    fn process_queue(&mut self, _index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.pump(io)
    }

    fn host_files(&self) -> Vec<HostFile> {
        let bell = HostFile { fd: self.bell.as_raw_fd(), token: AGAIN, read: true, write: false };
        let ports = (0..).zip(&self.ports).filter_map(|(token, port)| port.host_file(token));
        self.again.then_some(bell).into_iter().chain(ports).collect()
    }

    fn process_host(&mut self, token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let port = usize::try_from(token).ok().and_then(|at| self.ports.get_mut(at));
        match port.map(|port| &mut port.state) {
            Some(State::Open(connection)) => connection.host_ready(),
            Some(State::Closing(host)) => host.unblock(),
            Some(State::Idle(_) | State::Closed) | None => {}
        }
        self.pump(io)
    }
}
