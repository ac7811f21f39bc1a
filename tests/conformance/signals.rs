//! Signals that sbx is sent are the workload's: it ends as a native program would, with 128 and the
//! signal's number, and nothing of it stays.

use crate::{Backend, on_every_backend};
use rustix::process::Signal;

on_every_backend! {
    an_interruption_ends_it_silently,
    other_signals_are_told,
    a_waiting_workload_is_ended_as_well,
    killing_sbx_kills_the_workload;
    // Nothing is compiled for a machine, and WASI has no signals for a program to answer.
    wasm: a_first_run_is_no_different;
    vm: a_starting_machine_is_ended_as_well, a_program_may_answer_them,
}

fn an_interruption_ends_it_silently(backend: Backend) {
    let all = [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)];
    for &(signal, status) in backend.sample(&all) {
        let running = backend.run("spin").start();
        running.until("spinning");
        running.signal(signal);
        running.end().status(status).prints("spinning\n").silent();
    }
}

/// The process that compiled before must leave nothing behind in how signals are answered.
fn a_first_run_is_no_different(backend: Backend) {
    let cache = crate::support::tempdir();
    let running = backend.run("spin").cache(cache.path()).start();
    running.until("spinning");
    running.signal(Signal::TERM);
    running.end().status(143).prints("spinning\n").silent();
}

fn other_signals_are_told(backend: Backend) {
    let all = [(Signal::QUIT, 131), (Signal::USR1, 138), (Signal::USR2, 140)];
    for &(signal, status) in backend.sample(&all) {
        let running = backend.run("spin").start();
        running.until("spinning");
        running.signal(signal);
        running.end().status(status).says_only(&["killed by signal"]);
    }
}

fn a_waiting_workload_is_ended_as_well(backend: Backend) {
    let running = backend.run("sleep").args(["3600000"]).start();
    running.until("sleeping");
    running.signal(Signal::TERM);
    running.end().status(143).silent();

    // Compiled already, so that a second process can only be the workload.
    drop(backend.run("cat").end().status(0));
    let running = backend.run("cat").flags("-i").stdin_open().start();
    // It prints nothing; its process is the sign that it runs.
    while crate::support::processes_in(running.pid().as_raw_pid()).len() < 2 {
        assert!(running.is_alive(), "{}", running.end());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.signal(Signal::INT);
    running.end().status(130).silent();
}

/// Before there is anybody in the machine who could be told.
fn a_starting_machine_is_ended_as_well(backend: Backend) {
    for _ in 0..3 {
        let running = backend.run("sleep").args(["3600000"]).start();
        while crate::support::processes_in(running.pid().as_raw_pid()).len() < 2 {
            assert!(running.is_alive(), "{}", running.end());
        }
        running.signal(Signal::TERM);
        running.end().status(143).prints("").silent();
    }
}

fn a_program_may_answer_them(backend: Backend) {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let running = backend.run("catch").start();
        running.until("waiting");
        running.signal(signal);
        let end = running.end().status(7);
        end.prints(&format!("waiting\ngot signal {number}\n")).silent();
    }
}

/// Nobody can hold this signal back; the harness checks that no process is left.
fn killing_sbx_kills_the_workload(backend: Backend) {
    for guest in ["spin", "sleep"] {
        let running = backend.run(guest).args(["3600000"]).start();
        running.until("ing\n");
        running.workload();
        running.signal(Signal::KILL);
        let end = running.end();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end.status), Some(9), "{end}");
    }
}
