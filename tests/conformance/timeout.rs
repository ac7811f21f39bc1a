//! `--timeout`: when the time is over the workload is killed, whatever it is doing: status 124 and a
//! sentence. It counts time on the clock, and only the workload's.

use crate::support::{Outcome, Sbx, tempdir, wat};
use crate::{Backend, on_every_backend};

on_every_backend! {
    one_that_ends_in_time_is_left_alone,
    a_loop_is_ended,
    sleep_is_ended,
    a_read_that_never_ends_is_ended,
    a_write_that_nobody_reads_is_ended,
    a_timeout_beyond_the_clock_never_comes,
}

const REASON: &[&str] = &["stopped after its --timeout of 300ms"];

/// Runs it until a short time is over.
fn to_its_end(backend: Backend, run: Sbx) -> Outcome {
    let end = run.flag("--timeout", backend.short()).end();
    end.says_only(&[&format!("stopped after its --timeout of {}", backend.short())])
}

fn one_that_ends_in_time_is_left_alone(backend: Backend) {
    backend.run("exit").flags("--timeout 50s").args(["0"]).end().status(0).silent();
}

fn a_loop_is_ended(backend: Backend) {
    to_its_end(backend, backend.run("spin")).status(124).prints("spinning\n");
}

fn sleep_is_ended(backend: Backend) {
    let run = backend.run("sleep").args(["3600000"]);
    to_its_end(backend, run).status(124).prints("sleeping\n");
}

fn a_read_that_never_ends_is_ended(backend: Backend) {
    let run = backend.run("cat").flags("-i").stdin_open();
    to_its_end(backend, run).status(124).prints("");
}

/// Standard output is a pipe that is full, whose other end is open and never read.
fn a_write_that_nobody_reads_is_ended(backend: Backend) {
    let pipe = r#"p=$TMPDIR/p; mkfifo "$p" && exec 3<>"$p" && rm "$p" && "$@" >&3 3>&-"#;
    to_its_end(backend, backend.run("flood").through_shell(pipe)).status(124);
}

fn a_timeout_beyond_the_clock_never_comes(backend: Backend) {
    backend.run("exit").flags("--timeout 1000000000000s").args(["0"]).end().status(0).silent();
}

/// Engines that look at a clock between instructions do not see inside one.
#[test]
fn one_long_instruction_is_ended() {
    for step in
        ["memory.fill (i32.const 0) (i32.const 7)", "memory.copy (i32.const 0) (i32.const 9)"]
    {
        let dir = tempdir();
        let text = format!(
            r#"(module (memory 40000)
                (func (export "_start") (loop $l ({step} (i32.const 2600000000)) (br $l))))"#
        );
        Sbx::run(wat(dir.path(), &text))
            .flags("--timeout 300ms")
            .end()
            .status(124)
            .says_only(REASON);
    }
}

#[test]
fn waiting_in_poll_for_input_and_a_far_clock_is_ended() {
    let dir = tempdir();
    // Two subscriptions of 48 bytes: a clock in a century, and reading standard input.
    let module = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff"
          (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")
          (i32.store (i32.const 16) (i32.const 1))
          (i64.store (i32.const 24) (i64.const 3000000000000000000))
          (i32.store8 (i32.const 56) (i32.const 1))
          (drop (call $poll (i32.const 0) (i32.const 200) (i32.const 2) (i32.const 400)))))"#;
    let run = Sbx::run(wat(dir.path(), module)).flags("--timeout 300ms -i").stdin_open();
    run.end().status(124).says_only(REASON);
}
