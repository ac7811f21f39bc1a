//! `--fuel`: a budget of instructions, counted alike on every run. A workload that has spent it is
//! ended at the same instruction each time: status 124 and a sentence. Only WebAssembly's can be counted so;
//! a microVM refuses.

use crate::support::{Sbx, tempdir, wat};
use crate::{Backend, on_every_backend};

on_every_backend! {
;
    wasm: enough_is_left_alone, a_loop_is_ended, one_run_is_like_the_other;
    vm: what_cannot_be_counted_is_refused,
}

fn what_cannot_be_counted_is_refused(backend: Backend) {
    let end = backend.run("exit").flags("--fuel 1000000").args(["0"]).end().status(125).prints("");
    end.says_only(&["--fuel counts WebAssembly instructions", "--cpu-time"]);
}

fn enough_is_left_alone(backend: Backend) {
    let end = backend.run("args").flags("--fuel 100000000").end();
    end.status(0).prints("args.wasm\n").silent();
}

fn a_loop_is_ended(backend: Backend) {
    let end = backend.run("spin").flags("--fuel 10000000").end().status(124);
    end.prints("spinning\n").says_only(&["stopped after using its --fuel of 10000000"]);
}

/// The least fuel that suffices is one number: with it a run ends well each time, and with one less
/// it never does.
fn one_run_is_like_the_other(backend: Backend) {
    let ends_well = |fuel: u64| {
        let end = backend.run("args").flags(&format!("--fuel {fuel}")).args(["a", "b"]).end();
        match end.status.code() {
            Some(0) => true,
            Some(124) => false,
            _ => panic!("{end}"),
        }
    };
    let (mut too_little, mut enough) = (0, 10_000_000);
    while too_little + 1 < enough {
        let middle = (too_little + enough) / 2;
        *(if ends_well(middle) { &mut enough } else { &mut too_little }) = middle;
    }
    for _ in 0..10 {
        assert!(ends_well(enough), "{enough}");
        assert!(!ends_well(enough - 1), "{enough}");
    }
}

/// Where it is ended shows in how far it got.
#[test]
fn it_ends_at_the_same_instruction() {
    let dir = tempdir();
    let module = wat(
        dir.path(),
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
              (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\08\00\00\00\01\00\00\00.")
            (func (export "_start") (local $i i32)
              (loop $forever
                (local.set $i (i32.const 0))
                (loop $l
                  (local.set $i (i32.add (local.get $i) (i32.const 1)))
                  (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
                (br $forever))))"#,
    );
    let got = |fuel: &str| {
        let end = Sbx::run(&module).flag("--fuel", fuel).end().status(124);
        end.stdout.len()
    };
    let first = got("1000000");
    assert!(first > 10, "it got {first} times around");
    assert_eq!(got("1000000"), first);
    let twice = got("2000000");
    assert!(twice.abs_diff(2 * first) <= 1, "{twice} is not twice {first}");
}

#[test]
fn calls_of_the_host_cost_fuel_too() {
    let dir = tempdir();
    let module = r#"(module
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (loop $l (drop (call $yield)) (br $l))))"#;
    Sbx::run(wat(dir.path(), module))
        .flags("--fuel 100000")
        .end()
        .status(124)
        .says_only(&["--fuel"]);
}

/// A refusal of memory that the workload coped with does not become the reason of its end.
#[test]
fn spent_fuel_is_the_reason_even_after_memory_was_refused() {
    let dir = tempdir();
    let module = r#"(module
        (memory (export "memory") 1)
        (func (export "_start")
            (drop (memory.grow (i32.const 1000)))
            (loop $l (br $l))))"#;
    let run = Sbx::run(wat(dir.path(), module)).flags("--memory 1M --fuel 100000");
    run.end().status(124).says_only(&["--fuel"]);
}
