//! `--output`: standard output and error together hold no more than this. The workload is ended at
//! the byte: status 153 (as by SIGXFSZ) and a sentence.

use crate::support::{Outcome, Sbx, tempdir, wat};
use crate::{Backend, on_every_backend};

on_every_backend! {
    exactly_the_limit_is_left_alone,
    more_is_cut_at_the_byte,
    nothing_is_nothing,
    a_reader_that_goes_away_ends_it,
    errors_count,
}

fn exactly_the_limit_is_left_alone(backend: Backend) {
    let end = backend.run("flood").flags("--output 100000").args(["100000"]).end().status(0);
    assert_eq!(end.stdout.len(), 100_000);
    end.silent();
}

fn more_is_cut_at_the_byte(backend: Backend) {
    for limit in backend.sample(&[1, 65536, 100_001]) {
        let end = backend.run("flood").flags(&format!("--output {limit}")).end().status(153);
        assert_eq!(end.stdout.len(), *limit);
        end.says_only(&["stopped after writing its --output limit of"]);
    }
}

fn nothing_is_nothing(backend: Backend) {
    let end = backend.run("args").flags("--output 0").end().status(153).prints("");
    end.says_only(&["--output limit of 0 B"]);
}

/// Endless output into a closed pipe: the end is SIGPIPE, as for a native program, and silent.
fn a_reader_that_goes_away_ends_it(backend: Backend) {
    let line = r#"{ "$@"; echo "status $?" >&2; } | head -c 10"#;
    let end = backend.run("flood").through_shell(line).end().status(0).prints("xxxxxxxxxx");
    assert_eq!(end.err(), "status 141\n");
}

fn errors_count(backend: Backend) {
    // A line for each MiB is on standard error; the last is cut, and what sbx says comes behind it.
    let end = backend.run("alloc").flags("--output 10").args(["30"]).end().status(153);
    let (own, said) =
        end.err().split_once("sbx: ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(own, "1 MiB\n2 Mi", "{end}");
    assert!(said.contains("--output limit of 10 B"), "{end}");
}

/// Runs a module that first does `before` and then writes 64 bytes in turn to `streams` for ever.
fn write_to(streams: &[u32], before: &str) -> Outcome {
    let dir = tempdir();
    let writes: String = streams
        .iter()
        .map(|fd| {
            format!(
                "(drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))"
            )
        })
        .collect();
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
              (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_renumber"
              (func $renumber (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\40\00\00\00")
            (data (i32.const 16) "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\0a")
            (func (export "_start") {before} (loop $l {writes} (br $l))))"#
    );
    Sbx::run(wat(dir.path(), &text)).flags("--output 1000").end()
}

#[test]
fn both_streams_share_the_limit() {
    let end = write_to(&[1, 2], "").status(153);
    // What sbx says comes behind the workload's last, unfinished line.
    let (own, said) = end.err().split_once("sbx: ").map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    assert_eq!(end.stdout.len() + own, 1000, "{end}");
    assert!(own > 400, "{end}");
    assert!(said.contains("--output limit of 1000 B"), "{end}");
}

#[test]
fn another_number_for_a_stream_is_no_way_around() {
    let renumber = "(drop (call $renumber (i32.const 1) (i32.const 2)))";
    let end = write_to(&[2], renumber).status(153);
    assert_eq!(end.stdout.len(), 1000, "{end}");
}
