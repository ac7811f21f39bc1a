//! The exit status is the workload's own; one that did not end by itself has the status of its
//! reason, and the reason is one sentence.

use crate::support::{Sbx, guest, tempdir, wat};
use crate::{Backend, on_every_backend};
use rustix::process::{Signal, kill_process};

on_every_backend! {
    success_is_silent,
    failure_is_passed_on,
    endless_recursion_is_ended,
    a_kill_is_told,
}

fn success_is_silent(backend: Backend) {
    backend.run("exit").args(["0"]).end().status(0).prints("").silent();
}

fn failure_is_passed_on(backend: Backend) {
    // First those that mean something else when they are sbx's own.
    for code in backend.sample(&[125, 255, 137, 1, 2, 7, 42, 100, 124, 126, 127, 134]) {
        let seen = backend.failure(*code);
        backend.run("exit").args([code.to_string()]).end().status(seen).silent();
    }
}

fn endless_recursion_is_ended(backend: Backend) {
    let end = backend.run("recurse").end().prints("recursing\n");
    if backend.is_vm() {
        // What Linux does about it.
        end.status(139).says_only(&["killed by signal 11"]);
    } else {
        end.status(134).says_only(&["trapped", "call stack exhausted"]);
    }
}

/// Somebody else kills the workload, as the kernel does when the host has no memory left.
fn a_kill_is_told(backend: Backend) {
    let running = backend.run("spin").start();
    running.until("spinning");
    kill_process(running.workload(), Signal::KILL).unwrap();
    running.end().status(137).says_only(&["killed by signal 9"]);
}

#[test]
fn traps_name_what_happened() {
    let dir = tempdir();
    for (body, reason) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const 70000)))", "out of bounds memory access"),
        ("(call_indirect (i32.const 0))", "uninitialized element"),
        ("(call_indirect (i32.const 9))", "out of bounds"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion"),
    ] {
        let module =
            format!(r#"(module (memory 1) (table 1 funcref) (func (export "_start") {body}))"#);
        let end = Sbx::run(wat(dir.path(), &module)).end().status(134);
        end.says_only(&["the workload trapped: ", reason]);
    }
}

/// A pointer that leads nowhere is the guest's mistake, and an error code to it.
#[test]
fn bad_pointers_are_no_crash() {
    let dir = tempdir();
    for call in [
        "(drop (call $write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 0)))",
        "(drop (call $write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0)))",
        "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const -1)))",
        "(drop (call $write (i32.const -1) (i32.const 0) (i32.const 1) (i32.const 0)))",
        "(drop (call $poll (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0)))",
        "(drop (call $random (i32.const 65000) (i32.const -1)))",
    ] {
        let module = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_write"
                  (func $write (param i32 i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "poll_oneoff"
                  (func $poll (param i32 i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "random_get"
                  (func $random (param i32 i32) (result i32)))
                (memory (export "memory") 1)
                (func (export "_start") {call}))"#
        );
        let end = Sbx::run(wat(dir.path(), &module)).flags("--disk 1M --timeout 20s").end();
        end.assert_no_debug_output();
        assert!(matches!(end.status.code(), Some(0 | 134)), "{call}: {end}");
    }
}

#[test]
fn functions_of_a_reactor_return_to_the_caller() {
    let add = |args: &[&str]| Sbx::run(guest("reactor")).flags("--invoke add").args(args).end();
    add(&["40", "2"]).status(0).prints("42\n").silent();
    add(&["-40", "-2"]).status(0).prints("-42\n");
    add(&["1"]).status(125).says_only(&["takes 2 arguments, and 1"]);
    add(&["1", "x"]).status(125).says_only(&["'x' is not a value of the type i32"]);
    let greet = Sbx::run(guest("reactor")).flags("--invoke greet").end();
    greet.status(0).prints("hello from a reactor\n");
    let none = Sbx::run(guest("reactor")).flags("--invoke nothing").end();
    none.status(125).says_only(&["no function nothing", "add, greet"]);
    Sbx::run(guest("reactor")).end().status(126).says_only(&["is a library", "--invoke can call"]);
}
