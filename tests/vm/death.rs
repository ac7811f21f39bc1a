//! How guests die: each death has a status and one sentence, with the console's last lines where nobody
//! would understand it without.

use crate::support::Outcome;
use crate::{Executor, on_every_executor, small_root};

on_every_executor! {
    a_kernel_that_panics,
    a_triple_fault,
    a_guest_that_never_boots,
    a_workload_that_is_out_of_memory,
    a_guest_that_is_shut_down_from_inside;
    // QEMU takes what it reads from a device's registers for instructions like any others, and goes on.
    kvm: what_kvm_cannot_do,
}

/// The last sentence holds these words, and before it come only lines of the console, `line` among them. The
/// words of a kernel that panics are among what sbx's own must not be.
#[track_caller]
fn told(end: Outcome, words: &[&str], line: &str) {
    let sentences = end.sentences();
    let (last, lines) = sentences.split_last().unwrap();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} is not said\n{end}");
    assert!(lines.iter().all(|line| line.starts_with("console: ")), "{end}");
    assert!(lines.iter().any(|said| said.contains(line)), "{line:?} is not shown\n{end}");
    assert_eq!(end.err().lines().count(), sentences.len(), "{end}");
}

fn a_kernel_that_panics(on: Executor) {
    let root = small_root();
    // The guest's init cannot be killed, but its memory can run out for good.
    let script = "echo 2 > /proc/sys/vm/panic_on_oom; tail /dev/zero";
    let end =
        on.shell(script).flag("--rootfs", root.path()).flags("--memory 96M").end().status(134);
    told(end, &["the guest's kernel panicked", "ut of memory"], "Kernel panic - not syncing");
}

fn a_triple_fault(on: Executor) {
    let end = on.bare("fault").args(["--", "/bin/true"]).end().status(134).prints("");
    told(end, &["triple fault"], "about to fault");
}

fn what_kvm_cannot_do(on: Executor) {
    let end = on.bare("nowhere").args(["--", "/bin/true"]).end().status(125).prints("");
    told(end, &["KVM could not go on", "0xd0000100"], "going nowhere");
}

fn a_guest_that_never_boots(on: Executor) {
    let run = on.bare("loop").flags("--timeout 3s").args(["--", "/bin/true"]);
    told(run.end().status(124).prints(""), &["--timeout of 3s"], "never booting");
}

/// The workload alone is killed, and the guest tells.
fn a_workload_that_is_out_of_memory(on: Executor) {
    let root = small_root();
    let run = on.shell("exec tail /dev/zero").flag("--rootfs", root.path()).flags("--memory 96M");
    run.end().status(137).prints("").says_only(&["out of memory", "96 MiB"]);
}

/// Whether the machine resets itself or turns itself off, a workload that ends so has done it on purpose.
fn a_guest_that_is_shut_down_from_inside(on: Executor) {
    let root = small_root();
    for how in ["reboot -f", "poweroff -f"] {
        let run =
            on.shell(&format!("echo written; {how}; sleep 600")).flag("--rootfs", root.path());
        let end = run.end().status(0).prints("written\n");
        end.says_only(&["shut down from inside"]);
    }
}
