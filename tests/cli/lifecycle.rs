//! Whatever ends sbx, before, while and after the workload runs: nothing is left, and the status is
//! the one that a shell expects. (What the harness checks after each run is part of every test.)

use crate::support::{Sbx, guest, processes_in, tempdir, wat};
use rustix::process::{Signal, kill_process};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// A module that takes a while to compile.
pub(crate) fn large_module(functions: usize) -> String {
    let body: String = (0..40)
        .map(|i| format!("(local.set {} (i64.mul (i64.add (local.get {i}) (i64.const {i})) (i64.rotl (local.get 0) (local.get {i}))))", i + 1))
        .collect();
    let locals = "i64 ".repeat(41);
    let function =
        format!("(func (param i64) (result i64) (local {locals}) {body} (local.get 40))");
    format!(r#"(module (func (export "_start")) {})"#, function.repeat(functions))
}

#[test]
fn an_interruption_while_compiling() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (dir, cache) = (tempdir(), tempdir());
        let running = Sbx::run(wat(dir.path(), &large_module(4000))).cache(cache.path()).start();
        while processes_in(running.pid().as_raw_pid()).len() < 2 {
            assert!(running.is_alive(), "{}", running.end());
            std::thread::sleep(Duration::from_millis(1));
        }
        running.signal(signal);
        let end = running.end().status(status).prints("");
        end.assert_no_debug_output();
        let code = std::fs::read_dir(cache.path().join("sbx/code")).unwrap().count();
        assert_eq!(code, 0, "a draft is left in the cache");
    }
}

#[test]
fn a_kill_while_compiling() {
    let (dir, cache) = (tempdir(), tempdir());
    let module = wat(dir.path(), &large_module(400));
    let running = Sbx::run(&module).cache(cache.path()).start();
    while processes_in(running.pid().as_raw_pid()).len() < 2 {
        assert!(running.is_alive(), "{}", running.end());
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::KILL);
    assert_eq!(running.end().status.signal(), Some(9));
    // The lock is free, and what was half written is not used.
    Sbx::run(&module).cache(cache.path()).end().status(0).silent();
    Sbx::run(&module).cache(cache.path()).end().status(0).silent();
}

#[test]
fn a_stopped_sbx_goes_on() {
    let running = Sbx::run(guest("sleep")).args(["300"]).start();
    running.until("sleeping");
    running.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(600));
    running.signal(Signal::CONT);
    running.end().status(0).prints("sleeping\nslept 300 ms\n");
}

/// A time limit is kept even by a workload that somebody has stopped.
#[test]
fn a_stopped_workload_is_ended_in_time() {
    let running = Sbx::run(guest("spin")).flags("--timeout 1s").start();
    running.until("spinning");
    kill_process(running.workload(), Signal::STOP).unwrap();
    running.end().status(124).says_only(&["--timeout of 1s"]);
}

#[test]
fn many_signals_at_once() {
    let running = Sbx::run(guest("spin")).start();
    running.until("spinning");
    for _ in 0..100 {
        let _ = kill_process(running.pid(), Signal::INT);
    }
    running.end().status(130).silent();
}

/// A caller that ignores a signal, as nohup does, has its children ignore it.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let running =
        Sbx::run(guest("sleep")).args(["800"]).through_shell(r#"trap "" HUP; exec "$@""#).start();
    running.until("sleeping");
    running.signal(Signal::HUP);
    running.end().status(0).prints("sleeping\nslept 800 ms\n");
}

/// Signals that the caller holds back are not lost on sbx's own.
#[test]
fn a_blocked_sigchld_is_no_hang() {
    let line = r#"exec /usr/bin/env --block-signal=CHLD --block-signal=TERM "$@""#;
    Sbx::run(guest("exit")).args(["3"]).through_shell(line).end().status(3);
}

/// A caller that ignores SIGCHLD has the kernel reap children unseen.
#[test]
fn an_ignored_sigchld_is_no_hang() {
    let line = r#"exec /usr/bin/env --ignore-signal=CHLD "$@""#;
    Sbx::run(guest("exit")).args(["3"]).through_shell(line).end().status(3);
}
