//! What is refused, how connections end, and what nonsense comes to.

mod guest;
mod stalls;

use std::net::Shutdown;
use std::thread;

use super::packet::{NO_RECEIVE, NO_SEND};
use super::*;
use crate::device::hostile;
use guest::*;

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

/// Numbers below what is asked, the same for the same seed.
fn random(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 8) % below
    }
}

/// Packets at random, with fields that are often nearly right.
#[test]
fn nonsense_neither_stops_nor_grows_the_device() {
    let mut random = random(0x5eed);
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

#[test]
fn chains_at_random_do_no_harm() {
    let pair = || UnixStream::pair().unwrap().0;
    hostile::torture(|| Vsock::new(CID, vec![(PORT, pair())]).unwrap());
}
