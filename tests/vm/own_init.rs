//! `--initrd`: a guest with an init of the user's own. Its console is sbx's standard input and output, and
//! its end is the workload's.

use crate::support::{Outcome, Sbx, tempdir};
use crate::{Executor, make_root, on_every_executor, tuned};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

on_every_executor! {
    its_console_is_the_callers,
    a_reset_ends_it_as_a_power_off_does,
    a_virtio_console_serves_as_well,
    a_panic_ends_it_with_the_last_lines,
    a_signal_ends_it,
}

/// Packs the small root with this shell script as its init.
fn initrd(dir: &Path, script: &str) -> PathBuf {
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).unwrap();
    make_root(&tree);
    let init = tree.join("init");
    let script =
        format!("#!/bin/sh\nmount -t proc proc /proc\nmount -t devtmpfs dev /dev\n{script}\n");
    std::fs::write(&init, script).unwrap();
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let archive = dir.join("initrd");
    let file = std::fs::File::create(&archive).unwrap();
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet"]).current_dir(&tree).stdin(Stdio::piped());
    let mut cpio = cpio.stdout(file).spawn().unwrap();
    let names = Command::new("find").arg(".").current_dir(&tree).output().unwrap().stdout;
    cpio.stdin.take().unwrap().write_all(&names).unwrap();
    assert!(cpio.wait().unwrap().success());
    archive
}

fn run(on: Executor, initrd: &Path) -> Sbx {
    on.run(tuned()).flags("--vm --cmdline quiet").flag("--initrd", initrd)
}

/// Runs it to an end with status 0, and types this line when it has shown `ready`. What it showed is on
/// standard output.
#[track_caller]
fn typed_when_ready(run: Sbx, dir: &Path, line: &str) -> Outcome {
    let script = r#"{ until grep -qs ready "$OUT"; do sleep 0.1; done; echo "$LINE"; sleep 600; } |
                  { "$@" > "$OUT"; echo "$?"; cat "$OUT"; kill 0; }"#;
    let end =
        run.env("OUT", dir.join("out")).env("LINE", line).through_shell(script).end().silent();
    assert!(end.out().starts_with("0\n"), "{end}");
    end
}

fn its_console_is_the_callers(on: Executor) {
    let dir = tempdir();
    let script = "stty -echo; echo ready; read line; echo \"<$line>\"; poweroff -f";
    let run = run(on, &initrd(dir.path(), script)).flags("-i");
    let end = match on {
        // Typed long before anybody listens.
        Executor::Kvm => run.stdin("a line of input\n").end().status(0).silent(),
        // QEMU's serial port takes a few characters before the guest's kernel has started it, and loses
        // them then.
        Executor::Tcg => typed_when_ready(run, dir.path(), "a line of input"),
    };
    assert!(end.out().contains("ready\r\n<a line of input>\r\n"), "{end}");
}

fn a_reset_ends_it_as_a_power_off_does(on: Executor) {
    let dir = tempdir();
    let end = run(on, &initrd(dir.path(), "echo bye; reboot -f")).end().status(0).silent();
    assert!(end.out().contains("bye\r\n"), "{end}");
}

/// The virtio console, for a kernel that is told to use that.
fn a_virtio_console_serves_as_well(on: Executor) {
    let dir = tempdir();
    let script = "echo ready; read line; echo \"<$line>\"; dmesg -n 1; poweroff -f";
    let initrd = initrd(dir.path(), script);
    let run = on.run(tuned()).flags("--vm -i").flag("--cmdline", "quiet console=hvc0");
    let end = typed_when_ready(run.flag("--initrd", initrd), dir.path(), "input");
    assert!(end.out().contains("<input>"), "{end}");
}

fn a_panic_ends_it_with_the_last_lines(on: Executor) {
    let dir = tempdir();
    let end = run(on, &initrd(dir.path(), "echo last words; exit 3")).end().status(134);
    let sentences = end.sentences();
    let last = sentences.last().unwrap();
    assert!(last.contains("the guest's kernel panicked: Attempted to kill init!"), "{end}");
    assert!(sentences.iter().any(|line| line == "console: last words"), "{end}");
}

fn a_signal_ends_it(on: Executor) {
    let dir = tempdir();
    let run = run(on, &initrd(dir.path(), "echo up; sleep 600")).start();
    run.until("up");
    run.signal(rustix::process::Signal::TERM);
    run.end().status(143);
}
