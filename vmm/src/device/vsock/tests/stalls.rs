//! Who waits for what, and that it comes.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use vm_memory::{Bytes, GuestAddress};

use super::super::packet::{HEADER, Header, NO_SEND, op};
use super::super::{BATCH, REFUSALS, TX};
use super::guest::*;
use super::random;

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
    // Buffers for some make room for the packets that were left, without another word of the driver's.
    guest.post(24);
    guest.serve(false);
    assert_eq!(guest.transmitted(), 20);
    let refused = guest.settle();
    assert!(refused.iter().all(|(header, _)| header.op == op::RST));
    assert_eq!(refused.len(), REFUSALS + 20);
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

/// Every schedule of who sends, reads and gives room when must come to the same end. Nothing here runs
/// beside it, so that a round in which nothing moves is a deadlock.
#[test]
fn no_schedule_loses_bytes_or_stops() {
    for seed in 1..30 {
        let (ours, host) = UnixStream::pair().unwrap();
        for end in [&ours, &host] {
            rustix::net::sockopt::set_socket_send_buffer_size(end, 8192).unwrap();
            end.set_nonblocking(true).unwrap();
        }
        let mut guest = Guest::without_buffers(vec![(PORT, ours)], 1500);
        let mut both =
            Both { host, peer: Peer::default(), to_host: 0, from_host: 0, to_guest: vec![] };
        guest.send(&both.peer.header(op::REQUEST), &[]);
        let mut random = random(seed);
        while both.step(&mut guest, &mut random) {}
        assert_eq!(both.to_host, TOTAL, "{seed}");
        assert!(both.to_guest == pattern(0, TOTAL), "{seed}");
    }
}

const TOTAL: usize = 400_000;

struct Both {
    host: UnixStream,
    peer: Peer,
    to_host: usize,
    from_host: usize,
    to_guest: Vec<u8>,
}

impl Both {
    /// Some of the possible moves, or all if none of those did anything; false when all is done.
    fn step(&mut self, guest: &mut Guest, random: &mut impl FnMut(u64) -> u64) -> bool {
        let before = self.progress();
        let bits = random(32);
        for moves in [bits, 31, 31] {
            for at in 0..5 {
                if moves >> at & 1 == 1 {
                    self.act(at, guest, 1 + random(40_000) as usize);
                }
            }
            if self.progress() != before {
                return true;
            }
        }
        assert_eq!(before, (TOTAL, TOTAL, TOTAL, TOTAL), "a deadlock");
        false
    }

    fn progress(&self) -> (usize, usize, usize, usize) {
        (self.peer.sent as usize, self.to_host, self.from_host, self.to_guest.len())
    }

    fn act(&mut self, action: u32, guest: &mut Guest, most: usize) {
        match action {
            0 => {
                let sent = self.peer.sent as usize;
                let room = (BUFFER - (self.peer.sent - self.peer.device_fwd)) as usize;
                let len = most.min(room).min(TOTAL - sent);
                if len > 0 {
                    let header = Header { len: len as u32, ..self.peer.header(op::RW) };
                    guest.send(&header, &pattern(sent, len));
                    self.peer.sent += len as u32;
                }
            }
            1 => {
                let bytes = pattern(self.from_host, most.min(TOTAL - self.from_host));
                self.from_host += (&self.host).write(&bytes).unwrap_or(0);
            }
            2 => {
                let mut bytes = vec![0; most];
                let len = (&self.host).read(&mut bytes).unwrap_or(0);
                assert!(bytes[..len] == pattern(self.to_host, len));
                self.to_host += len;
            }
            3 => {
                let packets = guest.received();
                self.peer.take(guest, &packets, &mut self.to_guest);
                guest.post((1 + most % 4).min(guest.free.len()));
            }
            _ => guest.serve(false),
        }
    }
}
