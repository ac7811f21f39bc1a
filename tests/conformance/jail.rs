//! The kernel holds a sandbox too, whatever its engine does: each process that works for one has a list of
//! system calls, in each of its threads, and can gain no privileges.

use crate::{Backend, on_every_backend};
use std::fs::{read_dir, read_to_string};

on_every_backend! { every_thread_is_held }

fn every_thread_is_held(backend: Backend) {
    let running = backend.run("sleep").args(["600000"]).start();
    running.until("sleeping");
    let mut threads = 0;
    for process in running.working() {
        let tasks = read_dir(format!("/proc/{}/task", process.as_raw_pid())).unwrap();
        for task in tasks.flatten() {
            let status = read_to_string(task.path().join("status")).unwrap();
            let value = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().to_owned()
            };
            assert_eq!(
                (value("Seccomp:"), value("NoNewPrivs:")),
                ("2".into(), "1".into()),
                "{status}"
            );
            threads += 1;
        }
    }
    assert!(threads > 0);
    running.signal(rustix::process::Signal::TERM);
    drop(running.end());
}
