//! `--pids`: a workload makes no process and no thread beyond the limit. A WASI program cannot make
//! any: it is one thread, and one that wants more is refused before it runs. In a machine, more are
//! refused by its kernel.

use crate::support::{Sbx, tempdir, wat};
use crate::{Backend, on_every_backend};
use rustix::process::Signal;
use std::fs;

on_every_backend! {
    one_is_enough,
    none_is_refused;
    // A machine is a process with threads of its own: each processor is one.
    wasm: a_workload_is_one_thread;
    vm: as_many_as_allowed_are_left_alone, one_more_is_refused,
}

fn one_is_enough(backend: Backend) {
    backend.run("exit").flags("--pids 1").args(["0"]).end().status(0).silent();
}

fn none_is_refused(backend: Backend) {
    backend.run("exit").flags("--pids 0").end().status(125).says_only(&["--pids 0 leaves no"]);
}

fn as_many_as_allowed_are_left_alone(backend: Backend) {
    for kind in ["processes", "threads"] {
        let end = backend.run("forks").flags("--pids 20").args([kind, "19"]).end();
        end.status(0).prints("made 19\n").silent();
    }
}

fn one_more_is_refused(backend: Backend) {
    // The program itself is one of them.
    for (pids, kind, made) in [(1, "processes", 0), (10, "processes", 9), (10, "threads", 9)] {
        let end = backend.run("forks").flags(&format!("--pids {pids}")).args([kind, "1000"]).end();
        end.status(1).prints(&format!("made {made}, then EAGAIN\n")).silent();
    }
}

fn a_workload_is_one_thread(backend: Backend) {
    for (guest, args, sign) in
        [("spin", &[][..], "spinning"), ("sleep", &["60000"][..], "sleeping")]
    {
        let running = backend.run(guest).flags("--pids 1").args(args).start();
        running.until(sign);
        let tasks = format!("/proc/{}/task", running.workload().as_raw_nonzero());
        assert_eq!(fs::read_dir(tasks).unwrap().count(), 1, "{guest} has more threads");
        running.signal(Signal::TERM);
        running.end().status(143).silent();
    }
}

#[test]
fn spawning_threads_is_refused() {
    let dir = tempdir();
    let module = r#"(module
        (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "wasi_thread_start") (param i32 i32))
        (func (export "_start") (loop $l (drop (call $spawn (i32.const 0))) (br $l))))"#;
    let end = Sbx::run(wat(dir.path(), module)).flags("--pids 1").end();
    end.status(126).prints("").says_only(&["wasi.thread-spawn", "threads"]);
}

#[test]
fn a_memory_for_threads_is_refused() {
    let dir = tempdir();
    for module in [
        r#"(module (import "env" "memory" (memory 1 2 shared)) (func (export "_start")))"#,
        r#"(module (memory (export "memory") 1 2 shared) (func (export "_start")))"#,
    ] {
        let end = Sbx::run(wat(dir.path(), module)).flags("--pids 1").end();
        end.status(126).says_only(&["threads"]);
    }
}
