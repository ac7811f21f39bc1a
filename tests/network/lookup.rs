//! `--allow-net` and names: what may be looked up, and what that opens.

use super::servers::{Tcp, free_port};
use super::{answered, fetch, refused};
use std::net::{IpAddr, ToSocketAddrs};

/// The addresses of localhost, in the order in which the guest is to get them.
fn localhost() -> Vec<IpAddr> {
    let mut addresses: Vec<_> =
        ("localhost", 0).to_socket_addrs().unwrap().map(|a| a.ip()).collect();
    addresses.dedup();
    addresses
}

#[test]
fn a_granted_name_is_looked_up() {
    let expected: String = localhost().iter().map(|ip| format!("{ip}\n")).collect();
    for grant in ["--allow-net localhost:80", "--allow-net LocalHost.:80", "--allow-net *:80"] {
        drop(fetch("localhost 80 lookup").flags(grant).end().status(0).prints(&expected).silent());
    }
}

#[test]
fn a_name_that_is_not_granted_is_not_looked_up() {
    for grants in ["", "--allow-net example.com:80", "--allow-net 127.0.0.0/8:*"] {
        let end = fetch("localhost 80 lookup").flags(grants).end();
        refused(end, &["refused the lookup of localhost", "--allow-net localhost:PORT"]);
    }
    // A name is not a domain.
    let end = fetch("www.localhost 80 lookup").flags("--allow-net localhost:80").end();
    refused(end, &["refused the lookup of www.localhost", "--allow-net www.localhost:PORT"]);
}

#[test]
fn a_name_without_an_address_is_no_refusal() {
    let end = fetch("no-such-name.invalid 80 lookup").flags("--allow-net *:80").end();
    drop(end.status(1).prints("name-unresolvable\n").silent());
}

#[test]
fn a_name_opens_its_addresses_on_its_ports() {
    let (granted, other) = (Tcp::on(localhost()[0]), Tcp::on(localhost()[0]));
    let grant = format!("--allow-net localhost:{}", granted.port());
    granted.serve();
    answered(fetch(format!("localhost {}", granted.port())).flags(&grant).end());

    let end = fetch(format!("localhost {}", other.port())).flags(&grant).end();
    refused(end, &[&format!("grant it with --allow-net {}", other.at())]);
    other.saw_nobody();
}

/// The guest has to ask for the name: what a name means is known only then.
#[test]
fn a_name_opens_nothing_before_it_is_looked_up() {
    let server = Tcp::on(localhost()[0]);
    let end = fetch(format!("{} {}", server.at().ip(), server.port()))
        .flags(&format!("--allow-net localhost:{}", server.port()))
        .end();
    refused(end, &[&format!("grant it with --allow-net {}", server.at())]);
    server.saw_nobody();
}

/// What is allowed and nobody serves is the network's own error, and no grant is missing.
#[test]
fn an_error_of_the_network_is_no_refusal() {
    let ip = localhost()[0];
    let port = free_port(ip);
    let end = fetch(format!("localhost {port}")).flags("--allow-net localhost:*").end();
    drop(end.status(1).prints("connection-refused\n").silent());
}
