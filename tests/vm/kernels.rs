//! Kernels: one built for microVMs, and one as a distribution ships it; how each is entered, found and
//! kept; and that the machine is the one that was asked for.

use crate::support::{Sbx, root, tempdir};
use crate::{Executor, on_every_executor, tuned};
use std::path::PathBuf;

on_every_executor! {
    a_tuned_kernel_runs_a_command,
    a_stock_kernel_runs_a_command,
    a_packed_kernel_is_unpacked_once,
    a_kernel_without_the_pvh_entry_is_entered_in_long_mode,
    the_kernel_is_searched_for_in_order,
    the_machine_is_as_asked,
}

/// Debian's cloud kernel, a bzImage with its drivers as modules.
fn stock() -> PathBuf {
    let boot = root().join("target/kernel/debian/boot");
    let mut entries = std::fs::read_dir(boot).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_string_lossy().contains("vmlinuz-")).unwrap()
}

fn a_tuned_kernel_runs_a_command(on: Executor) {
    on.guest("-- /bin/echo hi").end().status(0).prints("hi\n").silent();
}

fn a_stock_kernel_runs_a_command(on: Executor) {
    on.run(stock()).flags("--vm").args(["--", "/bin/echo", "hi"]).end().status(0).prints("hi\n");
}

/// It is unpacked once, and found again by the next run.
fn a_packed_kernel_is_unpacked_once(on: Executor) {
    let cache = tempdir();
    let kernel = root().join("target/kernel/bzImage");
    let run = || on.run(&kernel).flags("--vm").args(["--", "/bin/echo", "hi"]).cache(cache.path());
    let list = || Sbx::new("cache ls --format json").cache(cache.path()).end().status(0).out();
    run().end().status(0).prints("hi\n").silent();
    let entries = |text: &str| -> Vec<serde_json::Value> {
        let all: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        all.into_iter().filter(|entry| entry.to_string().contains("kernel")).collect()
    };
    let first = list();
    assert_eq!(entries(&first).len(), 1, "{first}");
    run().end().status(0).prints("hi\n").silent();
    let second = list();
    assert_eq!(entries(&second).len(), 1, "{second}");
}

/// A kernel without the PVH note is entered by the 64-bit boot protocol.
fn a_kernel_without_the_pvh_entry_is_entered_in_long_mode(on: Executor) {
    let mut image = std::fs::read(tuned()).unwrap();
    let note = [[4u32, 4, 18], [4, 8, 18]].map(|head| {
        let mut note = head.map(u32::to_le_bytes).concat();
        note.extend(b"Xen\0");
        note
    });
    let at: Vec<_> = (0..image.len() - 16)
        .filter(|at| note.iter().any(|note| image[*at..].starts_with(note)))
        .collect();
    assert_eq!(at.len(), 1, "the tuned kernel has the note");
    // Of a type that nobody knows.
    image[at[0] + 8] = 0x7f;
    let dir = tempdir();
    let kernel = dir.path().join("vmlinux");
    std::fs::write(&kernel, image).unwrap();
    on.run(kernel).flags("--vm").args(["--", "/bin/echo", "hi"]).end().status(0).prints("hi\n");
}

/// By flag, then by policy, then from the user's data directory.
fn the_kernel_is_searched_for_in_order(on: Executor) {
    let (data, policies) = (tempdir(), tempdir());
    let installed = data.path().join("sbx/vmlinux");
    std::fs::create_dir(data.path().join("sbx")).unwrap();
    std::os::unix::fs::symlink(tuned(), &installed).unwrap();
    let other = policies.path().join("vmlinux");
    std::os::unix::fs::symlink(tuned(), &other).unwrap();
    let policy = policies.path().join("policy.toml");
    std::fs::write(&policy, format!("[machine]\nkernel = {other:?}\n")).unwrap();
    let program = root().join("target/guests/native/args");
    let run = || on.run(&program).env("XDG_DATA_HOME", data.path());
    let explained = |run: Sbx| {
        let out = run.flags("--explain").end().status(0).silent().out();
        out.lines().find_map(|line| line.strip_prefix("kernel")).unwrap().trim().to_owned()
    };
    assert_eq!(explained(run()), installed.to_str().unwrap());
    let by_policy = || run().flag("--policy", &policy);
    assert_eq!(explained(by_policy()), other.to_str().unwrap());
    let by_flag = by_policy().flag("--kernel", tuned());
    assert_eq!(explained(by_flag), tuned().to_str().unwrap());
    // And it is not only said.
    run().end().status(0);
}

fn the_machine_is_as_asked(on: Executor) {
    let script =
        "nproc; grep MemTotal /proc/meminfo; cat /proc/cmdline; cat /proc/sys/kernel/hostname";
    let root = crate::small_root();
    let flags = "--cpus 2 --memory 160M --hostname box --cmdline";
    let run = on.shell(script).flag("--rootfs", root.path()).flags(flags);
    // The value of the last flag.
    let end = run.flags("sbx.word=1").end().status(0).silent();
    let out = end.out();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{end}");
    assert_eq!(lines[0], "2", "{end}");
    let total: u64 = lines[1].split_whitespace().nth(1).unwrap().parse().unwrap();
    // The kernel keeps some of it to itself.
    assert!((100 << 10..=160 << 10).contains(&total), "{end}");
    assert!(lines[2].split(' ').any(|word| word == "sbx.word=1"), "{end}");
    assert_eq!(lines[3], "box", "{end}");
}
