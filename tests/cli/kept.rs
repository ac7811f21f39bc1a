//! Sandboxes that are kept: how they are called and found, what the verbs refuse, what is printed of them, and
//! where they are kept. What is true of a sandbox on every backend is in `tests/conformance/kept.rs`, and what
//! crashes leave in `kept_crashes.rs`.

use crate::support::{Kept, Sbx, eventually, guest, is_root, skipped, tempdir, used};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// A sandbox that sleeps in the background, called so.
fn sleeper(kept: &Kept, name: &str) {
    let run = kept.run(guest("sleep")).flag("--name", name).args(["3600000"]);
    run.end().status(0).silent();
}

/// One that has ended, called so.
fn ended(kept: &Kept, name: &str, status: &str) {
    kept.run(guest("exit")).flag("--name", name).args([status]).end().status(0).silent();
    kept.sbx("wait").flags(name).end().status(0).prints(&format!("{status}\n")).silent();
}

#[test]
fn names_and_beginnings_of_identifications_find_it() {
    let kept = Kept::new();
    sleeper(&kept, "one");
    let printed = kept.run(guest("exit")).args(["5"]).end().status(0).silent().out();
    let id = printed.trim_end();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    for text in [id, &id[..12], &id[..3]] {
        kept.sbx("wait").flags(text).end().status(0).prints("5\n");
    }
    // Its own name was made up, and is another.
    let name = kept.inspect(id)["name"].as_str().unwrap().to_owned();
    assert_ne!(name, "one");
    kept.sbx("wait").flags(&name).end().status(0).prints("5\n");
    let listed = kept.sbx("ps -a --no-trunc -q").end().status(0).silent().out();
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.lines().any(|line| line == id), "{listed}");
    // An empty beginning is everybody's.
    kept.sbx("rm").args([""]).end().status(1).says_only(&["there is no sandbox"]);
    let common = |text: &str| listed.lines().all(|line| line.starts_with(text));
    if common(&id[..1]) {
        kept.sbx("wait").flags(&id[..1]).end().status(1).says_only(&["more than one sandbox"]);
    }
}

#[test]
fn a_name_is_one_sandboxs() {
    let kept = Kept::new();
    sleeper(&kept, "one");
    let again = kept.run(guest("exit")).flags("--name one").end();
    again.status(125).prints("").says_only(&["the name one is taken by sandbox"]);
    for wrong in ["-x", "a/b", "..", "a%b", "ä", &"a".repeat(129)] {
        let end = kept.run(guest("exit")).flags(&format!("--name={wrong}")).end();
        end.status(125).prints("").says_only(&["is no name for a sandbox"]);
    }
    kept.sbx("ps -aq")
        .end()
        .status(0)
        .prints(&format!("{}\n", &kept.inspect("one")["id"].as_str().unwrap()[..12]));

    // While it runs: the old name is free, and the sandbox answers to the new one.
    kept.sbx("rename one two").end().status(0).prints("").silent();
    kept.sbx("stop one").end().status(1).says_only(&["one: there is no sandbox one"]);
    sleeper(&kept, "one");
    kept.sbx("rename two one").end().status(1).says_only(&["the name one is taken by"]);
    kept.sbx("rename two .x").end().status(1).says_only(&["'.x' is no name for a sandbox"]);
    kept.sbx("pause two").end().status(0).prints("two\n").silent();
    assert_eq!([kept.state("two"), kept.state("one")], ["paused", "running"]);
    kept.sbx("rename two three").end().status(0).silent();
    kept.sbx("resume three").end().status(0).silent();
    kept.sbx("rm -f three").end().status(0).prints("three\n").silent();
    sleeper(&kept, "three");
}

