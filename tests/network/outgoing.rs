//! `--allow-net` and addresses: connections and datagrams.

use super::servers::{Tcp, Udp, own_address};
use super::{answered, fetch, refused, support};
use std::fs;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use support::Sbx;

/// Connects to `server` with these grants.
#[track_caller]
fn connect(server: &Tcp, grants: &str) -> Sbx {
    fetch(format!("{} {}", server.at().ip(), server.port())).flags(grants)
}

#[track_caller]
fn lets_in(server: &Tcp, grants: &str) {
    server.serve();
    answered(connect(server, grants).end());
}

/// The hint names the very connection that was refused, ready to be granted.
#[track_caller]
fn keeps_out(server: &Tcp, grants: &str) {
    let grant = format!("grant it with --allow-net {}", server.at());
    refused(connect(server, grants).end(), &[&grant]);
    server.saw_nobody();
}

#[test]
fn nothing_is_reached_without_a_grant() {
    let (tcp, udp) = (Tcp::on(own_address()), Udp::on(own_address()));
    refused(connect(&tcp, "").end(), &["refused the network", "--allow-net HOST:PORT"]);
    let datagram = fetch(format!("{} {} udp", udp.at().ip(), udp.at().port()));
    refused(datagram.end(), &["refused the network", "--allow-net HOST:PORT"]);
    tcp.saw_nobody();
    udp.saw_nobody();
}

#[test]
fn exactly_the_granted_address_is_reached() {
    let (granted, other) = (Tcp::on(own_address()), Tcp::on(own_address()));
    lets_in(&granted, &format!("--allow-net {}", granted.at()));
    keeps_out(&other, &format!("--allow-net {}", granted.at()));
}

#[test]
fn another_port_of_the_granted_host_is_not_reached() {
    let ip = own_address();
    let (granted, other) = (Tcp::on(ip), Tcp::on(ip));
    keeps_out(&other, &format!("--allow-net {}", granted.at()));
}

#[test]
fn the_granted_port_of_another_host_is_not_reached() {
    let server = Tcp::on(own_address());
    keeps_out(&server, &format!("--allow-net {}:{}", own_address(), server.port()));
}

#[test]
fn each_of_several_grants_counts() {
    let (first, second, other) =
        (Tcp::on(own_address()), Tcp::on(own_address()), Tcp::on(own_address()));
    let grants = format!("--allow-net {} --allow-net {}", first.at(), second.at());
    lets_in(&first, &grants);
    lets_in(&second, &grants);
    keeps_out(&other, &grants);
}

#[test]
fn a_network_holds_its_addresses_only() {
    let server = Tcp::on(own_address());
    let IpAddr::V4(ip) = server.at().ip() else { unreachable!() };
    let [a, b, c, d] = ip.octets();
    let port = server.port();
    lets_in(&server, &format!("--allow-net 127.0.0.0/8:{port}"));
    lets_in(&server, &format!("--allow-net {a}.{b}.{c}.0/24:{port}"));
    keeps_out(&server, &format!("--allow-net {a}.{b}.{}.0/24:{port}", c ^ 1));
    keeps_out(&server, &format!("--allow-net {a}.{b}.{c}.{}/32:{port}", d + 1));
    keeps_out(&server, &format!("--allow-net 10.0.0.0/8:{port}"));
}

#[test]
fn a_range_of_ports_holds_its_ends_and_no_more() {
    let server = Tcp::on(own_address());
    let (ip, port) = (server.at().ip(), server.port());
    lets_in(&server, &format!("--allow-net {ip}:{port}-65535"));
    lets_in(&server, &format!("--allow-net {ip}:1-{port}"));
    keeps_out(&server, &format!("--allow-net {ip}:1-{}", port - 1));
    keeps_out(&server, &format!("--allow-net {ip}:{}-65535", port + 1));
}

#[test]
fn a_star_is_every_host_or_every_port() {
    let server = Tcp::on(own_address());
    let (ip, port) = (server.at().ip(), server.port());
    lets_in(&server, &format!("--allow-net *:{port}"));
    lets_in(&server, &format!("--allow-net {ip}:*"));
    lets_in(&server, "--allow-net *:*");
    keeps_out(&server, &format!("--allow-net *:{}", port - 1));
    keeps_out(&server, &format!("--allow-net {}:*", own_address()));
}

#[test]
fn ipv6() {
    let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
    if UdpSocket::bind((loopback, 0)).is_err() {
        return support::skipped("this machine has no IPv6");
    }
    let server = Tcp::on(loopback);
    let port = server.port();
    lets_in(&server, &format!("--allow-net [::1]:{port}"));
    lets_in(&server, &format!("--allow-net [::]/8:{port}"));
    keeps_out(&server, &format!("--allow-net [::2]:{port}"));
    keeps_out(&server, &format!("--allow-net 127.0.0.1:{port}"));
}

/// An answer counts only if it comes from where the guest may send to.
#[test]
fn datagrams() {
    let (granted, other) = (Udp::on(own_address()), Udp::on(own_address()));
    let grant = format!("--allow-net {}", granted.at());
    let send = |to: &Udp| fetch(format!("{} {} udp", to.at().ip(), to.at().port())).flags(&grant);
    granted.serve(None);
    answered(send(&granted).end());
    granted.serve(Some(UdpSocket::bind((own_address(), 0)).unwrap()));
    answered(send(&granted).end());
    let hint = format!("grant it with --allow-net {}", other.at());
    refused(send(&other).end(), &[&hint]);
    other.saw_nobody();
}

#[test]
fn a_policy_file_grants_the_same() {
    let (granted, other) = (Tcp::on(own_address()), Tcp::on(own_address()));
    let dir = support::tempdir();
    let file = dir.path().join("policy.toml");
    fs::write(&file, format!("allow-net = [\"{}\"]\n", granted.at())).unwrap();
    let policy = format!("--policy {}", file.display());
    lets_in(&granted, &policy);
    keeps_out(&other, &policy);
    // A flag adds to the file.
    lets_in(&other, &format!("{policy} --allow-net {}", other.at()));
}

#[test]
fn a_core_module_is_told_that_it_needs_to_be_a_component() {
    for grant in ["--allow-net 127.0.0.1:80", "--listen 127.0.0.1:80"] {
        Sbx::run(support::root().join("examples/hello.wat"))
            .flags(grant)
            .end()
            .status(125)
            .prints("")
            .says_only(&["--allow-net and --listen need a component", "wasm32-wasip2"]);
    }
}
