//! `--net tap=...`: an interface with an address, and the host at the other end. Without it a guest has
//! none.

use crate::support::{is_root, skipped};
use crate::{Executor, on_every_executor, small_root};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

on_every_executor! {
    the_guest_reaches_the_host_and_is_reached,
    without_it_there_is_only_loopback,
}

/// A TAP interface of the host's, with the first address of a network. Two tests may run at once.
struct Tap {
    name: &'static str,
    /// The first three bytes of the network's addresses.
    net: &'static str,
}

impl Tap {
    fn new(on: Executor) -> Self {
        let tap = match on {
            Executor::Kvm => Self { name: "sbxtest0", net: "10.213.7" },
            Executor::Tcg => Self { name: "sbxtest1", net: "10.213.8" },
        };
        let Self { name, net } = tap;
        tap.ip(&["tuntap", "add", "dev", name, "mode", "tap"]);
        tap.ip(&["address", "add", &format!("{net}.1/24"), "dev", name]);
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
        self.ip(&["link", "delete", self.name]);
    }
}

fn the_guest_reaches_the_host_and_is_reached(on: Executor) {
    if !is_root() {
        return skipped("only root can make a TAP interface");
    }
    let tap = Tap::new(on);
    let Tap { name, net } = tap;
    let listener = TcpListener::bind(format!("{net}.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = small_root();
    let script = format!("echo hello | nc {net}.1 {port}; cat /sys/class/net/eth0/operstate");
    let run = on.shell(&script).flag("--rootfs", root.path());
    let interface = format!("tap={name},ip={net}.2/24,gateway={net}.1");
    let server = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"welcome\n").unwrap();
        (from.ip().to_string(), line)
    });
    run.flag("--net", interface).end().status(0).prints("welcome\nup\n").silent();
    assert_eq!(server.join().unwrap(), (format!("{net}.2"), *b"hello\n"));
    let lost = on.shell("true").flag("--rootfs", root.path()).flags("--net tap=nosuchtap0");
    let end = lost.end().status(125);
    end.says_only(&["nosuchtap0"]);
}

fn without_it_there_is_only_loopback(on: Executor) {
    let root = small_root();
    let run = on.shell("ls /sys/class/net; cat /sys/class/net/lo/operstate");
    run.flag("--rootfs", root.path()).end().status(0).prints("lo\nunknown\n").silent();
}
