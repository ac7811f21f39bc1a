//! `--listen`: which address and port a server may have.

use super::servers::{free_port, own_address};
use super::{LINE, fetch, refused};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

/// Lets the guest listen on `ip` and `port` with these grants, and calls it.
#[track_caller]
fn serves(ip: IpAddr, port: u16, grants: &str) {
    let running = fetch(format!("listen {ip} {port}")).flags(grants).start();
    let ready = format!("listening on {ip} port {port}\n");
    running.until(&ready);
    let mut caller = TcpStream::connect((ip, port)).unwrap();
    caller.write_all(LINE.as_bytes()).unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, LINE);
    drop(running.end().status(0).prints(&format!("{ready}{LINE}")).silent());
}

/// The guest may not listen there; the hint names what `hint` says.
#[track_caller]
fn may_not(ip: IpAddr, port: u16, grants: &str, hint: &str) {
    refused(fetch(format!("listen {ip} {port}")).flags(grants).end(), &[hint]);
    if port != 0 {
        let error = TcpStream::connect((ip, port)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn exactly_the_granted_address_serves() {
    let ip = own_address();
    let port = free_port(ip);
    serves(ip, port, &format!("--listen {ip}:{port}"));
}

#[test]
fn port_0_is_every_port_of_the_address() {
    let ip = own_address();
    let port = free_port(ip);
    serves(ip, port, &format!("--listen {ip}:0"));
    let other = own_address();
    let port = free_port(other);
    let hint =
        format!("refused listening on {other}:{port}; grant it with --listen {other}:{port}");
    may_not(other, port, &format!("--listen {ip}:0"), &hint);
}

#[test]
fn nothing_listens_without_a_grant() {
    let ip = own_address();
    let port = free_port(ip);
    may_not(ip, port, "", &format!("grant it with --listen {ip}:{port}"));
    may_not(ip, 0, "", "--listen ADDRESS:PORT for a server");
}

#[test]
fn another_port_or_address_does_not_serve() {
    let (ip, other) = (own_address(), own_address());
    let (port, granted) = (free_port(ip), free_port(other));
    let hint = format!("grant it with --listen {ip}:{port}");
    may_not(ip, port, &format!("--listen {ip}:{}", port ^ 1), &hint);
    may_not(ip, port, &format!("--listen {other}:{granted}"), &hint);
    // Every address is more than one of them.
    let every = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let hint = format!("grant it with --listen {every}:{port}");
    may_not(every, port, &format!("--listen {ip}:{port}"), &hint);
}

/// A client may have any port of its own, but may not accept connections on it.
#[test]
fn a_client_does_not_serve() {
    let ip = own_address();
    let port = free_port(ip);
    may_not(ip, port, "--allow-net *:*", &format!("grant it with --listen {ip}:{port}"));
    may_not(ip, 0, "--allow-net *:*", &format!("grant it with --listen {ip}:"));
}

/// And a server may not call anybody.
#[test]
fn a_server_does_not_connect() {
    let server = super::servers::Tcp::on(own_address());
    let (ip, port) = (server.at().ip(), server.port());
    refused(
        fetch(format!("{ip} {port}")).flags(&format!("--listen {ip}:{port}")).end(),
        &["--allow-net"],
    );
    server.saw_nobody();
}
