//! `--net tap=...`: an interface with an address, and the host at the other end. Without it a guest has
//! none.

use crate::support::{is_root, skipped};
use crate::{shell, small_root};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// A TAP interface of the host's, with the address 10.213.7.1/24.
struct Tap(&'static str);

impl Tap {
    fn new(name: &'static str) -> Self {
        let tap = Self(name);
        tap.ip(&["tuntap", "add", "dev", name, "mode", "tap"]);
        tap.ip(&["address", "add", "10.213.7.1/24", "dev", name]);
        tap.ip(&["link", "set", name, "up"]);
        tap
    }

    #[track_caller]
    fn ip(&self, words: &[&str]) {
        let path = "/usr/sbin:/usr/bin:/sbin:/bin";
        let out = Command::new("ip").args(words).env("PATH", path).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ip(&["link", "delete", self.0]);
    }
}

#[test]
fn the_guest_reaches_the_host_and_is_reached() {
    if !is_root() {
        return skipped("only root can make a TAP interface");
    }
    let tap = Tap::new("sbxtest0");
    let listener = TcpListener::bind("10.213.7.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = small_root();
    let script = format!("echo hello | nc 10.213.7.1 {port}; cat /sys/class/net/eth0/operstate");
    let run = shell(&script).flag("--rootfs", root.path());
    let net = format!("tap={},ip=10.213.7.2/24,gateway=10.213.7.1", tap.0);
    let server = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"welcome\n").unwrap();
        (from.ip().to_string(), line)
    });
    run.flag("--net", net).end().status(0).prints("welcome\nup\n").silent();
    assert_eq!(server.join().unwrap(), ("10.213.7.2".to_owned(), *b"hello\n"));
    let lost = shell("true").flag("--rootfs", root.path()).flags("--net tap=nosuchtap0");
    let end = lost.end().status(125);
    end.says_only(&["nosuchtap0"]);
}

#[test]
fn without_it_there_is_only_loopback() {
    let root = small_root();
    let run = shell("ls /sys/class/net; cat /sys/class/net/lo/operstate");
    run.flag("--rootfs", root.path()).end().status(0).prints("lo\nunknown\n").silent();
}
