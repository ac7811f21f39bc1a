//! Sandboxes that are kept: one in the background is as one in the foreground, with the same limits and the
//! same end; its output is in its log; and it can be held, ended, and begun anew. What is left of it when it
//! is removed is nothing, whatever became of its supervisor.
//!
//! What does not depend on the backend (names, records, places) is in `tests/cli`.

use crate::support::{Kept, Sbx, eventually, is_alive, used, working};
use crate::{Backend, on_every_backend};
use std::time::Duration;

on_every_backend! {
    it_runs_to_its_end,
    it_can_be_begun_anew,
    what_is_held_stands_still,
    a_time_limit_holds,
    an_output_limit_holds,
    a_failed_one_is_started_again,
    it_can_remove_itself,
    what_is_not_there_leaves_nothing,
    a_killed_supervisor_leaves_nothing;
    // A machine costs too much to be started so often.
    wasm: always_is_until_it_is_stopped;
    // A WASI program hears of no signal.
    vm: a_program_has_a_grace, which_it_may_ignore,
}

fn it_runs_to_its_end(backend: Backend) {
    let kept = Kept::new();
    let run = kept.detached(backend.run("lines")).flags("--name x").args(["40", "0", "5"]);
    let id = run.end().status(0).silent().out();
    let status = backend.failure(5);
    kept.sbx("wait").flags(id.trim_end()).end().status(0).prints(&format!("{status}\n")).silent();
    let listed = kept.sbx("ps -a").end().status(0).silent().out();
    let line = listed.lines().find(|line| line.starts_with(&id[..12])).unwrap();
    assert!(line.contains(&format!("Exited ({status})")) && line.ends_with('x'), "{listed}");
    assert!(line.contains(if backend.is_vm() { "vm (" } else { "wasm" }), "{listed}");
    kept.sbx("ps -q").end().status(0).prints("").silent();

    let lines =
        |word: &str, from: u32| (from..=40).map(|i| format!("{word} {i}\n")).collect::<String>();
    let logs = |flags: &str| kept.sbx("logs x").flags(flags).end().status(0);
    let all = logs("");
    assert_eq!((all.out(), all.err()), (lines("out", 1), lines("err", 1)));
    // The last of both together.
    let last = logs("-n 5");
    let (out, err) = (last.out(), last.err());
    assert_eq!(out.lines().count() + err.lines().count(), 5, "{last}");
    assert!(lines("out", 1).ends_with(&out) && lines("err", 1).ends_with(&err), "{last}");

    // With times, from the beginning of which on all of it was written, and before whose end.
    let known = kept.inspect("x")["status"].clone();
    let [began, ended] = ["started", "finished"].map(|at| known[at].as_str().unwrap().to_owned());
    assert!(began < ended, "{known}");
    let timed = logs("--timestamps");
    for (line, bare) in timed.out().lines().zip(lines("out", 1).lines()) {
        let (time, text) = line.split_once(' ').unwrap();
        assert_eq!(text, bare);
        assert!(time.len() == began.len() && time <= ended.as_str(), "{line}");
    }
    assert_eq!(timed.out().lines().count(), 40);
    assert_eq!(logs("--since 1h").out(), lines("out", 1));
    assert_eq!(logs(&format!("--since {ended}")).out(), "");
    kept.sbx("rm x").end().status(0).prints("x\n").silent();
}

fn it_can_be_begun_anew(backend: Backend) {
    let kept = Kept::new();
    kept.created(backend.run("sleep")).flags("--name x").args(["3600000"]).end().status(0).silent();
    assert_eq!(kept.state("x"), "created");
    assert!(kept.processes().is_empty(), "it has begun");
    for (round, end, status) in [(1, "stop x", 143), (2, "kill -s USR1 x", 138)] {
        kept.sbx("start x").end().status(0).prints("x\n").silent();
        kept.until_printed("x", &"sleeping\n".repeat(round));
        assert_eq!(kept.state("x"), "running");
        kept.sbx(end).end().status(0).prints("x\n").silent();
        kept.sbx("wait x").end().status(0).prints(&format!("{status}\n")).silent();
        let known = kept.inspect("x")["status"].clone();
        assert_eq!(known["state"], "exited");
        assert!(known["process"].is_null() && known["supervisor"].is_null(), "{known}");
        eventually("a process outlives its workload", || kept.processes().is_empty());
    }
    assert_eq!(kept.log("x"), "sleeping\nsleeping\n");
}

