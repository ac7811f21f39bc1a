//! `--policy`: a file says what flags say, its relative paths start where it is, what it does not
//! know it refuses, and flags win over it.

use crate::support::{Sbx, component, guest, root, tempdir};
use std::fs;
use std::path::Path;

fn with(dir: &Path, policy: &str, guest_name: &str) -> Sbx {
    let file = dir.join("policy.toml");
    fs::write(&file, policy).unwrap();
    Sbx::run(guest(guest_name)).flag("--policy", file)
}

#[test]
fn grants_come_from_the_file() {
    let dir = tempdir();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/file"), "content").unwrap();
    let policy = "volumes = ['data:/data:ro']\nworkdir = '/data'";
    // Not where the policy is: the path is relative to the file all the same.
    let run =
        |args: &[&str]| with(dir.path(), policy, "files").cwd(Path::new("/")).args(args).end();
    run(&["read", "file"]).status(0).prints("content");
    run(&["rm", "file"]).status(1).says(&["read-only"]);
    let end = with(dir.path(), "env = { A = '1', B = 'x y' }", "environ").env("C", "3").end();
    end.status(0).prints("A=1\nB=x y\n");
    with(dir.path(), "stdin = true", "cat").stdin("in").end().status(0).prints("in");
}

#[test]
fn limits_come_from_the_file() {
    let dir = tempdir();
    let limit =
        |line: &str, guest: &str| with(dir.path(), &format!("[limits]\n{line}"), guest).end();
    limit("timeout = '300ms'", "spin").status(124).says(&["--timeout of 300ms"]);
    limit("cpu-time = '200ms'", "spin").status(124).says(&["--cpu-time of 200ms"]);
    limit("fuel = 10000000", "spin").status(124).says(&["--fuel"]);
    assert_eq!(limit("output = '1K'", "flood").status(153).stdout.len(), 1024);
    limit("memory = '8M'", "alloc").status(3);
    limit("pids = 0", "exit").status(125).says(&["--pids 0"]);
}

#[test]
fn flags_win() {
    let dir = tempdir();
    for name in ["one", "two"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), name).unwrap();
    }
    let policy = "volumes = ['one:/data', 'one:/kept']\nenv = { A = 'file', B = 'file' }\n\
                  [limits]\nfuel = 1\noutput = '1M'";
    let flags = |name| {
        let run = with(dir.path(), policy, name).flags("--fuel 100000000").flag("-e", "A=flag");
        run.volume(&dir.path().join("two"), "/data")
    };
    flags("files").args(["read", "/data/file"]).end().status(0).prints("two");
    flags("files").args(["read", "/kept/file"]).end().status(0).prints("one");
    let end = flags("environ").end().status(0);
    let mut lines: Vec<String> = end.out().lines().map(Into::into).collect();
    lines.sort();
    assert_eq!(lines, ["A=flag", "B=file"]);
}

#[test]
fn what_it_does_not_know_is_refused() {
    let dir = tempdir();
    for (policy, words) in [
        ("volume = []", &["line 1", "volume"][..]),
        ("\n\n[limits]\nmem = '1M'", &["line 4", "mem"]),
        ("[limit]\nmemory = '1M'", &["limit"]),
        ("volumes = ['nowhere']", &["HOST:GUEST"]),
        ("volumes = 'a:/a'", &["line 1"]),
        ("allow-net = ['example.com']", &["HOST:PORT"]),
        ("listen = ['nowhere']", &["nowhere"]),
        ("[limits]\nmemory = 64", &["line 2"]),
        ("[limits]\ntimeout = '0s'", &["zero"]),
        ("[limits]\ncpus = -1", &["processors"]),
        ("stdin = 'yes'", &["line 1"]),
        ("= broken", &["line 1"]),
        ("env = { A = 1 }", &["line 1"]),
        ("stdin = true\nstdin = true", &["line 2"]),
        ("workdir = 'data'", &["working directory is wrong", "absolute"]),
    ] {
        let end = with(dir.path(), policy, "exit").end().status(125).prints("");
        end.says_only(words);
    }
}

#[test]
fn a_file_that_is_none() {
    let run = |path: &Path| Sbx::run(guest("exit")).flag("--policy", path).end().status(125);
    run(Path::new("/nowhere.toml")).says_only(&["cannot read the policy /nowhere.toml"]);
    run(Path::new("/usr")).says_only(&["cannot read the policy /usr"]);
    run(&guest("exit")).says_only(&["cannot read the policy"]);
}

#[test]
fn the_sample_is_valid() {
    let dir = tempdir();
    fs::copy(root().join("examples/policy.toml"), dir.path().join("policy.toml")).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let run = Sbx::run(component("environ")).flag("--policy", dir.path().join("policy.toml"));
    let end = run.end().status(0).silent();
    assert!(end.out().contains("GREETING=hello"), "{end}");
}
