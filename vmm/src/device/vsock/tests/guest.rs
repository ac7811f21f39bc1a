//! The driver's side of the protocol, with room to lie.

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::connection;
use super::super::packet::{HEADER, Header, PAYLOAD, STREAM, op};
use super::super::{HOST_CID, RX, TX, Vsock};
use crate::virtio::testing::Driver;
use crate::virtio::{HostFile, VirtioDevice};

pub(super) const CID: u64 = 7;
pub(super) const PORT: u32 = 1024;
pub(super) const GUEST_PORT: u32 = 5000;
pub(super) const BUFFER: u32 = connection::BUFFER;
pub(super) const WRITE: u16 = 2;
/// Places for packets to the device, each larger than any packet.
pub(super) const PLACES: usize = 16;
pub(super) const PLACE: u64 = 0x2_0000;

pub(super) type Packet = (Header, Vec<u8>);

pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) device: Vsock,
    places: u64,
    sent: usize,
    tx_done: usize,
    /// Receive buffers: free ones, and those with the device.
    pub(super) free: Vec<u64>,
    pub(super) posted: VecDeque<u64>,
    room: u32,
}

impl Guest {
    /// A guest with 24 receive buffers of `room` bytes, posted already, and the host's end of the port.
    pub(super) fn new(room: u32) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut guest = Self::without_buffers(vec![(PORT, ours)], room);
        guest.post(24);
        (guest, theirs)
    }

    pub(super) fn without_buffers(ports: Vec<(u32, UnixStream)>, room: u32) -> Self {
        let mut device = Vsock::new(CID, ports).unwrap();
        let mut driver = Driver::new(&mut device);
        let places = driver.buffer(PLACE * PLACES as u64);
        let free = (0..24).map(|_| driver.buffer(u64::from(room))).collect();
        let posted = VecDeque::new();
        Self { driver, device, places, sent: 0, tx_done: 0, free, posted, room }
    }

    pub(super) fn post(&mut self, count: usize) {
        for address in self.free.drain(..count) {
            self.driver.offer_raw(RX, &[(address, self.room, WRITE)]);
            self.posted.push_back(address);
        }
        self.notify(RX);
    }

    pub(super) fn notify(&mut self, queue: usize) {
        let Self { driver, device, .. } = self;
        driver.with_io(|io| device.process_queue(queue, io)).unwrap();
    }

    /// Puts a packet into the queue: header and payload in descriptors of their own every other time.
    pub(super) fn put(&mut self, header: &Header, payload: &[u8]) {
        let place = self.places + PLACE * (self.sent % PLACES) as u64;
        self.sent += 1;
        self.driver.mem.write_slice(&header.bytes(), GuestAddress(place)).unwrap();
        let behind = place + HEADER as u64;
        self.driver.mem.write_slice(payload, GuestAddress(behind)).unwrap();
        let (head, len) = (HEADER as u32, u32::try_from(payload.len()).unwrap());
        if self.sent.is_multiple_of(2) || len == 0 {
            self.driver.offer_raw(TX, &[(place, head + len, 0)]);
        } else {
            self.driver.offer_raw(TX, &[(place, head, 0), (behind, len, 0)]);
        }
    }

    pub(super) fn send(&mut self, header: &Header, payload: &[u8]) {
        self.put(header, payload);
        self.notify(TX);
    }

    /// Serves ready files as the transport does, until none is ready; fails if that does not end.
    pub(super) fn serve(&mut self, wait: bool) {
        for turn in 0..1_000_000 {
            let files = self.device.host_files();
            let ready = ready(&files, wait && turn == 0);
            for token in &ready {
                let Self { driver, device, .. } = self;
                driver.with_io(|io| device.process_host(*token, io)).unwrap();
            }
            if ready.is_empty() {
                return;
            }
        }
        panic!("a file is ready for ever");
    }

    /// What the device has sent; its buffers are not posted again.
    pub(super) fn received(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(len) = self.driver.used(RX) {
            let address = self.posted.pop_front().unwrap();
            self.free.push(address);
            let bytes = self.driver.bytes(address, len as usize);
            let (raw, payload) = bytes.split_first_chunk().unwrap();
            let header = Header::parse(raw);
            assert_eq!(header.len as usize, payload.len());
            assert_eq!(header.dst_cid, CID);
            packets.push((header, payload.to_vec()));
        }
        packets
    }

    /// Serves, and takes all that comes, posting buffers anew.
    pub(super) fn settle(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            self.serve(false);
            let more = self.received();
            self.post(self.free.len());
            if more.is_empty() {
                return packets;
            }
            packets.extend(more);
        }
    }

    /// Chains of the transmit queue that came back since last asked.
    pub(super) fn transmitted(&mut self) -> usize {
        let before = self.tx_done;
        while self.driver.used(TX).is_some() {
            self.tx_done += 1;
        }
        self.tx_done - before
    }

    pub(super) fn connect(&mut self, buf_alloc: u32) {
        self.send(&Header { buf_alloc, ..packet(op::REQUEST, 0) }, &[]);
        let packets = self.settle();
        assert_eq!(packets[0].0.op, op::RESPONSE);
        assert_eq!(packets[0].0.buf_alloc, BUFFER);
    }

    pub(super) fn data(&mut self, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap();
        self.send(&Header { len, ..packet(op::RW, 0) }, payload);
    }

    pub(super) fn writes(&self) -> bool {
        self.device.host_files().iter().any(|file| file.write)
    }

    pub(super) fn reads(&self) -> bool {
        self.device.host_files().iter().any(|file| file.read)
    }
}

/// Tokens of the files that are ready; waits for the first for half a minute at most.
pub(super) fn ready(files: &[HostFile], wait: bool) -> Vec<u32> {
    let epoll = Epoll::new().unwrap();
    for file in files {
        assert!(file.read || file.write, "a file without interest");
        let mut events = EventSet::empty();
        events.set(EventSet::IN, file.read);
        events.set(EventSet::OUT, file.write);
        let event = EpollEvent::new(events, u64::from(file.token));
        epoll.ctl(ControlOperation::Add, file.fd, event).unwrap();
    }
    let mut events = vec![EpollEvent::default(); files.len() + 1];
    let count = epoll.wait(if wait { 30_000 } else { 0 }, &mut events).unwrap();
    events[..count].iter().map(|event| event.data() as u32).collect()
}

pub(super) fn packet(op: u16, flags: u32) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: PORT,
        kind: STREAM,
        op,
        flags,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

pub(super) fn ops(packets: &[Packet]) -> Vec<u16> {
    packets.iter().map(|(header, _)| header.op).collect()
}

pub(super) fn payload(packets: &[Packet]) -> Vec<u8> {
    packets.iter().flat_map(|(_, payload)| payload.clone()).collect()
}

/// Bytes that repeat only after a long time, from `at` on.
pub(super) fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Reads to the end, which must be one and no error.
pub(super) fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Fills buffer and stream: sends within the credit until there is none; returns the bytes sent.
pub(super) fn fill(guest: &mut Guest) -> usize {
    let (mut sent, mut forwarded) = (0, 0);
    loop {
        let room = BUFFER as usize - (sent - forwarded);
        if room == 0 {
            return sent;
        }
        let len = room.min(PAYLOAD);
        guest.data(&pattern(sent, len));
        sent += len;
        for (header, _) in guest.settle() {
            forwarded = header.fwd_cnt as usize;
        }
    }
}
