//! `--cpus`: a workload never gets more than this share of the processors. Where the host cannot
//! measure it out, sbx refuses, and says why.

use crate::support::{Running, is_root, patience, processes_in, skipped};
use crate::{Backend, on_every_backend};
use rustix::process::{Pid, Signal};
use std::fs;
use std::time::{Duration, Instant};

on_every_backend! {
    a_share_is_a_share,
    what_a_killed_sbx_leaves_the_next_one_removes,
    whole_processors_need_no_group,
    what_cannot_be_enforced_is_refused,
    nonsense_is_refused;
    // It has as many processors as it is given, and there is an end to that.
    vm: a_machine_has_as_many, more_than_a_machine_can_have_is_refused,
}

const SHARE: f64 = 0.2;

/// Starts a loop with a share, unless this host has nothing to measure it out with; then the refusal
/// is what is tested.
fn spin(backend: Backend) -> Option<Running> {
    let running = backend.run("spin").flags("--cpus 0.2").start();
    let began = Instant::now();
    while running.is_alive() && running.printed().is_empty() && began.elapsed() < patience() {
        std::thread::sleep(Duration::from_millis(10));
    }
    if running.is_alive() {
        return Some(running);
    }
    assert!(!is_root() || !has_controller(), "root has a cpu controller here\n{}", running.end());
    skipped("this host gives this user no cpu controller; only the refusal is tested");
    running.end().status(125).says_only(&["cannot enforce --cpus 0.2", "leave --cpus out"]);
    None
}

fn has_controller() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v1 = mounts.lines().any(|l| l.contains(" - cgroup ") && l.ends_with("cpu"));
    v1 || fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|c| c.split_whitespace().any(|c| c == "cpu"))
}

fn a_share_is_a_share(backend: Backend) {
    let Some(running) = spin(backend) else { return };
    let pid = running.workload();
    let group = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    let name = format!("sbx-{}", running.pid().as_raw_nonzero());
    assert!(group.contains(&name), "the workload is not in {name}: {group}");

    let all = || running.working().into_iter().map(used).sum::<f64>();
    let (began, before) = (Instant::now(), all());
    std::thread::sleep(Duration::from_secs(3));
    let ratio = (all() - before) / began.elapsed().as_secs_f64();
    eprintln!("the workload used {ratio:.3} of a processor, and {SHARE} are allowed");
    assert!(ratio > 0.0, "it does not run at all");
    assert!(ratio <= SHARE * 1.2, "it used {ratio} of a processor");
    running.signal(Signal::TERM);
    // That the group is gone, the harness checks.
    running.end().status(143);
}

/// Nobody cleans up after SIGKILL but the kernel, which leaves the group.
fn what_a_killed_sbx_leaves_the_next_one_removes(backend: Backend) {
    let Some(mut running) = spin(backend) else { return };
    running.signal(Signal::KILL);
    let began = Instant::now();
    while !processes_in(running.pid().as_raw_pid()).is_empty() {
        assert!(began.elapsed().as_secs() < 10, "the workload outlives sbx");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The killed one is a zombie until its end is asked for, and its number is taken that long.
    running.reap();
    backend.run("exit").flags("--cpus 0.2").args(["0"]).end().status(0).silent();
    drop(running.end());
}

/// The processor time of a process, in seconds.
fn used(pid: Pid) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |i: usize| fields[i].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}

fn whole_processors_need_no_group(backend: Backend) {
    backend.run("exit").flags("--cpus 1").args(["0"]).end().status(0).silent();
    let many = if backend.is_vm() { "4" } else { "64" };
    backend.run("exit").flag("--cpus", many).args(["0"]).end().status(0).silent();
}

fn what_cannot_be_enforced_is_refused(backend: Backend) {
    if !is_root() {
        return skipped("only root can become a user who may make no control group");
    }
    let run = backend.run("spin").flags("--cpus 0.2").user(65534);
    let end = run.end().status(125).prints("");
    end.says_only(&["cannot enforce --cpus 0.2: ", "run sbx as root", "leave --cpus out"]);
}

fn nonsense_is_refused(backend: Backend) {
    for cpus in ["0", "-1", "nan", "0.001", "many"] {
        drop(backend.run("exit").flag("--cpus", cpus).end().status(125).prints(""));
    }
}

fn a_machine_has_as_many(backend: Backend) {
    let end =
        backend.run("files").flags("--cpus 2").args(["read", "/sys/devices/system/cpu/online"]);
    end.end().status(0).prints("0-1\n");
    // A part of one needs one.
    let end =
        backend.run("files").flags("--cpus 1.5").args(["read", "/sys/devices/system/cpu/online"]);
    end.end().status(0).prints("0-1\n");
}

fn more_than_a_machine_can_have_is_refused(backend: Backend) {
    for cpus in ["32.5", "64"] {
        let end = backend.run("exit").flag("--cpus", cpus).end().status(125).prints("");
        end.says_only(&["more than a microVM can have", "32 or fewer"]);
    }
}
