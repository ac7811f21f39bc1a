//! `--explain` says what a workload is, what it imports and what it would be granted, and runs
//! nothing. A secret's value is not printed.

use crate::support::{Sbx, component, guest, root, tempdir};

#[test]
fn a_module_with_nothing() {
    let end = Sbx::run(root().join("examples/c/hello.wasm")).flags("--explain").end();
    let end = end.status(0).silent();
    let out = end.out();
    assert!(
        out.contains("backend     wasm, because the file is a core module using WASI preview 1\n"),
        "{end}"
    );
    assert!(out.contains("imports     wasi_snapshot_preview1."), "{end}");
    assert!(out.ends_with("granted     nothing\nlimits      none\n"), "{end}");
    assert!(!out.contains("Hello"), "it ran: {end}");
}

#[test]
fn a_component() {
    let end = Sbx::run(component("exit")).flags("--explain").end().status(0).silent();
    assert!(end.out().contains("a component using WASI 0.2\n"), "{end}");
    assert!(end.out().contains("wasi:cli/exit@0.2."), "{end}");
}

#[test]
fn every_grant_and_limit() {
    let dir = tempdir();
    let host = dir.path().display();
    let limits = "--memory 64M --timeout 10s --cpu-time 5s --cpus 0.5 --pids 1 --fds 16 --output 1M \
                  --disk 16M --fuel 1000";
    let run = Sbx::run(component("exit")).flags("--explain -i -t -w /data").flags(limits);
    let run =
        run.volume(dir.path(), "/data").volume(dir.path(), "/ro:ro").flag("-e", "TOKEN=hunter2");
    let run = run.flags("--allow-net example.com:443 --listen 127.0.0.1:80");
    let end = run.end().status(0).silent();
    let out = end.out();
    for line in [
        &format!("directory {host} at /data, read and write"),
        &format!("directory {host} at /ro, read-only"),
        "variable TOKEN",
        "working directory /data",
        "connections to example.com:443",
        "listening on 127.0.0.1:80",
        "standard input",
        "the terminal",
        "--memory 64 MiB",
        "--timeout 10s",
        "--cpu-time 5s",
        "--cpus 0.5",
        "--pids 1",
        "--fds 16",
        "--output 1 MiB",
        "--disk 16 MiB",
        "--fuel 1000",
    ] {
        assert!(out.lines().any(|l| l.ends_with(line)), "{line:?} is missing\n{end}");
    }
    assert!(!out.contains("hunter2"), "{end}");
}

#[test]
fn what_cannot_run_is_told_all_the_same() {
    Sbx::run("/nowhere")
        .flags("--explain")
        .end()
        .status(127)
        .prints("")
        .says_only(&["no workload"]);
    Sbx::run("/bin/true")
        .flags("--explain")
        .end()
        .status(126)
        .prints("")
        .says_only(&["shared libraries", "--rootfs"]);
}

#[test]
fn names_in_a_module_cannot_paint_the_terminal() {
    let dir = tempdir();
    let path = crate::support::wat(dir.path(), r#"(module (import "a\1b[2J" "b\0a" (func)))"#);
    let end = Sbx::run(path).flags("--explain").end();
    assert!(!end.stdout.contains(&0x1b) && !end.stderr.contains(&0x1b), "{end}");
}

#[test]
fn where_the_code_is() {
    let (dir, cache) = (tempdir(), tempdir());
    let path = dir.path().join("app.wasm");
    std::fs::copy(guest("exit"), &path).unwrap();
    let explain = || Sbx::run(&path).cache(cache.path()).flags("--explain").end().status(0).out();
    assert!(explain().contains("compiled just now"));
    assert!(explain().contains("in the cache"));
}
