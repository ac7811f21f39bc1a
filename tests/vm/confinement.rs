//! What the process of a running machine may still do to its host: each of its threads is held to its
//! list of system calls, and it has no file that its guest has no use for. And how the ends of the two
//! processes, sbx and the machine, depend on each other.

use crate::support::{Running, tempdir};
use crate::{Executor, on_every_executor, small_root};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{read_dir, read_link, read_to_string};
use std::path::{Path, PathBuf};

on_every_executor! {
    a_running_machine_is_confined,
    a_machine_ends_with_the_sbx_that_runs_it;
    // A machine on KVM is one process.
    tcg: a_running_emulator_is_confined, a_machine_ends_with_its_emulator,
}

/// A guest that is up, with a root of its own, a shared directory, and a disk.
#[track_caller]
fn up(on: Executor, root: &Path, shared: &Path, disk: &Path) -> Running {
    let run = on.shell("echo up; exec sleep 600").flag("--rootfs", root).volume(shared, "/mnt");
    let run = run.flag("--disk", disk).stdin_open().start();
    run.until("up\n");
    run
}

/// Where each of the process's descriptors leads.
fn files(process: Pid) -> Vec<PathBuf> {
    let of = PathBuf::from(format!("/proc/{}/fd", process.as_raw_pid()));
    read_dir(of).unwrap().map(|entry| read_link(entry.unwrap().path()).unwrap()).collect()
}

/// A value of the status of each of the process's threads. One may end meanwhile.
fn of_threads(process: Pid, name: &str) -> Vec<String> {
    let tasks = read_dir(format!("/proc/{}/task", process.as_raw_pid())).unwrap();
    let value = |task: PathBuf| {
        let status = read_to_string(task.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        Some(line.trim().to_owned())
    };
    tasks.filter_map(|task| value(task.unwrap().path())).collect()
}

fn a_running_machine_is_confined(on: Executor) {
    let (root, shared, images) = (small_root(), tempdir(), tempdir());
    let disk = images.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let run = up(on, root.path(), shared.path(), &disk);
    let process = run.workload();

    let threads = match on {
        // Control, devices, two directories, one processor.
        Executor::Kvm => 5,
        // Control, what watches QEMU, the agent's socket, the disk, two directories.
        Executor::Tcg => 6,
    };
    assert_eq!(of_threads(process, "Seccomp:"), vec!["2"; threads], "each thread has a filter");
    assert_eq!(of_threads(process, "NoNewPrivs:"), vec!["1"; threads]);
    assert_no_core(process);

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

/// QEMU has what the guest attacks first, and so less than the process that started it.
fn a_running_emulator_is_confined(on: Executor) {
    let (root, shared, images) = (small_root(), tempdir(), tempdir());
    let disk = images.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let run = up(on, root.path(), shared.path(), &disk);
    let process = emulator(&run);

    // How many threads QEMU has is its own affair.
    let every = |name: &str, value: &str| of_threads(process, name).iter().all(|is| is == value);
    assert!(every("Seccomp:", "2"), "each thread has a filter");
    assert!(every("NoNewPrivs:", "1"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert!(every(set, "0000000000000000"), "{set}");
    }
    assert_no_core(process);

    // What is not a file has a name without a slash in front.
    let mut files = files(process);
    files.retain(|file| file.is_absolute());
    let own = |file: &PathBuf| {
        let memory = file.to_string_lossy().starts_with("/memfd:sbx-");
        memory || *file == Path::new("/dev/null")
    };
    assert!(files.iter().all(own), "{files:?}");
}

/// The process of QEMU.
#[track_caller]
fn emulator(run: &Running) -> Pid {
    let others: Vec<_> = run.working().into_iter().filter(|pid| *pid != run.workload()).collect();
    assert_eq!(others.len(), 1, "one process beside the machine's own");
    others[0]
}

#[track_caller]
fn assert_no_core(process: Pid) {
    let limits = read_to_string(format!("/proc/{}/limits", process.as_raw_pid())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().next_back(), Some("bytes"), "{core}");
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
}

fn a_machine_ends_with_its_emulator(on: Executor) {
    let (root, shared, images) = (small_root(), tempdir(), tempdir());
    let disk = images.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let run = up(on, root.path(), shared.path(), &disk);
    kill_process(emulator(&run), Signal::SEGV).unwrap();
    run.end().status(125).prints("up\n").says_only(&["QEMU was ended by signal 11"]);
}

fn a_machine_ends_with_the_sbx_that_runs_it(on: Executor) {
    let (root, shared, images) = (small_root(), tempdir(), tempdir());
    let disk = images.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let run = up(on, root.path(), shared.path(), &disk);
    run.signal(Signal::KILL);
    // That nothing is left of the machine is checked after every run.
    run.end().silent();
}
