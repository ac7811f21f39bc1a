//! Sandboxes that are kept, and what befalls them: supervisors that are killed, commands at the same time, and
//! records that are damaged.

use crate::support::{Kept, Sbx, eventually, guest};
use std::collections::BTreeSet;
use std::fs;

fn create(kept: &Kept, name: &str, workload: &str, args: &[&str]) {
    let run = Sbx::run(guest(workload)).flag("--name", name).args(args);
    kept.created(run).end().status(0).silent();
}

fn sleeper(kept: &Kept, name: &str) {
    create(kept, name, "sleep", &["3600000"]);
    kept.sbx("start").flags(name).end().status(0).silent();
}

/// What holds of one whose supervisor was killed.
fn is_dead(kept: &Kept, name: &str) {
    let listed = kept.sbx("ps -a").end().status(0).silent().out();
    let line = listed.lines().find(|line| line.ends_with(name)).unwrap();
    assert!(line.contains("Dead"), "{listed}");
    kept.sbx("ps -q").end().status(0).prints("").silent();
    kept.sbx("wait").flags(name).end().status(0).prints("137\n").silent();
    let status = kept.inspect(name)["status"].clone();
    assert_eq!(status["state"], "dead", "{status}");
    assert!(status["process"].is_null() && status["supervisor"].is_null(), "{status}");
    for verb in ["pause", "resume", "kill"] {
        kept.sbx(verb).flags(name).end().status(1).says_only(&["a sandbox that is dead"]);
    }
}

#[test]
fn a_killed_supervisor_takes_its_sandbox_along() {
    let kept = Kept::new();
    sleeper(&kept, "running");
    sleeper(&kept, "paused");
    kept.sbx("pause paused").end().status(0).silent();
    for name in ["running", "paused"] {
        // One that spins too, and somebody who waits.
        let waiting = kept.sbx("wait").flags(name).start();
        let following = kept.sbx("logs -f").flags(name).start();
        following.until("sleeping");
        kept.kill_supervisor(name);
        waiting.end().status(0).prints("137\n").silent();
        following.end().status(0).prints("sleeping\n").silent();
        // The other one runs on, or is removed.
        if name == "running" {
            assert_eq!(kept.state("paused"), "paused");
            kept.sbx("rename paused waiting").end().status(0);
            kept.sbx("ps -q").end().status(0);
            kept.sbx("rename waiting paused").end().status(0);
            continue;
        }
        is_dead(&kept, name);
    }
    // Each can be started anew, with its log going on, or be removed without force.
    kept.sbx("start running").end().status(0).prints("running\n").silent();
    kept.until_printed("running", "sleeping\nsleeping\n");
    assert_eq!(kept.state("running"), "running");
    kept.sbx("rm paused").end().status(0).prints("paused\n").silent();
    kept.sbx("stop running").end().status(0).silent();
    kept.sbx("wait running").end().status(0).prints("143\n");
}

#[test]
fn a_spinning_workload_dies_with_its_supervisor() {
    let kept = Kept::new();
    create(&kept, "x", "spin", &[]);
    kept.sbx("start x").end().status(0).silent();
    kept.kill_supervisor("x");
    is_dead(&kept, "x");
}

#[test]
fn a_supervisor_that_is_killed_between_two_lives() {
    let kept = Kept::new();
    let run = kept.run(guest("exit")).flags("--name x --restart always");
    run.args(["7"]).end().status(0).silent();
    eventually("it is not started again", || {
        kept.inspect("x")["status"]["restarts"].as_u64() > Some(2)
    });
    kept.until("x", "restarting");
    kept.kill_supervisor("x");
    is_dead(&kept, "x");
    kept.sbx("start x").end().status(0).silent();
    assert_ne!(kept.state("x"), "dead");
    kept.sbx("stop x").end().status(0).silent();
    assert_eq!(kept.state("x"), "exited");
}

