//! What the process of a running machine may still do to its host: each of its threads is held to its
//! list of system calls, and it has no file that its guest has no use for. And how the ends of the two
//! processes, sbx and the machine, depend on each other.

use crate::support::{Running, tempdir};
use crate::{shell, small_root};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{read_dir, read_link, read_to_string};
use std::path::{Path, PathBuf};

/// A guest that is up, with a root of its own, a shared directory, and a disk.
#[track_caller]
fn up(root: &Path, shared: &Path, disk: &Path) -> Running {
    let run = shell("echo up; exec sleep 600").flag("--rootfs", root).volume(shared, "/mnt");
    let run = run.flag("--disk", disk).stdin_open().start();
    run.until("up\n");
    run
}

/// Where each of the process's descriptors leads.
fn files(process: Pid) -> Vec<PathBuf> {
    let of = PathBuf::from(format!("/proc/{}/fd", process.as_raw_pid()));
    read_dir(of).unwrap().map(|entry| read_link(entry.unwrap().path()).unwrap()).collect()
}

/// A value of the status of each of the process's threads.
fn of_threads(process: Pid, name: &str) -> Vec<String> {
    let tasks = read_dir(format!("/proc/{}/task", process.as_raw_pid())).unwrap();
    let value = |task: PathBuf| {
        let status = read_to_string(task.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    tasks.map(|task| value(task.unwrap().path())).collect()
}

#[test]
fn a_running_machine_is_confined() {
    let (root, shared, images) = (small_root(), tempdir(), tempdir());
    let disk = images.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let run = up(root.path(), shared.path(), &disk);
    let process = run.workload();

    let seccomp = of_threads(process, "Seccomp:");
    // Control, devices, two directories, one processor.
    assert_eq!(seccomp, ["2"; 5], "each thread has a filter");
    assert_eq!(of_threads(process, "NoNewPrivs:"), ["1"; 5]);

    let limits = read_to_string(format!("/proc/{}/limits", process.as_raw_pid())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().next_back(), Some("bytes"), "{core}");
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);

    let own = PathBuf::from(format!("/proc/{}/fd", process.as_raw_pid()));
    let mut files = files(process);
    files.retain(|file| file.is_absolute());
    let granted = |file: &PathBuf| {
        let below = file.starts_with(root.path()) || file.starts_with(shared.path());
        below || *file == disk || *file == own
    };
    assert!(files.iter().all(granted), "{files:?}");

    // It is the machine that failed, and not its workload.
    kill_process(process, Signal::SEGV).unwrap();
    run.end().status(125).prints("up\n").says_only(&["machine is lost", "signal 11"]);
}

#[test]
fn a_machine_ends_with_the_sbx_that_runs_it() {
    let (root, shared, images) = (small_root(), tempdir(), tempdir());
    let disk = images.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let run = up(root.path(), shared.path(), &disk);
    run.signal(Signal::KILL);
    // That nothing is left of the machine is checked after every run.
    run.end().silent();
}
