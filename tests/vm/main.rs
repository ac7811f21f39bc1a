//! What only microVMs do: kernels, root file systems, disks, devices, the guest's end, and hostile guests.
//!
//! Every test here needs a real KVM. Where this host has none, the test runner runs it in the test bed's
//! nested machine (`.config/nextest.toml`); run by hand without a KVM, a test fails with sbx's own
//! sentence about that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod kernels;

use std::path::PathBuf;
use support::{Sbx, root};

/// The kernel that was built for microVMs.
fn tuned() -> PathBuf {
    root().join("target/kernel/vmlinux")
}

/// A run of the guest's own command line on the tuned kernel.
fn guest(words: &str) -> Sbx {
    Sbx::run(tuned()).flags("--vm").args(words.split_whitespace())
}
