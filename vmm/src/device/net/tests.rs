use super::*;
use crate::device::hostile;
use crate::device::rate::Limit;
use crate::virtio::testing::Driver;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

/// One end of a pair of sockets that keep packets apart, as a TAP device does.
struct Wire {
    end: UnixDatagram,
    offload: Arc<Mutex<Offload>>,
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl Link for Wire {
    fn set_offload(&self, offload: Offload) -> io::Result<()> {
        *self.offload.lock().unwrap() = offload;
        Ok(())
    }
}

const OPTIONS: NetOptions = NetOptions { mac: [2, 1, 2, 3, 4, 5], receive: None, send: None };

struct Nic {
    net: Net<Wire>,
    driver: Driver,
    far: UnixDatagram,
    offload: Arc<Mutex<Offload>>,
}

fn wired(options: NetOptions) -> (Net<Wire>, UnixDatagram, Arc<Mutex<Offload>>) {
    let (end, far) = UnixDatagram::pair().unwrap();
    end.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let offload = Arc::default();
    let net = Net::new(Wire { end, offload: Arc::clone(&offload) }, options).unwrap();
    (net, far, offload)
}

fn nic(options: NetOptions) -> Nic {
    let (mut net, far, offload) = wired(options);
    let driver = Driver::new(&mut net);
    Nic { net, driver, far, offload }
}

fn packet(len: usize, fill: u8) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet.resize(HEADER + len, fill);
    packet
}

impl Nic {
    fn kick(&mut self, queue: usize) {
        let Self { net, driver, .. } = self;
        driver.with_io(|io| net.process_queue(queue, io)).unwrap();
    }

    fn listens(&self) -> bool {
        self.net.host_files().iter().any(|file| file.token == LINK && file.read)
    }

    fn far_end(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; LONGEST + 1];
        let len = self.far.recv(&mut bytes).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }
}

#[test]
fn packets_leave_as_they_are() {
    let mut nic = nic(OPTIONS);
    let sent = packet(1000, 7);
    let (header, body) = sent.split_at(HEADER);
    nic.driver.offer(TX, &[header, &body[..1], &body[1..]], &[]);
    nic.driver.offer(TX, &[&packet(65000, 8)], &[]);
    nic.kick(TX);
    assert_eq!([nic.driver.used(TX), nic.driver.used(TX)], [Some(0), Some(0)]);
    assert_eq!(nic.far_end().unwrap(), sent);
    assert_eq!(nic.far_end().unwrap(), packet(65000, 8));
}

#[test]
fn packets_arrive_when_there_is_room() {
    let mut nic = nic(OPTIONS);
    nic.far.send(&packet(100, 1)).unwrap();
    nic.far.send(&packet(200, 2)).unwrap();
    assert!(!nic.listens());
    let first = nic.driver.offer(RX, &[], &[1526])[0];
    nic.kick(RX);
    assert_eq!([nic.driver.used(RX), nic.driver.used(RX)], [Some(112), None]);
    assert_eq!(nic.driver.bytes(first + 10, 102), [&[1, 0][..], &[1; 100]].concat());
    assert!(!nic.listens(), "no room, so nothing is read");
    let second = nic.driver.offer(RX, &[], &[1526])[0];
    nic.driver.offer(RX, &[], &[1526]);
    nic.kick(RX);
    assert_eq!([nic.driver.used(RX), nic.driver.used(RX)], [Some(212), None]);
    assert_eq!(nic.driver.bytes(second + 12, 200), [2; 200]);
    assert!(nic.listens());
    nic.far.send(&packet(300, 3)).unwrap();
    hostile::serve_host(&mut nic.net, &mut nic.driver);
    assert_eq!(nic.driver.used(RX), Some(312));
}

#[test]
fn a_packet_goes_over_several_chains() {
    let mut nic = nic(OPTIONS);
    nic.far.send(&packet(88, 9)).unwrap();
    let first = nic.driver.offer(RX, &[], &[40])[0];
    let second = nic.driver.offer(RX, &[], &[40])[0];
    nic.kick(RX);
    assert_eq!(nic.driver.used(RX), None, "not before all of it fits");
    assert!(!nic.listens());
    let taken = nic.driver.queues[RX].pop(&nic.driver.mem).unwrap();
    assert!(taken.is_none(), "put back, they would keep the driver from notifying of more");
    let third = nic.driver.offer(RX, &[], &[40])[0];
    nic.kick(RX);
    assert_eq!([(); 3].map(|()| nic.driver.used(RX)), [Some(40), Some(40), Some(20)]);
    assert_eq!(nic.driver.bytes(first + 10, 30), [&[3, 0][..], &[9; 28]].concat());
    assert_eq!([nic.driver.bytes(second, 40), nic.driver.bytes(third, 20)].concat(), [9; 60]);
}

#[test]
fn without_merging_what_does_not_fit_is_lost() {
    let mut nic = nic(OPTIONS);
    let Nic { net, driver, .. } = &mut nic;
    net.reset();
    driver.with_io(|io| net.activate(F_MAC, io)).unwrap();
    nic.far.send(&packet(100, 1)).unwrap();
    nic.far.send(&packet(10, 2)).unwrap();
    let room = nic.driver.offer(RX, &[], &[64])[0];
    nic.kick(RX);
    assert_eq!(nic.driver.used(RX), Some(22));
    assert_eq!(nic.driver.bytes(room + 10, 12), [&[1, 0][..], &[2; 10]].concat());
}