#[test]
fn what_the_state_does_not_allow_is_refused() {
    let kept = Kept::new();
    kept.created(Sbx::run(guest("sleep")).flags("--name new").args(["3600000"]))
        .end()
        .status(0)
        .silent();
    ended(&kept, "over", "3");
    sleeper(&kept, "up");
    sleeper(&kept, "held");
    kept.sbx("pause held").end().status(0).silent();
    for (words, said) in [
        ("pause new", "a sandbox that is created"),
        ("resume new", "a sandbox that is created"),
        ("kill new", "a sandbox that is created"),
        ("wait new", "a sandbox that is created"),
        ("pause over", "a sandbox that is exited"),
        ("resume over", "a sandbox that is exited"),
        ("kill over", "a sandbox that is exited"),
        ("resume up", "a sandbox that is running"),
        ("pause held", "a sandbox that is paused"),
        ("start held", "a sandbox that is paused"),
        ("rm up", "stop it first, or use rm -f"),
        ("rm held", "stop it first, or use rm -f"),
        ("stop nobody", "there is no sandbox nobody"),
        ("inspect nobody", "there is no sandbox nobody"),
    ] {
        let end = kept.sbx(words).end().status(1);
        end.says_only(&[said]);
    }
    // As one: what can be done is done.
    let end = kept.sbx("pause over up nobody").end().status(1).prints("up\n");
    assert_eq!(end.sentences().len(), 2, "{end}");
    kept.sbx("resume up").end().status(0).silent();
    // What is so already is no mistake.
    for words in ["stop new", "stop over", "start up"] {
        kept.sbx(words).end().status(0).silent();
    }
    assert_eq!(
        [kept.state("new"), kept.state("held"), kept.state("over")],
        ["created", "paused", "exited"]
    );
    kept.sbx("rm new over").end().status(0).prints("new\nover\n").silent();
    kept.sbx("kill -s NONE up").end().status(125);
}

#[test]
fn what_is_not_runnable_leaves_nothing() {
    let kept = Kept::new();
    let dir = tempdir();
    let text = dir.path().join("text");
    fs::write(&text, "no program\n").unwrap();
    let id = dir.path().join("id");
    // More than once: the process that failed to start it may take its time to go.
    for _ in 0..5 {
        let missing = kept.run("/nowhere/at/all").flags("--name x").flag("--cidfile", &id);
        missing.end().status(127).prints("").says_only(&["/nowhere/at/all"]);
        let wrong = kept.run(&text).flags("--name x").flag("--cidfile", &id);
        wrong.end().status(126).prints("").says_only(&["text"]);
    }
    let created = kept.created(Sbx::run("/nowhere/at/all").flag("--cidfile", &id));
    created.end().status(127).prints("").says_only(&["/nowhere/at/all"]);
    assert!(!id.exists(), "the identification of no sandbox was written");
    kept.sbx("ps -aq").end().status(0).prints("");

    // One that was made stays when it cannot be started any more, and can be once it is mended.
    let copy = dir.path().join("exit.wasm");
    fs::copy(guest("exit"), &copy).unwrap();
    let run = Sbx::run(&copy).flags("--name late").args(["4"]);
    kept.created(run).end().status(0).silent();
    fs::rename(&copy, dir.path().join("away")).unwrap();
    kept.sbx("start late").end().status(1).prints("").says_only(&["late:", "exit.wasm"]);
    assert_eq!(kept.state("late"), "created");
    fs::rename(dir.path().join("away"), &copy).unwrap();
    kept.sbx("start late").end().status(0).prints("late\n").silent();
    kept.sbx("wait late").end().status(0).prints("4\n");
}