/// One that writes and computes without end: neither goes on, and both do afterwards.
fn what_is_held_stands_still(backend: Backend) {
    let kept = Kept::new();
    let run = kept.detached(backend.run("flood")).flags("--name x --log-size 100000");
    run.end().status(0).silent();
    kept.until_printed("x", "xxx");
    kept.sbx("pause x").end().status(0).prints("x\n").silent();
    assert_eq!(kept.state("x"), "paused");
    let dir = kept.dir("x");
    // While it is turned over there is none.
    let log = || std::fs::read(dir.join("log")).unwrap_or_default();
    // What was in the pipe is read yet.
    eventually("the log grows on", || {
        let before = log();
        std::thread::sleep(Duration::from_millis(200));
        log() == before
    });
    let mut all = working(kept.supervisor("x"));
    assert!(!all.is_empty(), "no process works for it");
    all.insert(kept.supervisor("x").as_raw_pid());
    let (before, ticks) = (log(), used(&all));
    std::thread::sleep(Duration::from_millis(1000));
    assert!(log() == before, "it writes while it is held");
    let ticks = used(&all) - ticks;
    // A machine's own clock may tick yet; one that computes uses a hundred.
    assert!(ticks < 10, "it used {ticks} of 100 ticks while it was held");

    kept.sbx("resume x").end().status(0).prints("x\n").silent();
    assert_eq!(kept.state("x"), "running");
    eventually("it does not go on", || log() != before);
    // One that is held hears of nothing but its end, which comes at once.
    kept.sbx("pause x").end().status(0).silent();
    kept.sbx("stop -t 1000000 x").end().status(0).prints("x\n").silent();
    kept.sbx("wait x").end().status(0).prints("137\n");
}

/// Runs it to this end, about which `inspect` tells this.
fn ends(kept: &Kept, run: Sbx, status: i32, note: &str) {
    kept.detached(run).flags("--name x").end().status(0).silent();
    kept.sbx("wait x").end().status(0).prints(&format!("{status}\n")).silent();
    let known = kept.inspect("x")["status"].clone();
    assert!(known["notes"].to_string().contains(note), "{known}");
}

fn a_time_limit_holds(backend: Backend) {
    let kept = Kept::new();
    let limit = backend.short();
    let run = backend.run("spin").flag("--timeout", limit);
    ends(&kept, run, 124, &format!("stopped after its --timeout of {limit}"));
    assert_eq!(kept.log("x"), "spinning\n");
}

fn an_output_limit_holds(backend: Backend) {
    let kept = Kept::new();
    let run = backend.run("flood").flags("--output 100001");
    ends(&kept, run, 153, "stopped after writing its --output limit of");
    assert_eq!(kept.log("x").len(), 100_001);
}

fn a_failed_one_is_started_again(backend: Backend) {
    let kept = Kept::new();
    let most = if backend.is_vm() { 1 } else { 2 };
    let run = kept.detached(backend.run("lines")).flag("--restart", format!("on-failure:{most}"));
    run.flags("--name x").args(["2", "0", "3"]).end().status(0).silent();
    let status = format!("{}\n", backend.failure(3));
    kept.sbx("wait x").end().status(0).prints(&status).silent();
    let known = kept.inspect("x")["status"].clone();
    assert_eq!((&known["restarts"], &known["state"]), (&most.into(), &"exited".into()), "{known}");
    assert_eq!(kept.log("x"), "out 1\nout 2\n".repeat(most + 1));

    // One that does not fail is not.
    let run = kept.detached(backend.run("exit")).flags("--restart on-failure --name y");
    run.args(["0"]).end().status(0).silent();
    kept.sbx("wait y").end().status(0).prints("0\n").silent();
    assert_eq!(kept.inspect("y")["status"]["restarts"], 0);
}

