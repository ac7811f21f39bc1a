//! Promise: every command that an example documents in its header works as it says there.
//!
//! A test takes its command from the header and gives it to a shell in the repository's root, with
//! sbx on the PATH. What names a host of the Internet or a port of this machine is changed to a
//! server of the test's own, and nothing else is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod network;

use std::fs;
use std::path::Path;
use std::time::Duration;
use support::{Outcome, Sbx, root};

/// The JavaScript and Python engines take a while to compile.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command line for a shell, in which `sbx` is the one under test.
fn shell(line: &str) -> Sbx {
    let sbx = Path::new(env!("CARGO_BIN_EXE_sbx")).parent().unwrap();
    Sbx::new("")
        .through_shell(line)
        .env("PATH", format!("{}:/usr/bin:/bin", sbx.display()))
        .cwd(root())
        .patience(PATIENCE)
}

/// The commands in the comments of a file.
fn documented_in(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| Some(&line[line.find("sbx run ")?..]))
        // Some have a remark behind them, set off with spaces.
        .map(|command| command.split("  ").next().unwrap().trim().to_owned())
        .collect()
}

/// `command`, if examples/`file` documents it and what it runs has been built.
#[track_caller]
fn documented(file: &str, command: &str) -> String {
    let commands = documented_in(&root().join("examples").join(file));
    assert!(commands.iter().any(|c| c == command), "examples/{file} documents only {commands:?}");
    let workload = command.split(' ').find(|word| word.ends_with(".wasm"));
    if let Some(missing) = workload.filter(|path| !root().join(path).is_file()) {
        panic!("{missing} is missing; build it with: examples/build");
    }
    command.to_owned()
}

/// Runs what examples/`file` documents.
#[track_caller]
fn run(file: &str, command: &str) -> Outcome {
    shell(&documented(file, command)).end()
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_documented_command_has_a_test() {
    let tests = [include_str!("main.rs"), include_str!("network.rs")].concat();
    let text = |path: &&std::path::PathBuf| fs::read_to_string(path).is_ok();
    let files = files(&root().join("examples"));
    let commands: Vec<_> = files.iter().filter(text).flat_map(|p| documented_in(p)).collect();
    assert!(commands.len() >= 16, "{commands:?}");
    for command in commands {
        assert!(tests.contains(&format!("\"{command}\"")), "there is no test of: {command}");
    }
}

#[test]
fn hello() {
    let end = run("hello.wat", "sbx run examples/hello.wat");
    drop(end.status(0).prints("Hello from a sandbox!\n").silent());
}

#[test]
fn hello_in_c() {
    let end = run("c/hello.c", "sbx run examples/c/hello.wasm");
    drop(end.status(0).prints("Hello from C!\n").silent());
    let end = run("c/hello.c", "sbx run examples/c/hello-component.wasm");
    drop(end.status(0).prints("Hello from C!\n").silent());
}

/// The committed programs may be older than those that `examples/build` makes, not different.
#[test]
fn what_is_built_behaves_like_what_is_committed() {
    for name in ["hello.wasm", "hello-component.wasm"] {
        let built = root().join("target/examples").join(name);
        assert!(built.is_file(), "{} is missing; build it with: examples/build", built.display());
        drop(Sbx::run(built).end().status(0).prints("Hello from C!\n").silent());
    }
    let built = root().join("target/examples/primes.wasm");
    drop(Sbx::run(built).args(["10"]).end().status(0).prints("2\n3\n5\n7\n").silent());
}

#[test]
fn wordcount() {
    let command =
        "sbx run -v ./examples/data:/data:ro target/examples/wordcount.wasm /data/words.txt";
    drop(run("c/wordcount.c", command).status(0).prints("5 30 149 /data/words.txt\n").silent());
}

/// "Without -v it cannot even name the file, whatever the rights of its user on the host."
#[test]
fn wordcount_without_its_grant() {
    let file = root().join("examples/data/words.txt");
    for path in ["/data/words.txt", "examples/data/words.txt", file.to_str().unwrap()] {
        let end = shell(&format!("sbx run target/examples/wordcount.wasm {path}")).end();
        let end = end.status(1).prints("");
        assert!(end.err().starts_with(&format!("wordcount: {path}: ")), "{end}");
    }
}

#[test]
fn primes() {
    let end = run("rust/primes.rs", "sbx run examples/rust/primes.wasm 50");
    let primes = "2\n3\n5\n7\n11\n13\n17\n19\n23\n29\n31\n37\n41\n43\n47\n";
    drop(end.status(0).prints(primes).silent());
}

/// "A large argument runs into whichever limit is set."
#[test]
fn primes_and_memory() {
    let command = "sbx run --memory 64M examples/rust/primes.wasm 2000000000";
    let end = run("rust/primes.rs", command);
    drop(end.status(137).prints("").says(&["ran out of memory: --memory is 64 MiB"]));
}

#[test]
fn primes_and_processor_time() {
    let command = "sbx run --cpu-time 1s examples/rust/primes.wasm 200000000";
    drop(run("rust/primes.rs", command).status(124).says_only(&["--cpu-time of 1s"]));
}

#[test]
fn primes_and_output() {
    let command = "sbx run --output 1K examples/rust/primes.wasm 1000000";
    let end = run("rust/primes.rs", command);
    assert_eq!(end.stdout.len(), 1024, "{end}");
    assert!(end.out().starts_with("2\n3\n5\n7\n11\n"), "{end}");
    drop(end.status(153).says_only(&["--output limit of 1 KiB"]));
}

#[test]
fn workers() {
    let command = "sbx run -i -e TOP=3 target/examples/workers.wasm < examples/data/words.txt";
    drop(run("go/workers.go", command).status(0).prints("3 a\n2 and\n1 all\n").silent());
    // "-i, without which standard input is empty"
    let without = command.replace(" -i", "");
    drop(shell(&without).end().status(0).prints("").silent());
}

#[test]
fn greet() {
    let end = run("javascript/greet.js", "sbx run target/examples/greet.wasm Ada Grace");
    drop(end.status(0).prints("Hello, Ada!\nHello, Grace!\n").silent());
    let end = run("javascript/greet.js", "sbx run -e NAME=Alan target/examples/greet.wasm");
    drop(end.status(0).prints("Hello, Alan!\n").silent());
    // A variable of the caller's is not the workload's.
    let end = shell("NAME=Alan sbx run target/examples/greet.wasm").end();
    drop(end.status(0).prints("Hello, nobody!\n").silent());
}