#[test]
fn a_file_for_the_identification_is_a_new_one() {
    let kept = Kept::new();
    let dir = tempdir();
    let file = dir.path().join("id");
    let run = || kept.run(guest("exit")).flag("--cidfile", &file);
    let id = run().end().status(0).silent().out();
    assert_eq!(fs::read_to_string(&file).unwrap(), id.trim_end());
    run().end().status(125).prints("").says_only(&["cannot make the new file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), id.trim_end());
    kept.sbx("ps -aq").end().status(0).prints(&format!("{}\n", &id[..12]));

    // A sandbox that comes to nothing leaves no file that stands in the way of the next.
    fs::remove_file(&file).unwrap();
    let name = kept.inspect(id.trim_end())["name"].as_str().unwrap().to_owned();
    run().flag("--name", name).end().status(125).says_only(&["is taken by"]);
    assert!(!file.exists());
}

#[test]
fn what_is_printed_for_programs_is_json() {
    let kept = Kept::new();
    let parse = |words: &str| -> serde_json::Value {
        let end = kept.sbx(words).end().status(0).silent();
        serde_json::from_slice(&end.stdout).unwrap_or_else(|e| panic!("{words}: {e}\n{end}"))
    };
    assert_eq!(parse("ps --format json"), serde_json::json!([]));
    kept.run(guest("exit")).flags("--name b -l team=blue -l old").args(["3"]).end().status(0);
    kept.sbx("wait b").end().status(0).prints("3\n");
    sleeper(&kept, "a");
    let rows = parse("ps -a --format json");
    // The newest first.
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!([&rows[0]["state"], &rows[1]["state"]], ["running", "exited"]);
    assert_eq!([&rows[0]["backend"], &rows[0]["workload"]], ["wasm", "sleep.wasm"]);
    assert_eq!(rows[1]["exit_status"], 3);
    assert_eq!(rows[0]["exit_status"], serde_json::Value::Null);
    assert_eq!(parse("ps --format json").as_array().unwrap().len(), 1);

    let all = parse("inspect a b");
    assert_eq!([&all[0]["name"], &all[1]["name"]], ["a", "b"]);
    assert_eq!(all[1]["labels"], serde_json::json!({"team": "blue", "old": ""}));
    assert_eq!(all[1]["status"]["restarts"], 0);
    assert!(all[0]["status"]["supervisor"].is_u64() && all[1]["status"]["supervisor"].is_null());
    assert!(Path::new(all[1]["log"].as_str().unwrap()).is_file());
    let end = kept.sbx("inspect nobody b").end().status(1);
    let some: serde_json::Value = serde_json::from_slice(&end.stdout).unwrap();
    assert_eq!(some.as_array().unwrap().len(), 1);

    for (filter, found) in [
        ("-f name=a", 1),
        ("-f status=exited", 1),
        ("-f status=paused", 0),
        ("-a -f label=team", 1),
        ("-a -f label=team=blue -f label=old", 1),
        ("-a -f label=team=red", 0),
        ("-a -f label=team -f name=a", 0),
        // As in docker: either.
        ("-f status=exited -f status=running", 2),
        ("-a -f name=a -f name=b", 2),
    ] {
        let end = kept.sbx("ps -q").flags(filter).end().status(0).silent();
        assert_eq!(end.out().lines().count(), found, "{filter}\n{end}");
    }
    kept.sbx("ps -f color=red").end().status(125);
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    let kept = Kept::new();
    for flags in ["--restart sometimes", "--restart on-failure:x", "-l =x", "--log-size much"] {
        let end = kept.run(guest("exit")).flags(flags).end().status(125);
        assert!(end.prints("").err().contains("invalid value"));
    }
    kept.sbx("ps -aq").end().status(0).prints("").silent();
}

/// A restart is a whole new life: it gets its control group again, and a clock of its own.
#[test]
fn a_restarted_sandbox_is_a_new_one() {
    let kept = Kept::new();
    let run = kept.run(guest("exit")).flags("--name x --restart on-failure:3 --timeout 300ms");
    // The third pause is longer than the time that each life has.
    run.args(["7"]).end().status(0).silent();
    kept.sbx("wait x").end().status(0).prints("7\n").silent();
    let status = kept.inspect("x")["status"].clone();
    assert_eq!(status["restarts"], 3, "{status}");
    assert!(status["supervisor"].is_null() && status["process"].is_null(), "{status}");

    if !is_root() {
        return skipped("control groups are root's here");
    }
    let run = kept.run(guest("exit")).flags("--name y --restart on-failure:2 --cpus 0.5");
    let begun = run.args(["7"]).end();
    if begun.err().contains("cannot enforce --cpus") {
        return skipped("this host has no cpu controller");
    }
    begun.status(0).silent();
    kept.sbx("wait y").end().status(0).prints("7\n").silent();
    assert_eq!(kept.inspect("y")["status"]["restarts"], 2);
}

/// What is there at one start need not be at the next.
#[test]
fn a_workload_that_goes_away_between_two_lives() {
    let kept = Kept::new();
    let dir = tempdir();
    let copy = dir.path().join("exit.wasm");
    fs::copy(guest("exit"), &copy).unwrap();
    let run = kept.run(&copy).flags("--name x --restart always").args(["7"]);
    run.end().status(0).silent();
    fs::remove_file(&copy).unwrap();
    kept.sbx("wait x").end().status(0).prints("125\n").silent();
    let status = kept.inspect("x")["status"].clone();
    assert_eq!(status["state"], "exited", "{status}");
    assert!(status["notes"].to_string().contains("exit.wasm"), "{status}");
}

/// One that waits for its next life is ended as one that runs is.
#[test]
fn between_two_lives() {
    let kept = Kept::new();
    for (name, end) in [("x1", "stop x1"), ("x2", "kill x2"), ("x3", "rm -f x3")] {
        let run = kept.run(guest("exit")).flags("--restart always").flag("--name", name);
        run.args(["7"]).end().status(0).silent();
        // Pauses double, so that this is met soon.
        kept.until(name, "restarting");
        eventually("it is not started again", || {
            kept.inspect(name)["status"]["restarts"].as_u64() > Some(2)
        });
        kept.until(name, "restarting");
        kept.sbx("pause").flags(name).end().status(1).says_only(&["it is being restarted"]);
        let listed = kept.sbx("ps").end().status(0).out();
        assert!(listed.contains("Restarting (7)"), "{listed}");
        kept.sbx(end).end().status(0).silent();
        if name == "x3" {
            kept.sbx("inspect x3").end().status(1).says_only(&["there is no sandbox x3"]);
            continue;
        }
        kept.sbx("wait").flags(name).end().status(0).prints("7\n");
        let status = kept.inspect(name)["status"].clone();
        assert_eq!(status["state"], "exited", "{status}");
        assert!(status["supervisor"].is_null(), "{status}");
    }
}

/// A supervisor serves more clients than it has places for, and turns in no circles meanwhile.
#[test]
fn many_who_wait() {
    let kept = Kept::new();
    sleeper(&kept, "x");
    let door = kept.dir("x").join("control");
    let supervisor = kept.supervisor("x").as_raw_pid();
    let clients: Vec<_> =
        (0..300).filter_map(|_| std::os::unix::net::UnixStream::connect(&door).ok()).collect();
    assert!(clients.len() > 256, "only {} came in", clients.len());
    let all = [supervisor].into();
    let before = used(&all);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let turned = used(&all) - before;
    assert!(turned < 25, "it used {turned} of 50 ticks");
    drop(clients);
    kept.sbx("stop x").end().status(0).prints("x\n").silent();
    kept.sbx("wait x").end().status(0).prints("143\n");
}

#[test]
fn a_place_that_is_not_the_users_own_is_refused() {
    let kept = Kept::new();
    let dir = tempdir();
    let place = |path: &Path| kept.sbx("ps").env("SBX_STATE_DIR", path).end();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).unwrap();
    let refused = &["not a directory of this user's alone"];
    place(&open).status(125).prints("").says_only(refused);
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0, "something was made in a strange place");
    let link = dir.path().join("link");
    symlink(dir.path(), &link).unwrap();
    place(&link).status(125).says_only(refused);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    place(&file).status(125).says_only(&["file"]);
    if !is_root() {
        return skipped("only root can make a directory another user's");
    }
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, PermissionsExt::from_mode(0o700)).unwrap();
    chown(&other, Some(65534), Some(65534)).unwrap();
    place(&other).status(125).says_only(refused);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "something was made in a strange place");
}