fn always_is_until_it_is_stopped(backend: Backend) {
    let kept = Kept::new();
    for end in ["stop", "kill", "kill -s TERM"] {
        let run = kept.detached(backend.run("sleep")).flags("--restart always --name x");
        run.args(["100"]).end().status(0).silent();
        eventually("it is not started again", || {
            kept.inspect("x")["status"]["restarts"].as_u64() > Some(1)
        });
        kept.sbx(end).flags("x").end().status(0).prints("x\n").silent();
        kept.sbx("wait x").end().status(0);
        assert_eq!(kept.state("x"), "exited", "behind {end}");
        kept.sbx("rm x").end().status(0).silent();
    }
}

fn it_can_remove_itself(backend: Backend) {
    let kept = Kept::new();
    kept.detached(backend.run("exit")).flags("--rm --name x").args(["3"]).end().status(0).silent();
    eventually("it is never removed", || {
        kept.sbx("ps -aq").end().status(0).silent().out().is_empty()
    });
    kept.sbx("inspect x").end().status(1).says_only(&["there is no sandbox x"]);
}

fn what_is_not_there_leaves_nothing(backend: Backend) {
    let kept = Kept::new();
    for run in [Kept::detached, Kept::created] {
        let missing = backend.held(Sbx::run("/nowhere/at/all"));
        run(&kept, missing).end().status(127).prints("").says_only(&["/nowhere/at/all"]);
    }
    kept.sbx("ps -aq").end().status(0).prints("").silent();
    assert!(kept.processes().is_empty());
}

fn a_killed_supervisor_leaves_nothing(backend: Backend) {
    let kept = Kept::new();
    kept.detached(backend.run("spin")).flags("--name x").end().status(0).silent();
    kept.until_printed("x", "spinning");
    let all = working(kept.supervisor("x"));
    assert!(!all.is_empty(), "no process works for it");
    kept.kill_supervisor("x");
    assert!(!all.iter().any(|pid| is_alive(*pid)));
    kept.sbx("wait x").end().status(0).prints("137\n").silent();
    assert_eq!(kept.state("x"), "dead");
    kept.sbx("rm x").end().status(0).prints("x\n").silent();
}

fn a_program_has_a_grace(backend: Backend) {
    let kept = Kept::new();
    kept.detached(backend.run("catch")).flags("--name x").end().status(0).silent();
    kept.until_printed("x", "waiting");
    kept.sbx("stop -t 1000 x").end().status(0).prints("x\n").silent();
    kept.sbx("wait x").end().status(0).prints("7\n").silent();
    assert_eq!(kept.log("x"), "waiting\ngot signal 15\n");
}

fn which_it_may_ignore(backend: Backend) {
    let kept = Kept::new();
    kept.detached(backend.run("stubborn")).flags("--name x").end().status(0).silent();
    kept.until_printed("x", "waiting");
    kept.sbx("kill -s TERM x").end().status(0).silent();
    // The process that holds the machine has its own use for these, and would say what is not so.
    for signal in ["35", "30", "27", "STOP", "SEGV"] {
        let end = kept.sbx("kill x").flag("-s", signal).end();
        end.status(1).says_only(&["a microVM passes no signal"]);
    }
    let patient = kept.sbx("stop -t 1000000 x").start();
    std::thread::sleep(Duration::from_millis(300));
    assert!(patient.is_alive() && kept.state("x") == "running", "{}", patient.end());
    // Somebody else has less patience, which is good for both.
    kept.sbx("stop -t 300ms x").end().status(0).prints("x\n").silent();
    patient.end().status(0).prints("x\n").silent();
    kept.sbx("wait x").end().status(0).prints("137\n").silent();
}
