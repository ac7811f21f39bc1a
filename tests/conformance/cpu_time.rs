//! `--cpu-time`: a workload that has used this much of a processor is killed: status 124 and a
//! sentence. Waiting is free.

use crate::support::{Sbx, tempdir, wat};
use crate::{Backend, on_every_backend};

on_every_backend! {
    waiting_is_free,
    a_loop_is_ended,
    less_is_left_alone,
}

const REASON: &[&str] = &["stopped after using its --cpu-time of 200ms"];

fn waiting_is_free(backend: Backend) {
    let end = backend.run("sleep").flags("--cpu-time 500ms").args(["1000"]).end();
    end.status(0).prints("sleeping\nslept 1000 ms\n");
}

fn a_loop_is_ended(backend: Backend) {
    backend.run("spin").flags("--cpu-time 200ms").end().status(124).says_only(REASON);
}

fn less_is_left_alone(backend: Backend) {
    backend.run("exit").flags("--cpu-time 30s").args(["0"]).end().status(0).silent();
}

/// Runs `body` for ever in a module with what the loops below need.
fn forever(body: &str) {
    let dir = tempdir();
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "clock_time_get"
              (func $clock (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
            (memory (export "memory") 40000)
            (func (export "_start") (loop $l {body} (br $l))))"#
    );
    Sbx::run(wat(dir.path(), &text)).flags("--cpu-time 200ms").end().status(124).says_only(REASON);
}

#[test]
fn long_instructions_are_ended() {
    forever("(memory.fill (i32.const 0) (i32.const 7) (i32.const 2600000000))");
    forever("(memory.copy (i32.const 0) (i32.const 9) (i32.const 2600000000))");
}

/// What the host does on the workload's behalf is the workload's time.
#[test]
fn calls_of_the_host_are_ended() {
    forever("(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0)))");
    forever("(drop (call $random (i32.const 0) (i32.const 60000000)))");
    forever("(drop (call $yield))");
}
