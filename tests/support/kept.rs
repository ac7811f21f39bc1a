//! Sandboxes that outlive the command that started them: a place of their own to be kept in, and what has to
//! hold once they are removed.

use super::{Outcome, Sbx, is_root, patience, tempdir};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::running::{control_groups, processes_in, stat};

/// What is no sandbox's own.
const STAYS: [&str; 4] = ["events", "events.1", "lock", "names"];

/// A state directory. At its drop all its sandboxes are removed, and nothing of them may be left.
pub(crate) struct Kept {
    dir: tempfile::TempDir,
    user: Option<u32>,
    /// The sandboxes' supervisors, by process, as far as a test has asked for them.
    supervisors: RefCell<BTreeSet<i32>>,
}

impl Kept {
    pub(crate) fn new() -> Self {
        Self { dir: tempdir(), user: None, supervisors: RefCell::default() }
    }

    /// That of another user, which only root can ask for.
    pub(crate) fn of_user(id: u32) -> Self {
        let mut new = Self::new();
        new.user = Some(id);
        chown(new.dir.path(), Some(id), Some(id)).unwrap();
        new
    }

    /// The state directory; it does not exist before the first command.
    pub(crate) fn place(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `sbx` with these words, which are split at spaces.
    pub(crate) fn sbx(&self, words: &str) -> Sbx {
        self.keep(Sbx::new(words))
    }

    /// `sbx run -d` of a workload.
    pub(crate) fn run(&self, workload: impl AsRef<OsStr>) -> Sbx {
        self.keep(Sbx::run(workload).flags("-d"))
    }

    /// Any command, with its sandboxes here.
    pub(crate) fn keep(&self, sbx: Sbx) -> Sbx {
        let sbx = sbx.env("SBX_STATE_DIR", self.place());
        match self.user {
            Some(id) => sbx.user(id),
            None => sbx,
        }
    }

    /// A run, in the background.
    pub(crate) fn detached(&self, run: Sbx) -> Sbx {
        self.keep(run.instead_of_run("run").flags("-d"))
    }

    /// A run, only to be created.
    pub(crate) fn created(&self, run: Sbx) -> Sbx {
        self.keep(run.instead_of_run("create"))
    }

    /// What `inspect` tells of a sandbox.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        let end = self.sbx("inspect").flags(name).end().status(0).silent();
        let mut all: Vec<serde_json::Value> = serde_json::from_slice(&end.stdout).unwrap();
        assert_eq!(all.len(), 1, "{end}");
        all.remove(0)
    }

    /// The state that a sandbox is in, by its word.
    #[track_caller]
    pub(crate) fn state(&self, name: &str) -> String {
        self.inspect(name)["status"]["state"].as_str().unwrap().to_owned()
    }

    /// Waits until a sandbox is in this state.
    #[track_caller]
    pub(crate) fn until(&self, name: &str, state: &str) {
        eventually(&format!("{name} is never {state}"), || self.state(name) == state);
    }

    /// What a sandbox has written to standard output.
    #[track_caller]
    pub(crate) fn log(&self, name: &str) -> String {
        self.sbx("logs").flags(name).end().status(0).out()
    }

    /// Waits until a sandbox has written this to standard output.
    #[track_caller]
    pub(crate) fn until_printed(&self, name: &str, text: &str) {
        eventually(&format!("{name} never prints {text:?}"), || self.log(name).contains(text));
    }

    /// The directory of a sandbox.
    #[track_caller]
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.place().join(self.inspect(name)["id"].as_str().unwrap())
    }

    /// A sandbox's supervisor.
    #[track_caller]
    pub(crate) fn supervisor(&self, name: &str) -> Pid {
        let pid = self.inspect(name)["status"]["supervisor"].as_i64();
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        assert_ne!(pid, 0, "{name} has no supervisor");
        self.supervisors.borrow_mut().insert(pid);
        Pid::from_raw(pid).unwrap()
    }

    /// Kills a sandbox's supervisor, and waits for the end of all that worked for the sandbox.
    #[track_caller]
    pub(crate) fn kill_supervisor(&self, name: &str) {
        let supervisor = self.supervisor(name);
        let mut all = working(supervisor);
        all.insert(supervisor.as_raw_pid());
        kill_process(supervisor, Signal::KILL).unwrap();
        eventually("processes are left of a sandbox whose supervisor was killed", || {
            !all.iter().any(|pid| is_alive(*pid))
        });
    }

    /// All processes that know of this place.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let place = self.place();
        let variable = [b"SBX_STATE_DIR=", place.as_os_str().as_bytes()].concat();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let known = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            known.split(|byte| *byte == 0).any(|v| v == variable) && is_alive(*pid)
        })
        .collect()
    }

    /// Removes all sandboxes; the processes that worked for them.
    fn remove_all(&self) -> (Option<Outcome>, BTreeSet<i32>) {
        let supervisors = self.processes();
        self.supervisors.borrow_mut().extend(&supervisors);
        let all = supervisors.iter().filter_map(|pid| Pid::from_raw(*pid)).flat_map(working);
        let all = all.chain(supervisors.iter().copied()).collect();
        let names = fs::read_dir(self.place()).into_iter().flatten().flatten();
        let names: Vec<_> = names.map(|e| e.file_name()).filter(|name| name.len() == 64).collect();
        let end = (!names.is_empty()).then(|| self.sbx("rm -f").args(names).end());
        (end, all)
    }

    /// What is in the state directory of sandboxes.
    fn files(&self) -> Vec<PathBuf> {
        let inside = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
        let all = inside(self.place()).chain(inside(self.place().join("names")));
        all.map(|e| e.path())
            .filter(|path| !STAYS.iter().any(|name| path.ends_with(name)))
            .collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed already; a second panic would hide why.
            for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            return;
        }
        let (end, mut all) = self.remove_all();
        all.extend(self.supervisors.borrow().iter());
        if let Some(end) = end {
            end.status(0).silent();
        }
        eventually("a process outlives its sandbox", || {
            self.processes().is_empty() && !all.iter().any(|pid| is_alive(*pid))
        });
        let files = self.files();
        assert!(files.is_empty(), "sbx left {files:?} behind");
        let groups: Vec<_> = all.iter().flat_map(|pid| control_groups(*pid)).collect();
        assert!(groups.is_empty(), "sbx left {groups:?} behind");
    }
}

/// Waits for something that has to come.
#[track_caller]
pub(crate) fn eventually(otherwise: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !happens() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes of the session that a supervisor leads, without itself: all that work for its sandbox.
pub(crate) fn working(supervisor: Pid) -> BTreeSet<i32> {
    let leader = supervisor.as_raw_pid();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    // Behind the name: state, parent, group, session.
    let of_session = |pid: &i32| stat(*pid).is_some_and(|fields| fields[3] == leader.to_string());
    pids.filter(|pid| *pid != leader && of_session(pid)).collect()
}

/// The processor time that these processes have used, in the kernel's ticks.
pub(crate) fn used(processes: &BTreeSet<i32>) -> u64 {
    let of = |pid: &i32| {
        let fields = stat(*pid)?;
        Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
    };
    processes.iter().filter_map(of).sum()
}

/// Whether a process lives, be it only in a thread that is not its first.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| {
        let group = fields[2].parse().unwrap_or_default();
        processes_in(group).contains(&pid)
    })
}
