//! The other side: servers that answer one line, and know who came.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// A server that nobody comes to is given up after this.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the servers answer to `line`.
pub(crate) fn answer(line: &str) -> String {
    format!("you said: {line}")
}

/// An address of this machine that no other test uses: the process and a count in 127.0.0.0/8.
pub(crate) fn own_address() -> IpAddr {
    static COUNT: AtomicU16 = AtomicU16::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) as u8;
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, count).into()
}

/// A port of `ip` that nothing uses.
pub(crate) fn free_port(ip: IpAddr) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

/// Listens for TCP connections, which wait in its queue until they are answered.
pub(crate) struct Tcp(TcpListener);

impl Tcp {
    pub(crate) fn on(ip: IpAddr) -> Self {
        Self(TcpListener::bind((ip, 0)).unwrap())
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.at().port()
    }

    /// Answers the next caller, in a thread.
    pub(crate) fn serve(&self) {
        self.0.set_nonblocking(false).unwrap();
        let listener = self.0.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut caller, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&caller).read_line(&mut line).unwrap();
            caller.write_all(answer(&line).as_bytes()).unwrap();
        });
    }

    /// Fails if anybody has connected and not been served.
    #[track_caller]
    pub(crate) fn saw_nobody(&self) {
        self.0.set_nonblocking(true).unwrap();
        match self.0.accept() {
            Ok((_, from)) => panic!("{from} has connected"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// Receives UDP datagrams.
pub(crate) struct Udp(UdpSocket);

impl Udp {
    pub(crate) fn on(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Answers the next datagram, in a thread; before that, `stranger` sends a lie to whoever sent it.
    pub(crate) fn serve(&self, stranger: Option<UdpSocket>) {
        self.0.set_nonblocking(false).unwrap();
        let socket = self.0.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            if let Some(stranger) = stranger {
                stranger.send_to(b"a lie\n", from).unwrap();
            }
            let line = std::str::from_utf8(&bytes[..length]).unwrap();
            socket.send_to(answer(line).as_bytes(), from).unwrap();
        });
    }

    /// Fails if a datagram has come and not been answered.
    #[track_caller]
    pub(crate) fn saw_nobody(&self) {
        self.0.set_nonblocking(true).unwrap();
        match self.0.recv_from(&mut [0; 512]) {
            Ok((_, from)) => panic!("{from} has sent something"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }
}
