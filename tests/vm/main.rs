//! What only microVMs do: kernels, root file systems, disks, devices, the guest's end, and hostile guests.
//!
//! Every test here needs a real KVM. Where this host has none, the test runner runs it in the test bed's
//! nested machine (`.config/nextest.toml`); run by hand without a KVM, a test fails with sbx's own
//! sentence about that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod confinement;
mod death;
mod disks;
mod doctor;
mod hostile;
mod kernels;
mod network;
mod own_init;
mod program;
mod root;
mod terminal;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use support::{Sbx, root as repository};

/// The kernel that was built for microVMs.
fn tuned() -> PathBuf {
    repository().join("target/kernel/vmlinux")
}

/// A run of the guest's own command line on the tuned kernel.
fn guest(words: &str) -> Sbx {
    Sbx::run(tuned()).flags("--vm").args(words.split_whitespace())
}

/// A guest without Linux (tests/guests/bare), with this order.
fn bare(order: &str) -> Sbx {
    let guest = repository().join("target/guests/bare");
    Sbx::run(guest).flags("--vm --memory 64M").flag("--cmdline", format!("do={order}"))
}

/// Makes a small root file system in `dir`: busybox, two users, and a file.
fn make_root(dir: &Path) {
    for name in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "mnt", "root", "data"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    for name in [
        "cat", "chmod", "dd", "dmesg", "env", "grep", "head", "id", "ls", "mount", "nc", "nproc",
        "poweroff", "pwd", "reboot", "rm", "seq", "sh", "sleep", "stat", "stty", "sync", "tail",
        "touch", "tr", "wc",
    ] {
        symlink("busybox", dir.join("bin").join(name)).unwrap();
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n";
    std::fs::write(dir.join("etc/passwd"), users).unwrap();
    std::fs::write(dir.join("etc/group"), "root:x:0:\nweb:x:34:\nmail:x:8:web\n").unwrap();
    std::fs::write(dir.join("data/hello"), "hello\n").unwrap();
}

/// A run of a shell script in a guest on the tuned kernel. It needs a root with a shell.
fn shell(script: &str) -> Sbx {
    Sbx::run("/bin/sh").flag("--kernel", tuned()).args(["-c", script])
}

/// A directory with a small root file system.
fn small_root() -> tempfile::TempDir {
    let dir = support::tempdir();
    make_root(dir.path());
    dir
}