#[test]
fn the_link_hears_what_was_negotiated() {
    let mut nic = nic(OPTIONS);
    assert_eq!(*nic.offload.lock().unwrap(), Offload { checksum: true, tso4: true, tso6: true });
    let Nic { net, driver, .. } = &mut nic;
    net.reset();
    driver.with_io(|io| net.activate(F_GUEST_CSUM | F_GUEST_TSO6, io)).unwrap();
    assert_eq!(*nic.offload.lock().unwrap(), Offload { checksum: true, tso4: false, tso6: true });
}

#[test]
fn what_is_no_packet_is_not_sent() {
    let mut nic = nic(OPTIONS);
    nic.driver.offer(TX, &[&[0; HEADER]], &[]);
    nic.driver.offer(TX, &[b"short"], &[]);
    nic.driver.offer(TX, &[&vec![0; LONGEST + 1]], &[]);
    nic.driver.offer(TX, &[], &[100]);
    nic.driver.offer(TX, &[&packet(60, 4)], &[]);
    nic.kick(TX);
    assert_eq!([(); 5].map(|()| nic.driver.used(TX)), [Some(0); 5]);
    assert_eq!(nic.far_end().unwrap(), packet(60, 4));
    assert_eq!(nic.far_end(), None);
    nic.far.send(&[0; HEADER]).unwrap();
    nic.driver.offer(RX, &[], &[100]);
    nic.kick(RX);
    assert_eq!(nic.driver.used(RX), None);
}

#[test]
fn a_full_link_is_waited_for() {
    let mut nic = nic(OPTIONS);
    let mut sent = 0;
    while nic.net.host_files().is_empty() {
        nic.driver.offer(TX, &[&packet(4000, sent)], &[]);
        nic.kick(TX);
        sent += 1;
        assert!(sent < 255, "the link never fills");
    }
    while nic.driver.used(TX).is_some() {}
    let mut got = 0;
    while let Some(bytes) = nic.far_end() {
        assert_eq!(bytes, packet(4000, got));
        got += 1;
    }
    assert_eq!(got, sent - 1);
    hostile::serve_host(&mut nic.net, &mut nic.driver);
    assert_eq!(nic.driver.used(TX), Some(0));
    assert_eq!(nic.far_end().unwrap(), packet(4000, sent - 1));
    assert!(nic.net.host_files().is_empty());
}

#[test]
fn both_ways_have_their_rate() {
    let limit = Limit { per_second: NonZeroU64::MIN, burst: 1 };
    let rate = Some(Rate { operations: Some(limit), bytes: None });
    let mut nic = nic(NetOptions { receive: rate, send: rate, ..OPTIONS });
    for fill in 0..2 {
        nic.driver.offer(TX, &[&packet(60, fill)], &[]);
        nic.driver.offer(RX, &[], &[100]);
        nic.far.send(&packet(61, fill)).unwrap();
    }
    nic.kick(TX);
    nic.kick(RX);
    for (queue, len) in [(TX, 0), (RX, 73)] {
        assert_eq!([nic.driver.used(queue), nic.driver.used(queue)], [Some(len), None]);
    }
    assert!(!nic.listens());
    hostile::serve_host(&mut nic.net, &mut nic.driver);
    while nic.net.host_files().iter().any(|file| file.token != LINK) {
        hostile::serve_host(&mut nic.net, &mut nic.driver);
    }
    assert_eq!([nic.driver.used(TX), nic.driver.used(RX)], [Some(0), Some(73)]);
}

#[test]
fn a_timer_that_fired_is_listened_to_no_longer() {
    let limit = Limit { per_second: NonZeroU64::MIN, burst: 1 };
    let rate = Some(Rate { operations: Some(limit), bytes: None });
    let mut nic = nic(NetOptions { send: rate, ..OPTIONS });
    for _ in 0..2 {
        nic.driver.offer(TX, &[&packet(60, 1)], &[]);
    }
    nic.kick(TX);
    assert_eq!(nic.net.host_files()[0].token, TX_TIMER);
    // The guest takes back what it offered, which no honest one does.
    nic.driver.queues[TX] = Queue::new(64).unwrap();
    hostile::serve_host(&mut nic.net, &mut nic.driver);
    assert!(nic.net.host_files().is_empty());
}

#[test]
fn addresses_are_stable_and_local() {
    assert_eq!(mac_of("tap0"), mac_of("tap0"));
    assert_ne!(mac_of("tap0"), mac_of("tap1"));
    for name in ["", "a", "tap0", "tap1", "x"] {
        assert_eq!(mac_of(name)[0] & 3, 2, "{name}");
    }
    let mut config = [0xff; 8];
    nic(OPTIONS).net.read_config(0, &mut config);
    assert_eq!(config, [2, 1, 2, 3, 4, 5, 0, 0]);
}

#[test]
fn nonsense_is_survived() {
    let mut far_ends = Vec::new();
    hostile::torture(|| {
        let (net, far, _) = wired(OPTIONS);
        for len in [0, 1, 60, 1500, 9000, 60000] {
            far.send(&packet(len, 1)).unwrap();
        }
        far_ends.push(far);
        net
    });
}
