//! Who is attached to a sandbox that is kept has its streams, its signals and its end, as in front of one that
//! is not; and something further can be run in it, with streams and an end of its own.

use crate::support::{Kept, Sbx};
use crate::{Backend, on_every_backend};
use rustix::process::Signal;

on_every_backend! {
    nothing_of_its_streams_is_lost,
    its_end_and_its_signals_are_the_callers,
    one_can_come_later,
    something_further_has_an_end_of_its_own,
    something_further_ends_with_it;
    // A WASI program has neither users nor a terminal of its own.
    vm: something_further_is_another_process
}

/// In front of it from its first byte on, and to its last, in both directions.
fn nothing_of_its_streams_is_lost(backend: Backend) {
    let kept = Kept::new();
    let bytes: Vec<u8> = (0..300_000u32).flat_map(|i| format!("{i}\n").into_bytes()).collect();
    let run = kept.keep(backend.run("cat").flags("-i --name x")).stdin(bytes.clone());
    let end = run.end().status(0).silent();
    assert!(end.stdout == bytes, "{} bytes of {}", end.stdout.len(), bytes.len());
    assert_eq!(kept.state("x"), "exited");
    assert!(kept.log("x").into_bytes() == bytes, "the log has all of it too");
}

fn its_end_and_its_signals_are_the_callers(backend: Backend) {
    let kept = Kept::new();
    let run = kept.keep(backend.run("exit").flags("--rm --name x")).args(["7"]);
    run.end().status(backend.failure(7)).silent();
    kept.sbx("ps -aq").end().status(0).prints("");
    let run = kept.keep(backend.run("sleep").flags("--name x")).args(["3600000"]).start();
    run.until("sleeping");
    run.signal(Signal::TERM);
    run.end().status(143).silent();
    // The same once more, by start.
    let run = kept.sbx("start -a x").start();
    run.until("sleeping");
    run.signal(Signal::INT);
    run.end().status(130).silent();
}

fn one_can_come_later(backend: Backend) {
    let kept = Kept::new();
    kept.detached(backend.run("sleep")).flags("--name x").args(["4000"]).end().status(0);
    kept.until_printed("x", "sleeping");
    let end = kept.sbx("attach x").end().status(0).silent();
    assert!(end.out().ends_with("slept 4000 ms\n"), "{end}");
    let end = kept.sbx("attach x").end().status(125).prints("");
    end.says_only(&["cannot attach to a sandbox that is exited"]);
}

/// `exec` of what stands beside the workload: a command of the guest's init, or another module.
fn further(kept: &Kept, backend: Backend, flags: &str, program: &str, args: &[&str]) -> Sbx {
    let exec = kept.sbx("exec").flags(flags).flags("x");
    let exec = match (backend.is_vm(), program) {
        // The workload's own program is there too.
        (true, "sleep") => exec.args([backend.called(program)]),
        (true, program) => exec.args([format!("/bin/{program}")]),
        (false, "none") => exec.args(["/bin/none"]),
        (false, program) => exec.args([backend.guest(program)]),
    };
    exec.args(args)
}

fn sleeping(backend: Backend) -> Kept {
    let kept = Kept::new();
    kept.detached(backend.run("sleep")).flags("--name x").args(["3600000"]).end().status(0);
    kept.until_printed("x", "sleeping");
    kept
}

fn something_further_has_an_end_of_its_own(backend: Backend) {
    let kept = sleeping(backend);
    let exec =
        |flags: &str, program: &str, args: &[&str]| further(&kept, backend, flags, program, args);
    let text = "a line, and another\n".repeat(5000);
    let end = exec("-i", "cat", &[]).stdin(text.clone()).end().status(0).silent();
    assert!(end.out() == text, "{} bytes", end.out().len());
    let (failing, args): (_, &[&str]) =
        if backend.is_vm() { ("false", &[]) } else { ("exit", &["1"]) };
    exec("", failing, args).end().status(1).prints("").silent();
    let end = exec("", "none", &[]).end().status(127).prints("");
    end.says_only(&["there is no", "/bin/none"]);
    // The workload has noticed nothing, and none of it is in its log.
    assert_eq!((kept.state("x"), kept.log("x")), ("running".into(), "sleeping\n".into()));
    kept.sbx("stop -t 0 x").end().status(0);
    let end = exec("", "cat", &[]).end().status(125).prints("");
    end.says_only(&["cannot exec in a sandbox that is exited"]);
}

fn something_further_ends_with_it(backend: Backend) {
    let kept = sleeping(backend);
    let exec = further(&kept, backend, "-i", "cat", &[]).stdin_open().start();
    let other = further(&kept, backend, "", "sleep", &["3600000"]).start();
    other.until("sleeping");
    // Its own signal is its own.
    other.signal(Signal::TERM);
    other.end().status(143);
    assert!(exec.is_alive());
    kept.sbx("kill x").end().status(0);
    let end = exec.end().status(137);
    assert!(end.sentences().iter().any(|said| said == "the sandbox has ended"), "{end}");
}

fn something_further_is_another_process(backend: Backend) {
    let kept = Kept::new();
    // The host's root is the guest's.
    let run = Sbx::run("/bin/sleep").flags("--vm --name x --rootfs / -e A=1");
    let run = run.flags(if backend == Backend::Vm { "--accel kvm" } else { "--accel tcg -q" });
    let run = run.flag("--kernel", crate::support::kernel()).args(["3600"]);
    kept.detached(run).end().status(0).silent();
    let script = "id -u; pwd; echo $A $B; tty; stty size; exit 9";
    let exec = kept.sbx("exec -t -u 65534 -w /tmp -e B=2 x /bin/sh").args(["-c", script]);
    let end = exec.end().status(9).silent();
    let out = end.out().replace('\r', "");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["65534", "/tmp", "1 2"], "{end}");
    assert!(lines[3].starts_with("/dev/pts/") && lines[4].contains(' '), "{end}");
}
