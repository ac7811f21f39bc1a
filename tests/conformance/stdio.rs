//! Standard streams are the caller's own, passed through byte by byte and at once; standard input is
//! empty unless it is granted, and none is a terminal unless that is.

use crate::support::{Sbx, guest, tempdir};
use crate::{Backend, on_every_backend};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

on_every_backend! {
    arguments_are_the_workloads,
    input_is_empty_unless_granted,
    granted_input_passes_through,
    output_comes_at_once,
    streams_are_kept_apart,
    no_stream_is_a_terminal,
    closed_streams_are_no_trouble,
    other_descriptors_are_not_inherited;
    // Arguments of a WASI program are text, and its writes are sbx's own.
    wasm: arguments_that_are_no_text_are_refused, a_full_device_is_an_error_of_the_workloads;
    // Linux takes any bytes, and a machine's output is written when the program has gone on.
    vm: arguments_that_are_no_text_arrive, a_full_device_is_told,
}

fn arguments_are_the_workloads(backend: Backend) {
    let args = ["a b", "", "--memory", "-v", "--", "ünïcode", "$HOME"];
    let end = backend.run("args").args(args).end().status(0);
    let name = backend.called("args");
    end.prints(&format!("{name}\na b\n\n--memory\n-v\n--\nünïcode\n$HOME\n")).silent();
}

fn arguments_that_are_no_text_are_refused(backend: Backend) {
    let end = backend.run("args").args(["ok"]).args([OsStr::from_bytes(b"\xff\xfe")]).end();
    end.status(125).prints("").says_only(&["argument 2", "UTF-8"]);
}

fn arguments_that_are_no_text_arrive(backend: Backend) {
    let end = backend.run("args").args([OsStr::from_bytes(b"\xff\xfe")]).end().status(0);
    assert!(end.stdout == b"/app/args\n\xff\xfe\n", "{end}");
}

fn input_is_empty_unless_granted(backend: Backend) {
    backend.run("cat").stdin("secret").end().status(0).prints("").silent();
}

fn granted_input_passes_through(backend: Backend) {
    let bytes: Vec<u8> =
        (0..10_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let end = backend.run("cat").flags("-i").stdin(bytes.clone()).end().status(0);
    assert!(end.stdout == bytes, "{} bytes of {}", end.stdout.len(), bytes.len());
    end.silent();
}

/// What is written is there to be read while the workload still runs.
fn output_comes_at_once(backend: Backend) {
    let running = backend.run("sleep").args(["3600000"]).start();
    running.until("sleeping\n");
    running.signal(Signal::TERM);
    running.end().status(143);
}

fn streams_are_kept_apart(backend: Backend) {
    let end = backend.run("alloc").args(["1"]).end().status(0).prints("ok 1 MiB\n");
    assert_eq!(end.err(), "1 MiB\n");
}

fn no_stream_is_a_terminal(backend: Backend) {
    let end = backend.run("tty").flags("-i -t").end().status(0);
    end.prints("0 not a tty\n1 not a tty\n2 not a tty\n");
}

fn closed_streams_are_no_trouble(backend: Backend) {
    let dir = tempdir();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    for line in [r#""$@" <&-"#, r#""$@" 2>&-"#, r#""$@" <&- 2>&-"#] {
        let run = backend.run("files").volume(dir.path(), "/data").flags("-i");
        let end = run.args(["read", "/data/file"]).through_shell(line).end();
        end.status(0).prints("content");
    }
    let run = backend.run("files").volume(dir.path(), "/data");
    run.args(["write", "/data/new", "x"]).through_shell(r#""$@" >&-"#).end().prints("");
    assert_eq!(std::fs::read(dir.path().join("new")).unwrap(), b"x");
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"content");
}

fn a_full_device_is_an_error_of_the_workloads(backend: Backend) {
    let end = backend.run("flood").through_shell(r#""$@" >/dev/full"#).end().status(1);
    assert!(end.err().starts_with("write: E"), "{end}");
    end.assert_no_debug_output();
}

fn a_full_device_is_told(backend: Backend) {
    let end = backend.run("flood").through_shell(r#""$@" >/dev/full"#).end().status(125);
    end.says_only(&["standard output cannot be written", "No space left"]);
}

/// A descriptor that sbx was started with is not the workload's, and takes no number of its own.
fn other_descriptors_are_not_inherited(backend: Backend) {
    let dir = tempdir();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let run = backend.run("open-many").volume(dir.path(), "/data").flags("--fds 3");
    let line = r#""$@" 3</etc/passwd 4<. 9</etc/passwd"#;
    let end = run.args(["/data/file", "3"]).through_shell(line).end();
    end.status(0).prints("opened 3\n");
}

#[test]
fn options_behind_the_workload_are_not_sbxs() {
    let end = Sbx::run(guest("args")).args(["--help", "--version"]).end();
    end.status(0).prints("args.wasm\n--help\n--version\n");
}