/// The socket's path is longer than an address may be, and one that is relative is the caller's.
#[test]
fn a_place_may_be_anywhere() {
    let dir = tempdir();
    let long = format!("{}/{}", "a".repeat(100), "b".repeat(100));
    fs::create_dir(dir.path().join("a".repeat(100))).unwrap();
    let kept = Kept::new();
    let sbx = |words: &str| kept.sbx(words).env("SBX_STATE_DIR", &long).cwd(dir.path());
    let run = Sbx::run(guest("sleep")).flags("-d --name x").args(["3600000"]);
    run.env("SBX_STATE_DIR", &long).cwd(dir.path()).end().status(0).silent();
    sbx("pause x").end().status(0).prints("x\n").silent();
    let list = sbx("ps").end().status(0).out();
    assert!(list.contains("(Paused)"), "{list}");
    sbx("rm -f x").end().status(0).prints("x\n").silent();
    sbx("ps -aq").end().status(0).prints("").silent();
}

#[test]
fn an_ordinary_user_has_sandboxes_too() {
    if !is_root() {
        return skipped("the tests run as an ordinary user already");
    }
    let kept = Kept::of_user(65534);
    let nowhere = kept.sbx("ps").without_env("SBX_STATE_DIR").end().status(125);
    nowhere.says_only(&["set SBX_STATE_DIR to a directory of your own", "XDG_RUNTIME_DIR"]);
    let own = tempdir();
    chown(own.path(), Some(65534), Some(65534)).unwrap();
    let session = kept.sbx("ps").without_env("SBX_STATE_DIR").env("XDG_RUNTIME_DIR", own.path());
    session.end().status(0).silent();
    assert!(own.path().join("sbx/names").is_dir());

    let run = kept.run(guest("lines")).flags("--name x").args(["2", "0", "3"]);
    run.end().status(0).silent();
    kept.sbx("wait x").end().status(0).prints("3\n").silent();
    assert_eq!(kept.log("x"), "out 1\nout 2\n");
    sleeper(&kept, "y");
    kept.sbx("pause y").end().status(0).silent();
    kept.sbx("resume y").end().status(0).silent();
    kept.sbx("stop y").end().status(0).silent();
    kept.sbx("rm x y").end().status(0).prints("x\ny\n").silent();
}
