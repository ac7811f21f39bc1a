//! A run under way, and its end.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What no user may ever read from sbx.
const DEBUG_OUTPUT: [&str; 8] = [
    "panicked",
    "RUST_BACKTRACE",
    "backtrace",
    "thread 'main'",
    "Error {",
    "Os {",
    "internal error",
    "Some(",
];

/// A stream that a thread collects.
struct Stream {
    text: Arc<(Mutex<Vec<u8>>, Condvar)>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::<(Mutex<Vec<u8>>, Condvar)>::default();
        let shared = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut block = [0; 65536];
            while let Ok(n @ 1..) = from.read(&mut block) {
                shared.0.lock().unwrap().extend_from_slice(&block[..n]);
                shared.1.notify_all();
            }
        });
        Self { text, reader }
    }

    fn end(self) -> Vec<u8> {
        self.reader.join().unwrap();
        std::mem::take(&mut self.text.0.lock().unwrap())
    }
}

/// A run that has begun. Its whole process group is killed should the test fail before its end.
pub(crate) struct Running {
    child: Child,
    streams: Option<(Stream, Stream)>,
    deadline: Instant,
    temporary: tempfile::TempDir,
    /// Where the program is, if not in its usual place.
    _within_reach: Option<tempfile::TempDir>,
}

impl Running {
    pub(super) fn new(
        mut child: Child,
        patience: Duration,
        temporary: tempfile::TempDir,
        within_reach: Option<tempfile::TempDir>,
    ) -> Self {
        let stdout = Stream::collect(child.stdout.take().unwrap());
        let stderr = Stream::collect(child.stderr.take().unwrap());
        let deadline = Instant::now() + patience;
        Self {
            child,
            streams: Some((stdout, stderr)),
            deadline,
            temporary,
            _within_reach: within_reach,
        }
    }

    /// The process of sbx itself.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until standard output holds `text`.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) {
        let (mutex, grown) = &*self.streams.as_ref().unwrap().0.text;
        let mut read = mutex.lock().unwrap();
        while !String::from_utf8_lossy(&read).contains(text) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let so_far = String::from_utf8_lossy(&read).into_owned();
            assert!(!left.is_zero(), "{text:?} was never printed, but: {so_far}");
            read = grown.wait_timeout(read, left).unwrap().0;
        }
    }

    /// Whether sbx has not ended yet.
    pub(crate) fn is_alive(&self) -> bool {
        processes_in(self.pid().as_raw_pid()).contains(&self.pid().as_raw_pid())
    }

    /// What is on standard output so far.
    pub(crate) fn printed(&self) -> String {
        let read = self.streams.as_ref().unwrap().0.text.0.lock().unwrap();
        String::from_utf8_lossy(&read).into_owned()
    }

    /// The process that holds the workload: sbx's child.
    #[track_caller]
    pub(crate) fn workload(&self) -> Pid {
        let group = self.pid().as_raw_pid();
        let others = processes_in(group).into_iter();
        let children: Vec<_> = others.filter(|pid| parent(*pid) == Some(group)).collect();
        assert_eq!(children.len(), 1, "one process beside sbx's own");
        Pid::from_raw(children[0]).unwrap()
    }

    /// All processes that work for the workload: the one that holds it, and those that it has started.
    pub(crate) fn working(&self) -> Vec<Pid> {
        let group = self.pid().as_raw_pid();
        let others = processes_in(group).into_iter().filter(|pid| *pid != group);
        others.filter_map(Pid::from_raw).collect()
    }

    /// Has the kernel forget sbx, which has ended. Its number stands for it from here.
    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }

    /// Waits for the end of sbx and of all that it started.
    #[track_caller]
    pub(crate) fn end(mut self) -> Outcome {
        let pid = self.pid();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        // One that is reaped already has no descriptor.
        let ended = pidfd_open(pid, PidfdFlags::empty()).map_or(true, |pidfd| {
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)).unwrap() == 1
        });
        if !ended {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = self.child.wait().unwrap();
        let orphans = self.orphans();
        let (stdout, stderr) = self.streams.take().unwrap();
        let outcome = Outcome { status, stdout: stdout.end(), stderr: stderr.end() };
        assert!(ended, "sbx hangs\n{outcome}");
        assert!(orphans.is_empty(), "sbx left the processes {orphans:?} behind\n{outcome}");
        nothing_left(pid, self.temporary.path());
        outcome
    }

    /// The processes that outlive sbx, which are then killed. A killed one takes a moment to go.
    fn orphans(&self) -> Vec<i32> {
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let left = processes_in(self.pid().as_raw_pid());
            if left.is_empty() || Instant::now() > patience {
                let _ = kill_process_group(self.pid(), Signal::KILL);
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.streams.is_some() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The processes of a process group that are alive.
pub(crate) fn processes_in(group: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let Some((state, of)) = state_and_group(&entry.path()) else { continue };
        if of == group && (state != "Z" || has_threads(&entry.path())) {
            found.push(pid);
        }
    }
    found
}

/// Whether a thread of a process is alive. The first one may have ended before the others.
fn has_threads(process: &Path) -> bool {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    threads
        .filter_map(|t| state_and_group(&t.path()))
        .any(|(state, _)| state != "Z" && state != "X")
}

fn parent(process: i32) -> Option<i32> {
    stat(process)?.get(1)?.parse().ok()
}

/// What `/proc` tells of a process behind its name: its state, parent, group, session and so on.
pub(super) fn stat(process: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(Into::into).collect())
}