/// Killed before the workload has begun: it compiles, which takes a while.
#[test]
fn a_supervisor_that_is_killed_at_the_start() {
    let (kept, dir, cache) = (Kept::new(), crate::support::tempdir(), crate::support::tempdir());
    let module = crate::support::wat(dir.path(), &crate::lifecycle::large_module(400));
    kept.created(Sbx::run(&module).flags("--name x").cache(cache.path())).end().status(0);
    let again = crate::support::tempdir();
    let start = kept.sbx("start x").cache(again.path()).start();
    let mut all = Vec::new();
    eventually("there is no supervisor", || {
        all = kept.processes();
        all.retain(|pid| *pid != start.pid().as_raw_pid());
        !all.is_empty()
    });
    for pid in all.into_iter().filter_map(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    start.end().status(1).prints("").says_only(&["x: the sandbox's supervisor failed to start"]);
    assert_eq!(kept.state("x"), "created");
    kept.sbx("start x").end().status(0).silent();
    kept.sbx("wait x").end().status(0).prints("0\n").silent();
}

/// What ended a moment ago can be started and removed at once.
#[test]
fn an_end_is_the_end() {
    let kept = Kept::new();
    create(&kept, "x", "exit", &["3"]);
    for round in 1..=20 {
        kept.sbx("start x").end().status(0).prints("x\n").silent();
        kept.sbx("wait x").end().status(0).prints("3\n").silent();
        if round % 2 == 0 {
            // A start that found the old supervisor and took it for running would leave the old times.
            let before = kept.inspect("x")["status"]["started"].clone();
            kept.sbx("start x").end().status(0).silent();
            kept.sbx("wait x").end().status(0).prints("3\n").silent();
            assert_ne!(kept.inspect("x")["status"]["started"], before);
        }
    }
    for _ in 0..10 {
        kept.sbx("start x").end().status(0).silent();
        kept.sbx("stop x").end().status(0).silent();
        kept.sbx("rm x").end().status(0).prints("x\n").silent();
        create(&kept, "x", "exit", &["3"]);
    }
}

#[test]
fn two_starts_at_once_are_one() {
    let kept = Kept::new();
    for name in ["a", "b", "c", "d", "e"] {
        create(&kept, name, "lines", &["1", "0"]);
        let starts: Vec<_> = (0..4).map(|_| kept.sbx("start").flags(name).start()).collect();
        for start in starts {
            start.end().status(0).silent();
        }
        kept.sbx("wait").flags(name).end().status(0).prints("0\n");
    }
    create(&kept, "x", "sleep", &["3600000"]);
    let starts: Vec<_> = (0..8).map(|_| kept.sbx("start x").start()).collect();
    for start in starts {
        start.end().status(0).prints("x\n").silent();
    }
    assert_eq!(kept.log("x").matches("sleeping").count(), 1);
    // Itself and the one that holds the workload.
    let supervisor = kept.supervisor("x").as_raw_pid();
    let all: BTreeSet<_> = kept.processes().into_iter().collect();
    let mut own = crate::support::working(kept.supervisor("x"));
    own.insert(supervisor);
    assert_eq!(all, own);
}

/// Whichever comes first: it is gone, or runs; and never half.
#[test]
fn a_removal_during_a_start() {
    let kept = Kept::new();
    for round in 0..10 {
        create(&kept, "x", "sleep", &["3600000"]);
        let start = kept.sbx("start x").start();
        let remove = kept.sbx(if round % 2 == 0 { "rm -f x" } else { "rm x" }).start();
        let (start, remove) = (start.end(), remove.end());
        start.assert_no_debug_output();
        remove.assert_no_debug_output();
        if round % 2 == 0 || remove.status.success() {
            let remove = remove.status(0).silent();
            kept.sbx("ps -aq").end().status(0).prints("");
            assert!(kept.processes().is_empty(), "{remove}");
        } else {
            let remove = remove.status(1);
            assert!(start.status.success(), "{start}{remove}");
            assert_eq!(kept.state("x"), "running");
            kept.sbx("rm -f x").end().status(0).silent();
        }
    }
}

#[test]
fn a_removal_is_told_to_who_waits() {
    let kept = Kept::new();
    sleeper(&kept, "x");
    let waiting: Vec<_> = (0..4).map(|_| kept.sbx("wait x").start()).collect();
    let clients = || kept.processes().len();
    eventually("they do not wait", || clients() >= 6);
    kept.sbx("rm -f x").end().status(0).prints("x\n").silent();
    for one in waiting {
        // One that came to the door too late hears that it is gone.
        let end = one.end();
        assert!(end.out() == "137\n" || end.err().contains("x"), "{end}");
    }
    kept.sbx("wait x").end().status(1).says_only(&["there is no sandbox x"]);
}

/// One that removes itself, and somebody who would have it removed.
#[test]
fn removed_at_its_end() {
    let kept = Kept::new();
    for _ in 0..10 {
        kept.run(guest("sleep")).flags("--name x --rm").args(["3600000"]).end().status(0).silent();
        kept.sbx("rm -f x").end().status(0).prints("x\n").silent();
        kept.sbx("ps -aq").end().status(0).prints("").silent();
    }
}

#[test]
fn a_hundred_at_once() {
    let kept = Kept::new();
    let names: Vec<_> = (0..100).map(|i| format!("s{i}")).collect();
    let starts: Vec<_> = names
        .iter()
        .map(|name| kept.run(guest("sleep")).flag("--name", name).args(["3600000"]).start())
        .collect();
    let ids: BTreeSet<_> =
        starts.into_iter().map(|start| start.end().status(0).silent().out()).collect();
    assert_eq!(ids.len(), 100);
    let listed = kept.sbx("ps -q --no-trunc").end().status(0).silent().out();
    assert_eq!(listed.split_inclusive('\n').map(String::from).collect::<BTreeSet<_>>(), ids);
    let removed = kept.sbx("rm -f").args(&names).end().status(0).silent();
    assert_eq!(removed.out().lines().collect::<Vec<_>>(), names);
    kept.sbx("ps -aq").end().status(0).prints("").silent();
    assert!(kept.processes().is_empty());
}

#[test]
fn a_damaged_record_is_told_and_can_be_removed() {
    for file in ["config.json", "status.json"] {
        for text in ["", "{", "[]", r#"{"version":1}"#, "\u{0}\u{0}", "null"] {
            let kept = Kept::new();
            create(&kept, "x", "exit", &[]);
            let path = kept.dir("x").join(file);
            fs::write(&path, text).unwrap();
            for verb in ["start", "inspect"] {
                let end = kept.sbx(verb).flags("x").end().status(1);
                end.says_only(&["is damaged", "remove it with: sbx rm -f"]);
            }
            let listed = kept.sbx("ps -a").end().status(0).silent().out();
            assert!(listed.contains("Damaged record"), "{listed}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            kept.sbx("rm -f x").end().status(0).prints("x\n").silent();
            kept.sbx("ps -aq").end().status(0).prints("");
        }
    }
}

/// What becomes of one whose record is damaged while it runs.
#[test]
fn a_record_that_is_damaged_meanwhile() {
    let kept = Kept::new();
    sleeper(&kept, "x");
    let dir = kept.dir("x");
    let _ = kept.supervisor("x");
    fs::write(dir.join("config.json"), "{").unwrap();
    fs::remove_file(dir.join("status.json")).unwrap();
    kept.sbx("rm x").end().status(1).says_only(&["stop it first, or use rm -f"]);
    kept.sbx("pause x").end().status(0).prints("x\n").silent();
    kept.sbx("rm -f x").end().status(0).prints("x\n").silent();
}

#[test]
fn a_record_of_another_version_is_not_guessed_at() {
    let kept = Kept::new();
    create(&kept, "x", "exit", &[]);
    let path = kept.dir("x").join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen(r#""version":1"#, r#""version":7,"more":true"#, 1);
    assert_ne!(newer, text);
    fs::write(&path, newer).unwrap();
    for verb in ["start", "inspect", "logs"] {
        let end = kept.sbx(verb).flags("x").end().status(1);
        end.says_only(&["another version of sbx", "form 7"]);
    }
    kept.sbx("ps -aq").end().status(0).silent();
    kept.sbx("rm x").end().status(0).prints("x\n").silent();
}
