//! What only microVMs do: kernels, root file systems, disks, devices, the guest's end, and hostile guests.
//!
//! A machine is the same whoever executes it: a test is a function of an [`Executor`], of which
//! [`on_every_executor!`] makes a test for each. What means something to one of them only is listed apart,
//! with the reason; where both do a thing and differ in it, the test says how.
//!
//! The tests on KVM need a real one. Where this host has none, the test runner runs each in the test bed's
//! nested machine (`.config/nextest.toml`); run by hand without a KVM, a test fails with sbx's own
//! sentence about that. Those under software emulation run wherever QEMU is installed.
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

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use support::{Sbx, root as repository};

/// The kernel that was built for microVMs.
fn tuned() -> PathBuf {
    repository().join("target/kernel/vmlinux")
}

/// Who executes the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executor {
    Kvm,
    /// QEMU's software emulation.
    Tcg,
}

impl Executor {
    /// The flags of `sbx run` that choose it. Not as sbx finds best: a KVM that is lost must not go
    /// unnoticed.
    fn flags(self) -> &'static str {
        match self {
            Self::Kvm => "--accel kvm",
            Self::Tcg => "--accel tcg --quiet",
        }
    }

    /// A run of a workload.
    fn run(self, workload: impl AsRef<OsStr>) -> Sbx {
        Sbx::run(workload).flags(self.flags())
    }

    /// A run of the guest's own command line on the tuned kernel.
    fn guest(self, words: &str) -> Sbx {
        self.run(tuned()).flags("--vm").args(words.split_whitespace())
    }

    /// A guest without Linux (tests/guests/bare), with this order.
    fn bare(self, order: &str) -> Sbx {
        let guest = repository().join("target/guests/bare");
        self.run(guest).flags("--vm --memory 64M").flag("--cmdline", format!("do={order}"))
    }

    /// A run of a shell script in a guest on the tuned kernel. It needs a root with a shell.
    fn shell(self, script: &str) -> Sbx {
        self.run("/bin/sh").flag("--kernel", tuned()).args(["-c", script])
    }
}

/// Makes a test of each of these functions of an [`Executor`] on each of them. Behind `kvm:` and `tcg:`
/// are those for one of them only.
macro_rules! on_every_executor {
    ($($test:ident),* $(,)? $(; kvm: $($kvm:ident),* $(,)?)? $(; tcg: $($tcg:ident),* $(,)?)?) => {
        mod kvm {
            $(#[test] fn $test() { super::$test(crate::Executor::Kvm); })*
            $($(#[test] fn $kvm() { super::$kvm(crate::Executor::Kvm); })*)?
        }
        mod tcg {
            $(#[test] fn $test() { super::$test(crate::Executor::Tcg); })*
            $($(#[test] fn $tcg() { super::$tcg(crate::Executor::Tcg); })*)?
        }
    };
}
pub(crate) use on_every_executor;

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

/// A directory with a small root file system.
fn small_root() -> tempfile::TempDir {
    let dir = support::tempdir();
    make_root(dir.path());
    dir
}
