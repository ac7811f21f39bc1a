//! A guest's side of the protocol, with room to lie, and what the device makes of it.

use std::net::Shutdown;
use std::thread;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::packet::{NO_RECEIVE, NO_SEND};
use super::*;
use crate::virtio::testing::Driver;

const CID: u64 = 7;
const PORT: u32 = 1024;
const GUEST_PORT: u32 = 5000;
const BUFFER: u32 = connection::BUFFER;
const WRITE: u16 = 2;
/// Places for packets to the device, each larger than any packet.
const PLACES: usize = 16;
const PLACE: u64 = 0x2_0000;

type Packet = (Header, Vec<u8>);

struct Guest {
    driver: Driver,
    device: Vsock,
    places: u64,
    sent: usize,
    tx_done: usize,
    /// Receive buffers: free ones, and those with the device.
    free: Vec<u64>,
    posted: VecDeque<u64>,
    room: u32,
}

impl Guest {
    /// A guest with 24 receive buffers of `room` bytes, posted already, and the host's end of the port.
    fn new(room: u32) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut guest = Self::without_buffers(vec![(PORT, ours)], room);
        guest.post(24);
        (guest, theirs)
    }

    fn without_buffers(ports: Vec<(u32, UnixStream)>, room: u32) -> Self {
        let mut device = Vsock::new(CID, ports).unwrap();
        let mut driver = Driver::new(&mut device);
        let places = driver.buffer(PLACE * PLACES as u64);
        let free = (0..24).map(|_| driver.buffer(u64::from(room))).collect();
        let posted = VecDeque::new();
        Self { driver, device, places, sent: 0, tx_done: 0, free, posted, room }
    }

    fn post(&mut self, count: usize) {
        for address in self.free.drain(..count) {
            self.driver.offer_raw(RX, &[(address, self.room, WRITE)]);
            self.posted.push_back(address);
        }
        self.notify(RX);
    }

    fn notify(&mut self, queue: usize) {
        let Self { driver, device, .. } = self;
        driver.with_io(|io| device.process_queue(queue, io)).unwrap();
    }

    /// Puts a packet into the queue: header and payload in descriptors of their own every other time.
    fn put(&mut self, header: &Header, payload: &[u8]) {
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

    fn send(&mut self, header: &Header, payload: &[u8]) {
        self.put(header, payload);
        self.notify(TX);
    }

    /// Serves ready files as the transport does, until none is ready; fails if that does not end.
    fn serve(&mut self, wait: bool) {
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
    fn received(&mut self) -> Vec<Packet> {
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
    fn settle(&mut self) -> Vec<Packet> {
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
    fn transmitted(&mut self) -> usize {
        let before = self.tx_done;
        while self.driver.used(TX).is_some() {
            self.tx_done += 1;
        }
        self.tx_done - before
    }

    fn connect(&mut self, buf_alloc: u32) {
        self.send(&Header { buf_alloc, ..packet(op::REQUEST, 0) }, &[]);
        let packets = self.settle();
        assert_eq!(packets[0].0.op, op::RESPONSE);
        assert_eq!(packets[0].0.buf_alloc, BUFFER);
    }

    fn data(&mut self, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap();
        self.send(&Header { len, ..packet(op::RW, 0) }, payload);
    }

    fn writes(&self) -> bool {
        self.device.host_files().iter().any(|file| file.write)
    }

    fn reads(&self) -> bool {
        self.device.host_files().iter().any(|file| file.read)
    }
}

/// Tokens of the files that are ready; waits for the first for half a minute at most.
fn ready(files: &[HostFile], wait: bool) -> Vec<u32> {
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

fn packet(op: u16, flags: u32) -> Header {
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

fn ops(packets: &[Packet]) -> Vec<u16> {
    packets.iter().map(|(header, _)| header.op).collect()
}

fn payload(packets: &[Packet]) -> Vec<u8> {
    packets.iter().flat_map(|(_, payload)| payload.clone()).collect()
}

/// Bytes that repeat only after a long time, from `at` on.
fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Reads to the end, which must be one and no error.
fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Fills buffer and stream: sends within the credit until there is none; returns the bytes sent.
fn fill(guest: &mut Guest) -> usize {
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

#[test]
fn one_connection_is_taken_and_all_else_refused() {
    let (mut guest, mut host) = Guest::new(4096);
    let other_port = Header { dst_port: 1, ..packet(op::REQUEST, 0) };
    let other_cid = Header { dst_cid: 3, ..packet(op::REQUEST, 0) };
    let other_type = Header { kind: 2, ..packet(op::REQUEST, 0) };
    let too_early = packet(op::RW, 0);
    for header in [other_port, other_cid, other_type, too_early] {
        guest.send(&header, &[]);
        let answer = Header {
            src_cid: header.dst_cid,
            dst_cid: CID,
            src_port: header.dst_port,
            dst_port: GUEST_PORT,
            kind: header.kind,
            op: op::RST,
            ..Header::default()
        };
        assert_eq!(guest.settle(), [(answer, vec![])], "{header:?}");
    }
    guest.send(&Header { src_cid: 8, ..packet(op::REQUEST, 0) }, &[]);
    guest.send(&packet(op::RST, 0), &[]);
    assert_eq!(guest.settle(), []);

    guest.connect(1 << 20);
    let second = Header { src_port: GUEST_PORT + 1, ..packet(op::REQUEST, 0) };
    guest.send(&second, &[]);
    assert_eq!(guest.settle(), [(second.refusal(), vec![])]);
    guest.data(b"ping");
    host.write_all(b"pong").unwrap();
    let mut ping = [0; 4];
    host.read_exact(&mut ping).unwrap();
    assert_eq!(&ping, b"ping");
    let pong = guest.settle();
    assert_eq!((ops(&pong), payload(&pong)), (vec![op::RW], b"pong".to_vec()));
    assert_eq!(pong[0].0.fwd_cnt, 4);
}

/// The guest's end of a connection that keeps to the protocol.
#[derive(Default)]
struct Peer {
    sent: u32,
    device_fwd: u32,
    taken: u32,
    told: u32,
}

const PEER_BUFFER: u32 = 3000;

impl Peer {
    fn header(&mut self, op: u16) -> Header {
        self.told = self.taken;
        Header { buf_alloc: PEER_BUFFER, fwd_cnt: self.taken, ..packet(op, 0) }
    }

    fn take(&mut self, guest: &mut Guest, packets: &[Packet], bytes: &mut Vec<u8>) {
        for (header, payload) in packets {
            self.device_fwd = header.fwd_cnt;
            self.taken = self.taken.wrapping_add(header.len);
            assert!(self.taken - self.told <= PEER_BUFFER, "more than the guest has room for");
            bytes.extend(payload);
            if header.op == op::CREDIT_REQUEST || self.taken - self.told > PEER_BUFFER / 2 {
                let update = self.header(op::CREDIT_UPDATE);
                guest.send(&update, &[]);
            }
        }
    }
}

#[test]
fn ten_mebibytes_go_both_ways_unharmed() {
    const TOTAL: usize = 10 << 20;
    let (mut guest, host) = Guest::new(HEADER as u32 + 1111);
    let echo = thread::spawn(move || {
        let (mut from, mut to) = (&host, &host);
        io::copy(&mut from, &mut to).unwrap();
        host.shutdown(Shutdown::Write).unwrap();
    });
    guest.connect(PEER_BUFFER);
    let (mut peer, mut back) = (Peer::default(), Vec::new());
    let mut ended = false;
    while back.len() < TOTAL || !ended {
        let sent = peer.sent as usize;
        let room = (BUFFER - (peer.sent - peer.device_fwd)) as usize;
        let len = room.min(5000).min(TOTAL - sent);
        if len > 0 {
            let header = Header { len: len as u32, ..peer.header(op::RW) };
            guest.send(&header, &pattern(sent, len));
            peer.sent += len as u32;
            if peer.sent as usize == TOTAL {
                let end = peer.header(op::SHUTDOWN);
                guest.send(&Header { flags: NO_SEND, ..end }, &[]);
            }
        }
        let mut packets = guest.settle();
        if packets.is_empty() && len == 0 {
            guest.serve(true);
            packets = guest.settle();
            assert!(!packets.is_empty() || guest.writes() || guest.reads(), "nothing moves");
        }
        ended |= packets.iter().any(|(header, _)| header.op == op::RST);
        peer.take(&mut guest, &packets, &mut back);
    }
    echo.join().unwrap();
    assert_eq!(back.len(), TOTAL);
    assert!(back == pattern(0, TOTAL), "what came back is not what was sent");
}

#[test]
fn a_host_that_does_not_read_stalls_the_guest_and_then_resumes() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    let sent = fill(&mut guest);
    assert!(sent > BUFFER as usize);
    assert!(guest.writes(), "nothing would wake the guest");
    // The other direction is not stalled by it.
    (&host).write_all(b"still here").unwrap();
    assert_eq!(payload(&guest.settle()), b"still here");

    let mut bytes = vec![0; sent];
    let mut at = 0;
    let mut told = 0;
    while at < sent {
        at += (&host).read(&mut bytes[at..]).unwrap();
        told = guest.settle().last().map_or(told, |(header, _)| header.fwd_cnt as usize);
    }
    assert!(bytes == pattern(0, sent));
    assert!(sent - told < BUFFER as usize, "the guest does not know of any room");
    assert!(!guest.writes());
    guest.send(&packet(op::CREDIT_REQUEST, 0), &[]);
    let answer = guest.settle();
    assert_eq!(ops(&answer), [op::CREDIT_UPDATE]);
    assert_eq!(answer[0].0.fwd_cnt as usize, sent);
}

#[test]
fn a_guest_beyond_its_credit_is_reset_and_the_host_has_what_was_allowed() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    let sent = fill(&mut guest);
    guest.data(b"!");
    assert_eq!(ops(&guest.settle()), [op::RST]);
    let reader = thread::spawn(move || read_all(&host));
    while guest.writes() {
        guest.serve(true);
    }
    assert!(reader.join().unwrap() == pattern(0, sent));
    guest.data(b"again");
    assert_eq!(ops(&guest.settle()), [op::RST]);
}

#[test]
fn a_guest_that_is_done_sending_still_receives() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    guest.data(b"question");
    guest.send(&packet(op::SHUTDOWN, NO_SEND), &[]);
    assert_eq!(read_all(&host), b"question");
    assert_eq!(guest.settle(), []);
    (&host).write_all(b"answer").unwrap();
    assert_eq!(payload(&guest.settle()), b"answer");
    drop(host);
    let end = guest.settle();
    assert_eq!(ops(&end), [op::SHUTDOWN, op::RST]);
    assert_eq!(end[0].0.flags, NO_SEND);
    assert!(guest.device.host_files().is_empty());
}

#[test]
fn a_host_that_is_done_sending_still_receives() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    (&host).write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let packets = guest.settle();
    assert_eq!(
        (ops(&packets), payload(&packets)),
        (vec![op::RW, op::SHUTDOWN], b"question".into())
    );
    assert_eq!(packets[1].0.flags, NO_SEND);
    guest.data(b"answer");
    guest.send(&packet(op::SHUTDOWN, NO_SEND), &[]);
    assert_eq!(ops(&guest.settle()), [op::RST]);
    assert_eq!(read_all(&host), b"answer");
}

#[test]
fn a_guest_that_receives_no_more_stops_the_host() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    guest.send(&packet(op::SHUTDOWN, NO_RECEIVE), &[]);
    assert_eq!((&host).write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    guest.data(b"but sends");
    guest.send(&packet(op::SHUTDOWN, NO_SEND), &[]);
    assert_eq!(ops(&guest.settle()), [op::RST]);
    assert_eq!(read_all(&host), b"but sends");
}

#[test]
fn a_host_that_went_away_is_told_after_all_that_it_sent() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    (&host).write_all(&pattern(0, 50_000)).unwrap();
    drop(host);
    guest.data(b"to nobody");
    let packets = guest.settle();
    assert!(payload(&packets) == pattern(0, 50_000));
    let last = packets.len() - 2;
    assert_eq!(ops(&packets[last..]), [op::SHUTDOWN, op::RST]);
    assert_eq!(packets[last].0.flags, NO_SEND | NO_RECEIVE);
}

/// Last bytes, and at once the guest's close, its reset, or the device's: the host has every byte.
#[test]
fn last_bytes_arrive_whatever_comes_behind_them() {
    for end in [op::SHUTDOWN, op::RST, op::REQUEST, 0] {
        let (mut guest, host) = Guest::new(4096);
        guest.connect(1 << 20);
        (&host).write_all(b"unread").unwrap();
        let sent = fill(&mut guest);
        // More that the guest will not read: it must not turn the host's end of file into an error.
        (&host).write_all(b"unread").unwrap();
        if end == 0 {
            guest.device.reset();
        } else {
            guest.send(&packet(end, NO_SEND | NO_RECEIVE), &[]);
        }
        assert!(guest.writes(), "{end}");
        let reader = thread::spawn(move || read_all(&host));
        while guest.writes() {
            guest.serve(true);
        }
        assert!(reader.join().unwrap() == pattern(0, sent), "{end}");
        let answer: &[u16] =
            if end == op::SHUTDOWN || end == op::REQUEST { &[op::RST] } else { &[] };
        assert_eq!(ops(&guest.settle()), answer, "{end}");
    }
}

#[test]
fn without_receive_buffers_the_host_waits_and_nothing_spins() {
    let (ours, host) = UnixStream::pair().unwrap();
    let mut guest = Guest::without_buffers(vec![(PORT, ours)], 4096);
    guest.send(&packet(op::REQUEST, 0), &[]);
    (&host).write_all(&pattern(0, 60_000)).unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    guest.serve(false);
    assert!(!guest.reads());
    guest.data(b"the other way");
    let mut bytes = [0; 13];
    (&host).read_exact(&mut bytes).unwrap();
    guest.post(2);
    assert_eq!(ops(&guest.received()), [op::RESPONSE, op::RW]);
    guest.serve(false);
    assert!(!guest.reads());
    guest.post(2);
    let mut packets = guest.received();
    assert_eq!(ops(&packets), [op::RW, op::RW]);
    guest.post(24);
    packets.extend(guest.settle());
    assert_eq!(packets.last().unwrap().0.op, op::SHUTDOWN);
    assert!(payload(&packets) == pattern(4096 - HEADER, 60_000 - (4096 - HEADER)));
}

#[test]
fn refusals_without_receive_buffers_are_bounded_and_none_is_lost() {
    let mut guest = Guest::without_buffers(vec![], 64);
    for _ in 0..REFUSALS {
        guest.send(&packet(op::REQUEST, 0), &[]);
        assert_eq!(guest.transmitted(), 1);
    }
    for _ in 0..20 {
        guest.send(&packet(op::REQUEST, 0), &[]);
    }
    guest.serve(false);
    assert_eq!((guest.transmitted(), guest.device.refusals.len()), (0, REFUSALS));
    let mut refused = 0;
    for _ in 0..(REFUSALS + 20) / 4 {
        guest.post(4);
        guest.serve(false);
        refused += guest.received().iter().filter(|(header, _)| header.op == op::RST).count();
    }
    assert_eq!((refused, guest.transmitted()), (REFUSALS + 20, 20));
}

#[test]
fn a_call_takes_only_so_many_packets_and_asks_for_another() {
    let (mut guest, host) = Guest::new(4096);
    guest.connect(1 << 20);
    guest.transmitted();
    let packets = BATCH + 5;
    let bytes = pattern(0, packets);
    for byte in &bytes {
        let at = guest.driver.buffer(HEADER as u64 + 1);
        let header = Header { len: 1, ..packet(op::RW, 0) };
        guest.driver.mem.write_slice(&header.bytes(), GuestAddress(at)).unwrap();
        guest.driver.mem.write_slice(&[*byte], GuestAddress(at + HEADER as u64)).unwrap();
        guest.driver.offer_raw(TX, &[(at, HEADER as u32 + 1, 0)]);
    }
    guest.notify(TX);
    assert_eq!(guest.transmitted(), BATCH);
    guest.serve(false);
    assert_eq!(guest.transmitted(), 5);
    let mut read = vec![0; packets];
    (&host).read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn a_guest_without_credit_is_asked_once_and_then_has_what_it_gave() {
    let (mut guest, host) = Guest::new(4096);
    (&host).write_all(&pattern(0, 1000)).unwrap();
    guest.send(&Header { buf_alloc: 0, ..packet(op::REQUEST, 0) }, &[]);
    assert_eq!(ops(&guest.settle()), [op::RESPONSE, op::CREDIT_REQUEST]);
    let update = packet(op::CREDIT_UPDATE, 0);
    guest.send(&Header { buf_alloc: 0, ..update }, &[]);
    assert_eq!(guest.settle(), []);
    // More read than was sent makes no sense, and is no credit.
    guest.send(&Header { buf_alloc: 100, fwd_cnt: 1000, ..update }, &[]);
    assert_eq!(guest.settle(), []);
    guest.send(&Header { buf_alloc: 300, ..update }, &[]);
    let packets = guest.settle();
    assert_eq!(ops(&packets), [op::RW, op::CREDIT_REQUEST]);
    assert_eq!(payload(&packets), pattern(0, 300));
    assert!(!guest.reads());
    guest.send(&Header { buf_alloc: 2000, fwd_cnt: 300, ..update }, &[]);
    assert_eq!(payload(&guest.settle()), pattern(300, 700));
    assert!(guest.reads());
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_only() {
    let unknown = packet(99, 0);
    let short = Header { len: 5, ..packet(op::RW, 0) };
    let long = Header { len: PAYLOAD as u32 + 1, ..packet(op::RW, 0) };
    let longest = Header { len: u32::MAX, ..packet(op::CREDIT_UPDATE, 0) };
    for header in [unknown, short, long, longest, packet(op::RESPONSE, 0), packet(0, 0)] {
        let (mut guest, host) = Guest::new(4096);
        guest.connect(1 << 20);
        guest.data(b"before");
        guest.send(&header, b"four");
        assert_eq!(ops(&guest.settle()), [op::RST], "{header:?}");
        assert_eq!(read_all(&host), b"before");
        assert!(guest.device.host_files().is_empty());
    }
    let (mut guest, _host) = Guest::new(4096);
    guest.connect(1 << 20);
    guest.send(&packet(op::SHUTDOWN, NO_SEND), &[]);
    guest.data(b"after its end");
    assert_eq!(ops(&guest.settle()), [op::RST]);
}

#[test]
fn chains_too_short_for_a_header_are_dropped_or_end_the_device() {
    let (mut guest, mut host) = Guest::new(4096);
    guest.connect(1 << 20);
    guest.transmitted();
    guest.driver.offer(TX, &[&[1; HEADER - 1]], &[]);
    guest.driver.offer(TX, &[], &[4096]);
    guest.notify(TX);
    assert_eq!(guest.transmitted(), 2);
    guest.data(b"fine");
    let mut bytes = [0; 4];
    host.read_exact(&mut bytes).unwrap();
    for room in [0, 1, HEADER as u32] {
        let mut guest = Guest::without_buffers(vec![], 64);
        guest.driver.offer(RX, &[], &[room]);
        let Guest { driver, device, .. } = &mut guest;
        let result = driver.with_io(|io| device.process_queue(RX, io));
        assert!(matches!(result, Err(DeviceError::Protocol(_))), "{room}");
    }
}

/// The last bytes are the host's also when the guest's next act is to break its queue.
#[test]
fn a_broken_queue_ends_the_device_after_what_came_before() {
    let (mut guest, mut host) = Guest::new(4096);
    guest.connect(1 << 20);
    guest.put(&Header { len: 4, ..packet(op::RW, 0) }, b"last");
    guest.driver.offer_raw(TX, &[(u64::MAX - 10, 4096, 0)]);
    let Guest { driver, device, .. } = &mut guest;
    assert!(driver.with_io(|io| device.process_queue(TX, io)).is_err());
    let mut bytes = [0; 4];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"last");
}

#[test]
fn a_reset_device_serves_the_ports_that_were_not_used() {
    let (ours, host) = UnixStream::pair().unwrap();
    let (ours2, _host2) = UnixStream::pair().unwrap();
    let mut guest = Guest::without_buffers(vec![(PORT, ours), (PORT + 1, ours2)], 4096);
    guest.post(24);
    guest.connect(1 << 20);
    guest.send(&Header { dst_port: 1, ..packet(op::REQUEST, 0) }, &[]);
    guest.device.reset();
    assert!(guest.device.host_files().is_empty());
    assert_eq!(read_all(&host), b"");
    assert_eq!((&host).write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    guest.settle();
    guest.send(&packet(op::REQUEST, 0), &[]);
    assert_eq!(ops(&guest.settle()), [op::RST]);
    guest.send(&Header { dst_port: PORT + 1, ..packet(op::REQUEST, 0) }, &[]);
    assert_eq!(ops(&guest.settle()), [op::RESPONSE]);
}

#[test]
fn two_connections_share_the_receive_queue() {
    let (ours, host) = UnixStream::pair().unwrap();
    let (ours2, host2) = UnixStream::pair().unwrap();
    let mut guest = Guest::without_buffers(vec![(PORT, ours), (PORT + 1, ours2)], 1000);
    guest.post(4);
    guest.send(&packet(op::REQUEST, 0), &[]);
    guest.send(&Header { dst_port: PORT + 1, ..packet(op::REQUEST, 0) }, &[]);
    (&host).write_all(&[1; 5000]).unwrap();
    (&host2).write_all(&[2; 5000]).unwrap();
    guest.serve(false);
    guest.received();
    guest.post(4);
    guest.serve(false);
    let ports: Vec<_> = guest.received().iter().map(|(header, _)| header.src_port).collect();
    assert!(ports.contains(&PORT) && ports.contains(&(PORT + 1)), "{ports:?}");
}

#[test]
fn it_is_made_only_of_what_makes_sense() {
    for cid in [0, 1, 2, u64::from(u32::MAX), 1 << 32] {
        assert!(Vsock::new(cid, vec![]).is_err(), "{cid}");
    }
    let pair = UnixStream::pair().unwrap();
    assert!(Vsock::new(3, vec![(1, pair.0), (1, pair.1)]).is_err());
    let device = Vsock::new(0x0123_4567, vec![]).unwrap();
    let mut config = [0xff; 12];
    device.read_config(0, &mut config);
    assert_eq!(config, [0x67, 0x45, 0x23, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((device.kind(), device.features(), device.queue_sizes().len()), (19, 0, 3));
}

/// Packets and chains at random, with fields that are often nearly right.
#[test]
fn nonsense_neither_stops_nor_grows_the_device() {
    let mut seed = 0x5eed_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut connections = 0;
    for _ in 0..200 {
        let (mut guest, host) = Guest::new(200);
        host.set_nonblocking(true).unwrap();
        for _ in 0..100 {
            let mut header = packet(random(9) as u16, random(4) as u32);
            header.src_port += random(2) as u32;
            header.len = random(300) as u32;
            header.buf_alloc = [0, 1, 4096, u32::MAX][random(4) as usize];
            header.fwd_cnt = [0, 1, u32::MAX][random(3) as usize];
            match random(12) {
                0 => header.kind = random(4) as u16,
                1 => header.dst_cid = random(5),
                2 => header.src_cid = random(10),
                3 => header.len = random(1 << 32) as u32,
                4 => header.dst_port = random(2000) as u32,
                _ => {}
            }
            let bytes = vec![7; header.len.min(256) as usize];
            guest.send(&header, &bytes);
            let _ = (&host).write(&[8; 100]);
            let _ = (&host).read(&mut [0; 100]);
            let packets = guest.settle();
            connections += ops(&packets).iter().filter(|op| **op == op::RESPONSE).count();
            assert!(guest.device.refusals.len() <= REFUSALS);
            if let State::Open(connection) = &guest.device.ports[0].state {
                assert!(connection.host.kept() <= BUFFER as usize);
            }
        }
        assert_eq!(guest.transmitted(), 100);
    }
    assert!(connections > 50, "the nonsense was too much to reach a connection: {connections}");
}
