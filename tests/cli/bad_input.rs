//! Every mistake on the command line is told in a sentence, with 125, before anything runs.

use crate::support::{Outcome, Sbx, guest, tempdir};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[track_caller]
fn refused(run: Sbx, words: &[&str]) {
    run.end().status(125).prints("").says_only(words);
}

/// Mistakes in the form of a flag are clap's to tell, in its own form.
#[track_caller]
fn misused(run: Sbx, words: &[&str]) -> Outcome {
    let end = run.end().status(125).prints("");
    end.assert_no_debug_output();
    for word in words {
        assert!(end.err().contains(word), "{word:?} is not said\n{end}");
    }
    end
}

#[test]
fn no_command_and_no_workload() {
    misused(Sbx::new(""), &["Usage: sbx"]);
    misused(Sbx::new("fly"), &["'fly'"]);
    misused(Sbx::new("run"), &["<WORKLOAD>"]);
    misused(Sbx::new("run --memory 1M"), &["<WORKLOAD>"]);
    misused(Sbx::new("compile"), &["<WORKLOAD>"]);
}

#[test]
fn unknown_and_misspelt_flags() {
    let run = Sbx::run(guest("exit"));
    misused(run.flags("--memroy 1M"), &["--memroy", "--memory"]);
    misused(Sbx::run(guest("exit")).flags("--net host"), &["--net"]);
    misused(Sbx::new("run").flag("--\u{fe}", ""), &["unexpected argument"]);
    misused(Sbx::new("run").flag("-e", OsStr::from_bytes(b"\xff")), &["<WORKLOAD>"]);
}

#[test]
fn values_that_are_no_limits() {
    for (flag, value, word) in [
        ("--memory", "lots", "not a size"),
        ("--memory", "-1", "-1"),
        ("--memory", "1.5G", "not a size"),
        ("--memory", "99999999999999999999", "not a size"),
        ("--memory", "16777216T", "more than 16 EiB"),
        ("--timeout", "0", "zero allows nothing"),
        ("--timeout", "soon", "not a duration"),
        ("--timeout", "1e400", "not a duration"),
        ("--cpu-time", "nan", "not a duration"),
        ("--cpus", "0", "not a number of processors"),
        ("--cpus", "1e99", "not a number of processors"),
        ("--pids", "-1", "-1"),
        ("--pids", "4294967296", "4294967296"),
        ("--fds", "many", "many"),
        ("--output", "1X", "not a size"),
        ("--disk", "", "--disk"),
        ("--fuel", "18446744073709551616", "18446744073709551616"),
        ("--compile-memory", "x", "not a size"),
    ] {
        misused(Sbx::run(guest("exit")).flag(flag, value), &[word]);
    }
}

#[test]
fn the_largest_limits_are_no_trouble() {
    let largest = "--memory 17179869183G --timeout 18446744073709551615s --cpu-time 1e18 --pids \
                   4294967295 --fds 4294967295 --output 17179869183G --disk 17179869183G \
                   --fuel 18446744073709551615";
    let end = Sbx::run(guest("exit")).flags(largest).end();
    end.assert_no_debug_output();
    // The host may not let a process have so many files; that is refused like any limit.
    match end.status.code() {
        Some(0) => drop(end.silent()),
        _ => drop(end.status(125).says_only(&["--fds"])),
    }
}

#[test]
fn volumes_that_are_none() {
    let with = |volume: &str| Sbx::run(guest("exit")).flag("-v", volume);
    for volume in ["", "x", "/tmp:", ":/data", "/tmp:relative", "/tmp:/a/../b", "/tmp:ro"] {
        misused(with(volume), &["-v"]).assert_no_debug_output();
    }
    refused(with("/nowhere/at/all:/data"), &["host side, /nowhere/at/all, does not exist"]);
    refused(with("/etc/passwd:/data"), &["/etc/passwd, is not a directory"]);
    let dir = tempdir();
    let volume = |at| format!("{}:{at}", dir.path().display());
    refused(with(&volume("/a")).flag("-v", volume("/a/")), &["two volumes have the guest path /a"]);
    let gone = dir.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &gone).unwrap();
    refused(with(&format!("{}:/data", gone.display())), &["does not exist"]);
}

#[test]
fn a_volume_that_may_not_be_entered() {
    if !crate::support::is_root() {
        return crate::support::skipped("only root can become another user");
    }
    let dir = tempdir();
    let volume = format!("{}/inner:/data", dir.path().display());
    std::fs::create_dir(dir.path().join("inner")).unwrap();
    crate::bad_files::set_mode(dir.path(), 0o700);
    let run = Sbx::run(guest("exit")).flag("-v", volume).user(65534);
    refused(run, &["cannot open the volume", "Permission denied"]);
}

#[test]
fn network_grants_that_are_none() {
    for rule in
        ["example.com", "example.com:", "example.com:http", ":80", "10.0.0.0/99:80", "a:9-1"]
    {
        misused(Sbx::run(guest("exit")).flag("--allow-net", rule), &["HOST:PORT"]);
    }
    misused(Sbx::run(guest("exit")).flag("--listen", "localhost"), &["--listen"]);
}

/// What a core module could not use is not granted silently.
#[test]
fn network_grants_that_no_one_can_use() {
    for grant in ["--allow-net example.com:80", "--listen 127.0.0.1:0"] {
        refused(Sbx::run(guest("exit")).flags(grant), &["need a component", "wasm32-wasip2"]);
    }
}

#[test]
fn invoking_what_is_not_there() {
    let component = Sbx::run(crate::support::component("exit")).flags("--invoke run");
    refused(component, &["--invoke calls functions of core modules"]);
    let module = Sbx::run(guest("reactor")).flags("--invoke none");
    refused(module, &["exports no function none", "add, greet"]);
    let bad = Sbx::run(guest("reactor"))
        .flags("--invoke add")
        .args([OsStr::from_bytes(b"\xff"), OsStr::new("1")]);
    refused(bad, &["argument 1", "UTF-8"]);
}

#[test]
fn names_that_are_no_text() {
    let name = OsStr::from_bytes(b"/nowhere/\xff\n.wasm");
    let end = Sbx::run(name).end().status(127).prints("");
    assert!(end.err().starts_with("sbx: there is no workload at /nowhere/"), "{end}");
    let dir = tempdir();
    let path = dir.path().join(OsStr::from_bytes(b"\xff.wasm"));
    std::fs::copy(guest("exit"), &path).unwrap();
    Sbx::run(&path).args(["7"]).end().status(7).silent();
    Sbx::run(&path).flag("-v", "/tmp:/x").args(["0"]).cwd(dir.path()).end().status(0).silent();
}