/// What `/proc` tells of a process or thread.
fn state_and_group(dir: &Path) -> Option<(String, i32)> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // The name in parentheses may hold anything; behind it: state, parent, group.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(1)?.parse().ok()?))
}

/// No temporary file, and no control group that sbx made, is left.
#[track_caller]
fn nothing_left(pid: Pid, temporary: &Path) {
    let files: Vec<_> = fs::read_dir(temporary).unwrap().flatten().map(|e| e.path()).collect();
    assert!(files.is_empty(), "sbx left {files:?} behind");
    let groups = control_groups(pid.as_raw_pid());
    assert!(groups.is_empty(), "sbx left {groups:?} behind");
}

/// The control groups that the sbx of this number has made.
pub(super) fn control_groups(pid: i32) -> Vec<PathBuf> {
    let name = format!("sbx-{pid}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut found = Vec::new();
    for mount in mounts.lines().filter(|l| l.contains(" - cgroup")) {
        let mount = Path::new(mount.split(' ').nth(4).unwrap());
        for path in own.lines().filter_map(|l| l.splitn(3, ':').nth(2)) {
            let below = mount.join(path.trim_start_matches('/'));
            let dirs = below.ancestors().take_while(|d| d.starts_with(mount));
            found.extend(dirs.map(|dir| dir.join(&name)).filter(|group| group.exists()));
        }
    }
    found
}

/// How a run ended, and what it wrote.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned()
        };
        write!(f, "{}\n--- stdout\n{}", self.status, short(&self.stdout))?;
        write!(f, "\n--- stderr\n{}", short(&self.stderr))
    }
}

impl Outcome {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What sbx itself said, without the workload's own errors.
    pub(crate) fn sentences(&self) -> Vec<String> {
        self.err().lines().filter_map(|l| l.strip_prefix("sbx: ")).map(Into::into).collect()
    }

    /// The exit status; sbx itself never dies by a signal.
    #[track_caller]
    pub(crate) fn status(self, code: i32) -> Self {
        assert_eq!(self.status.signal(), None, "sbx was killed\n{self}");
        assert_eq!(self.status.code(), Some(code), "exit status\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert_eq!(self.out(), text, "standard output\n{self}");
        self
    }

    /// sbx says exactly one sentence, which holds all of `words`.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        self.assert_no_debug_output();
        let sentences = self.sentences();
        assert_eq!(sentences.len(), 1, "one sentence\n{self}");
        for word in words {
            assert!(sentences[0].contains(word), "{word:?} is not said\n{self}");
        }
        self
    }

    /// All of standard error is that one sentence of sbx.
    #[track_caller]
    pub(crate) fn says_only(self, words: &[&str]) -> Self {
        assert_eq!(self.err().lines().count(), 1, "a single line\n{self}");
        self.says(words)
    }

    /// Nothing is on standard error.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        assert_eq!(self.err(), "", "standard error\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn assert_no_debug_output(&self) {
        let err = self.err();
        for word in DEBUG_OUTPUT {
            assert!(!err.contains(word), "{word:?} reached the user\n{self}");
        }
    }
}
