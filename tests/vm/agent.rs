//! What sbx's init does for the workload: its streams, its status, and words for what could not be.

use crate::support::processes_in;
use crate::{Executor, on_every_executor, small_root};
use std::time::{Duration, Instant};

on_every_executor! {
    what_cannot_be_run_is_told,
    a_guest_without_a_root_is_told_of_rootfs,
    input_of_any_length_comes_back,
    streams_are_kept_apart,
    nothing_is_lost_at_the_end,
    signals_reach_the_workload,
    nothing_outlives_sbx,
}

fn what_cannot_be_run_is_told(on: Executor) {
    let root = small_root();
    std::fs::write(root.path().join("data/text"), "#!/nowhere/sh\n").unwrap();
    let text = root.path().join("data/text");
    std::fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |program: &str, flags: &str| {
        let run = on.run(program).flag("--kernel", crate::tuned());
        run.flag("--rootfs", root.path()).flags(flags).end().prints("")
    };
    run("/bin/none", "").status(127).says_only(&["there is no program /bin/none in the guest"]);
    run("/data/hello", "").status(126).says_only(&["/data/hello", "must not be executed"]);
    run("/data/text", "").status(127).says_only(&["the interpreter that /data/text names"]);
    run("/bin/cat", "--user nobody").status(125).says_only(&["there is no user nobody"]);
    run("/bin/cat", "-w /none").status(125).says_only(&["there is no directory /none"]);
}

/// A guest without a root has init's own few commands, and is told how to get more.
fn a_guest_without_a_root_is_told_of_rootfs(on: Executor) {
    let end = on.guest("-- /bin/bash").end().status(127).prints("");
    end.says_only(&["/bin/bash", "--rootfs"]);
}

fn input_of_any_length_comes_back(on: Executor) {
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let end = on.guest("-- /bin/cat").flags("-i").stdin(bytes.clone()).end().status(0).silent();
    assert!(end.stdout == bytes, "{} of {} bytes came back", end.stdout.len(), bytes.len());
}

fn streams_are_kept_apart(on: Executor) {
    let root = small_root();
    let script = "for i in $(seq 50); do echo out $i; echo err $i >&2; done";
    let end = on.shell(script).flag("--rootfs", root.path()).end().status(0);
    let all = |name: &str| (1..=50).map(|i| format!("{name} {i}\n")).collect::<String>();
    assert_eq!(end.err(), all("err"), "{end}");
    end.prints(&all("out"));
}

/// What a program writes right before its end, and more than any buffer holds.
fn nothing_is_lost_at_the_end(on: Executor) {
    let root = small_root();
    let script = "seq 200000; printf last; exit 8";
    let end = on.shell(script).flag("--rootfs", root.path()).end().status(8).silent();
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(end.out() == all + "last", "{} bytes", end.stdout.len());
}

fn signals_reach_the_workload(on: Executor) {
    let root = small_root();
    let script = "trap 'echo caught; exit 33' TERM; echo up; while :; do sleep 0.1; done";
    let run = on.shell(script).flag("--rootfs", root.path()).start();
    run.until("up");
    run.signal(rustix::process::Signal::TERM);
    run.end().status(33).prints("up\ncaught\n").silent();
}

/// Whoever kills sbx kills the machine.
fn nothing_outlives_sbx(on: Executor) {
    let root = small_root();
    let mut run = on.shell("echo up; sleep 600").flag("--rootfs", root.path()).start();
    run.until("up");
    let group = run.pid().as_raw_pid();
    assert!(processes_in(group).len() > 1);
    run.signal(rustix::process::Signal::KILL);
    run.reap();
    let patience = Instant::now() + Duration::from_secs(20);
    while !processes_in(group).is_empty() {
        assert!(Instant::now() < patience, "{:?} live on", processes_in(group));
        std::thread::sleep(Duration::from_millis(20));
    }
}
