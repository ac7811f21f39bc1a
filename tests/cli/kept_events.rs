//! `sbx events`: what is told of the life of a sandbox that is kept, to whom, and what is kept of it.

use crate::support::{Kept, Sbx, eventually, guest, tempdir, wat};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

/// A time before all.
const EVER: &str = "2020-01-01T00:00:00Z";

/// What has happened, by these flags.
#[track_caller]
fn told(kept: &Kept, flags: &str) -> Vec<Value> {
    let end = kept.sbx("events --no-stream --format json").flags(flags).end().status(0).silent();
    end.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn a_life() {
    let kept = Kept::new();
    let run = Sbx::run(guest("spin")).flags("--name x --label team=a --label b");
    kept.created(run).end().status(0);
    let id = kept.inspect("x")["id"].clone();
    for verb in ["start x", "pause x", "resume x", "rename x y", "kill -s TERM y"] {
        kept.sbx(verb).end().status(0).silent();
    }
    kept.sbx("wait y").end().status(0).prints("143\n");
    kept.sbx("rm -f y").end().status(0);
    let events = told(&kept, "");
    assert_eq!(
        words(&events),
        ["create", "start", "pause", "resume", "rename", "kill", "die", "remove"]
    );
    for event in &events {
        assert_eq!(event["id"], id, "{event}");
        assert_eq!(event["labels"], serde_json::json!({"team": "a", "b": ""}), "{event}");
    }
    let names: Vec<_> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["x", "x", "x", "x", "y", "y", "y", "y"]);
    assert_eq!(events[4]["old_name"], "x");
    assert_eq!(events[5]["signal"], 15);
    assert_eq!((&events[6]["exit_status"], &events[6]["reason"]), (&143.into(), &"signal".into()));
    // Times of one form are in the order of their text.
    let times: Vec<_> = events.iter().map(|event| event["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    // The same for people, a line each.
    let lines = kept.sbx("events --no-stream").end().status(0).silent().out();
    assert_eq!(lines.lines().count(), 8, "{lines}");
    assert!(lines.contains("exit_status=143 reason=signal"), "{lines}");
    let file = fs::metadata(kept.place().join("events")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
}

#[test]
fn ends_and_what_follows_them() {
    let kept = Kept::new();
    let run = kept.run(guest("exit")).flags("--name x --restart on-failure:1").args(["7"]);
    run.end().status(0);
    kept.sbx("wait x").end().status(0).prints("7\n");
    let events = told(&kept, "--filter sandbox=x");
    assert_eq!(words(&events), ["create", "start", "die", "restart", "die"]);
    assert_eq!((&events[3]["exit_status"], &events[3]["restarts"]), (&7.into(), &1.into()));
    assert_eq!((&events[4]["exit_status"], &events[4]["reason"]), (&7.into(), &"code".into()));

    let dir = tempdir();
    let text = r#"(module (memory (export "memory") 1) (func (export "_start")
        (drop (memory.grow (i32.const 1000))) unreachable))"#;
    let run = kept.run(wat(dir.path(), text)).flags("--name y --memory 1M");
    run.end().status(0);
    kept.sbx("wait y").end().status(0).prints("137\n");
    let events = told(&kept, "--filter sandbox=y");
    assert_eq!(words(&events), ["create", "start", "oom", "die"]);
    assert_eq!(events[2]["memory_limit"], 1 << 20);
    assert_eq!(events[3]["reason"], "out-of-memory");
    assert!(events[3]["message"].as_str().unwrap().contains("--memory"), "{}", events[3]);

    // One that never began was made, and is gone.
    kept.run("/nowhere").flags("--name z").end().status(127);
    assert_eq!(words(&told(&kept, "--filter sandbox=z")), ["create", "remove"]);
}

#[test]
fn those_that_are_asked_for() {
    let kept = Kept::new();
    for name in ["x", "y"] {
        let run = kept.run(guest("exit")).flags("--label a=b --name").flags(name);
        run.end().status(0);
        kept.sbx("wait").flags(name).end().status(0);
    }
    let count = |flags: &str| told(&kept, flags).len();
    assert_eq!(count(""), 6);
    assert_eq!(count("-f event=die"), 2);
    assert_eq!(count("-f event=die --filter event=start"), 4);
    assert_eq!(count("-f event=die -f sandbox=x"), 1);
    assert_eq!(count("-f label=a=b"), 6);
    assert_eq!(count("-f label=a -f label=c"), 0);
    let id = kept.inspect("x")["id"].as_str().unwrap().to_owned();
    assert_eq!(count(&format!("-f sandbox={}", &id[..12])), 3);
    let all = told(&kept, "");
    let third = all[2]["time"].as_str().unwrap();
    assert_eq!(count(&format!("--since {third}")), 4);
    assert_eq!(count("--since 1h"), 6);
    // A time that has come ends it, whatever else was asked for.
    let end = kept.sbx("events --format json --until").flags(third).end().status(0).silent();
    assert_eq!(end.out().lines().count(), 3, "{end}");
}

#[test]
fn who_follows_is_told() {
    let kept = Kept::new();
    kept.created(Sbx::run(guest("exit")).flags("--name x")).end().status(0);
    let all = kept.sbx("events --since").flags(EVER).start();
    let new = kept.sbx("events").start();
    all.until("create");
    // Nobody can know when it has begun to listen: something happens until it is told of it.
    let mut names = ["x", "y"];
    eventually("nothing is told", || {
        kept.sbx("rename").flags(names[0]).flags(names[1]).end().status(0);
        names.swap(0, 1);
        new.printed().contains("rename")
    });
    kept.sbx("rm").flags(names[0]).end().status(0);
    for follower in [all, new] {
        follower.until("remove");
        follower.signal(Signal::INT);
        let end = follower.end();
        assert_eq!(end.status.signal(), Some(2), "{end}");
        assert_eq!(end.out().matches("remove").count(), 1, "{end}");
        end.silent();
    }
}

#[test]
fn what_is_kept_has_a_size() {
    let kept = Kept::new();
    kept.sbx("ps").end().status(0);
    let (file, older) = (kept.place().join("events"), kept.place().join("events.1"));
    let garbage = "garbage\n".repeat((1 << 20) / 8);
    fs::write(&file, &garbage).unwrap();
    kept.created(Sbx::run(guest("exit")).flags("--name x")).end().status(0);
    assert_eq!(fs::read_to_string(&older).unwrap(), garbage);
    assert_eq!(words(&told(&kept, "")), ["create"]);
    // And once more, over the older part.
    let (first, mode) = (fs::read_to_string(&file).unwrap(), fs::metadata(&file).unwrap().mode());
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&file, first.clone() + &garbage).unwrap();
    kept.sbx("rename x y").end().status(0);
    assert_eq!(fs::read_to_string(&older).unwrap(), first + &garbage);
    assert_eq!(words(&told(&kept, "")), ["create", "rename"]);
}

/// What cannot be written is lost, and nothing else.
#[test]
fn an_event_that_cannot_be_written() {
    let kept = Kept::new();
    kept.sbx("ps").end().status(0);
    fs::create_dir(kept.place().join("events")).unwrap();
    kept.run(guest("exit")).flags("--name x").args(["3"]).end().status(0).silent();
    kept.sbx("wait x").end().status(0).prints("3\n").silent();
    kept.sbx("rename x y").end().status(0).silent();
    kept.sbx("rm -f y").end().status(0).silent();
    let end = kept.sbx("events --no-stream").end().status(125).prints("");
    end.says_only(&["cannot read what has happened to sandboxes"]);
}

#[test]
fn what_events_refuses() {
    let kept = Kept::new();
    for words in
        ["-f event=dies", "-f x=y", "-f sandbox=", "--since yesterday", "--until never", "x"]
    {
        kept.sbx("events").flags(words).end().status(125).prints("");
    }
    // Before there was any sandbox nothing has happened.
    kept.sbx("events --no-stream").end().status(0).prints("").silent();
}
