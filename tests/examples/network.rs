//! The Python example, and the sample policy, which is for it.

use super::{documented, root, shell, support};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use support::Sbx;

const LINE: &str = "hello from a sandbox\n";

/// An address of this machine that no other test uses.
fn own_address() -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, 1).into()
}

fn localhost() -> IpAddr {
    ("localhost", 0).to_socket_addrs().unwrap().next().unwrap().ip()
}

fn free_port(ip: IpAddr) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

/// A command of fetch.py, for `host` instead of `of`.
#[track_caller]
fn fetch(command: &str, of: (&str, &str), host: &str, port: u16) -> Sbx {
    let port = port.to_string();
    let command = documented("python/fetch.py", command);
    let (name, number) = of;
    let grant = format!("{name}:{number}");
    let arguments = format!("{name} {number}");
    assert!(command.contains(&grant) && command.contains(&arguments));
    shell(
        &command
            .replace(&grant, &format!("{host}:{port}"))
            .replace(&arguments, &format!("{host} {port}")),
    )
}

#[test]
fn over_tcp() {
    let server = TcpListener::bind((localhost(), 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut caller, _) = server.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&caller).read_line(&mut line).unwrap();
        caller.write_all(b"pleased to meet you\n").unwrap();
        line
    });
    let command = "sbx run --allow-net example.com:80 target/examples/fetch.wasm example.com 80";
    let end = fetch(command, ("example.com", "80"), "localhost", port).end();
    drop(end.status(0).prints("pleased to meet you\n").silent());
    assert_eq!(thread.join().unwrap(), LINE);
}

#[test]
fn over_udp() {
    let server = UdpSocket::bind((own_address(), 0)).unwrap();
    let at = server.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 512];
        let (length, from) = server.recv_from(&mut bytes).unwrap();
        server.send_to(b"pleased to meet you\n", from).unwrap();
        bytes[..length].to_vec()
    });
    let command =
        "sbx run --allow-net 127.0.0.1:9000 target/examples/fetch.wasm 127.0.0.1 9000 udp";
    let end = fetch(command, ("127.0.0.1", "9000"), &at.ip().to_string(), at.port()).end();
    drop(end.status(0).prints("pleased to meet you\n").silent());
    assert_eq!(thread.join().unwrap(), LINE.as_bytes());
}

#[test]
fn lookup() {
    let command =
        "sbx run --allow-net example.com:80 target/examples/fetch.wasm example.com 80 lookup";
    let end = fetch(command, ("example.com", "80"), "localhost", 80).end().status(0).silent();
    assert!(end.out().lines().any(|l| l == localhost().to_string()), "{end}");
}

/// "Without --allow-net or --listen, connecting, sending and listening end in `access-denied`, and a
/// name cannot even be looked up."
#[test]
fn without_its_grants() {
    for arguments in
        ["127.0.0.1 80", "127.0.0.1 80 udp", "example.com 80 lookup", "listen 127.0.0.1 8080"]
    {
        let end = shell(&format!("sbx run target/examples/fetch.wasm {arguments}")).end();
        drop(end.status(1).prints("access-denied\n").says_only(&["grant it with --"]));
    }
}

/// Calls a guest that listens at `at`, and waits for its end.
#[track_caller]
fn call(guest: Sbx, at: SocketAddr) {
    let running = guest.start();
    let ready = format!("listening on {} port {}\n", at.ip(), at.port());
    running.until(&ready);
    let mut caller = TcpStream::connect(at).unwrap();
    caller.write_all(b"anybody there?\n").unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "anybody there?\n");
    drop(running.end().status(0).prints(&format!("{ready}anybody there?\n")).silent());
}

#[test]
fn listening() {
    let ip = own_address();
    let port = free_port(ip);
    let command =
        "sbx run --listen 127.0.0.1:8080 target/examples/fetch.wasm listen 127.0.0.1 8080";
    call(fetch(command, ("127.0.0.1", "8080"), &ip.to_string(), port), (ip, port).into());
}

/// The policy as it is, but for the port, in a directory like its own.
#[test]
fn the_sample_policy() {
    let (ip, dir) = (own_address(), support::tempdir());
    let port = free_port(ip).to_string();
    let policy = fs::read_to_string(root().join("examples/policy.toml")).unwrap();
    let (old, new) = ("\"127.0.0.1:8080\"", format!("\"{ip}:{port}\""));
    assert_eq!(policy.matches(old).count(), 1);
    fs::write(dir.path().join("policy.toml"), policy.replace(old, &new)).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::copy(root().join("examples/data/words.txt"), dir.path().join("data/words.txt")).unwrap();

    let command =
        "sbx run --policy examples/policy.toml target/examples/fetch.wasm listen 127.0.0.1 8080";
    let command = documented("policy.toml", command)
        .replace("examples/policy.toml", dir.path().join("policy.toml").to_str().unwrap())
        .replace("127.0.0.1 8080", &format!("{ip} {port}"));
    call(shell(&command), (ip, port.parse().unwrap()).into());
}

/// Every key of the sample is one that sbx understands, and means what the comments say.
#[test]
fn the_sample_policy_explained() {
    let command = "sbx run --policy examples/policy.toml --explain target/examples/fetch.wasm";
    let end = shell(command).end().status(0).silent();
    for grant in [
        "examples/./data at /data, read-only",
        "variable GREETING",
        "working directory /data",
        "connections to example.com:443",
        "connections to 10.0.0.0/8:8000-8999",
        "listening on 127.0.0.1:8080",
        "standard input",
        "--memory 64 MiB",
        "--timeout 10s",
        "--cpu-time 5s",
        "--cpus 1",
        "--pids 1",
        "--fds 16",
        "--output 1 MiB",
        "--disk 16 MiB",
    ] {
        assert!(end.out().contains(grant), "{grant:?} is missing\n{end}");
    }
    assert!(!end.out().contains("the terminal"), "{end}");
}
