//! What a sandbox uses, measured from outside: what /proc says of the process that holds it and of all
//! that descend from that.
//!
//! Nothing is asked of the sandbox, so that the numbers of one that hangs are as good as any. A process
//! that ends while it is looked at is left out; what it has used is then its parent's, as the kernel counts.
//!
//! Not here: what a guest's own processes use, which only its kernel knows, and limits, which are
//! [`crate::cgroup`]'s and [`crate::process`]'s.

use sbx_core::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// What processor time is counted in here: on x86-64 a hundredth of a second, whatever the kernel's own
/// clock is set to.
const TICK: Duration = Duration::from_millis(10);
/// What memory is counted in here.
const KIB: u64 = 1024;

/// A process that works for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its number.
    pub pid: u32,
    /// The number of the process that started it.
    pub parent: u32,
    /// What it is called, which is any text.
    pub name: String,
    /// What it does, by the kernel's letter: R runs, S and D wait, T is held.
    pub state: char,
    /// How many threads it has.
    pub threads: u64,
    /// The processor time that it and those of its children that have ended have used.
    pub cpu: Duration,
}

impl Worker {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &text(pid, "stat")?)
    }

    /// Reads a line of `/proc/PID/stat`.
    fn parse(pid: u32, line: &str) -> Option<Self> {
        // A name may hold brackets and spaces; what is behind it holds none.
        let (head, tail) = line.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let ticks = [11, 12, 13, 14].into_iter().map(number).sum::<Option<u64>>()?;
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            name: name.into(),
            state: fields.first()?.chars().next()?,
            threads: number(17)?,
            cpu: TICK * u32::try_from(ticks).unwrap_or(u32::MAX),
        })
    }

    /// The bytes of memory that it has in use, those that it shares with others counted in full; nothing
    /// once it has ended.
    pub fn resident(&self) -> Option<u64> {
        field(&text(self.pid, "status")?, "VmRSS:").map(|size| size * KIB)
    }

    /// The same, each page that is shared counted as a part only.
    fn share(&self) -> Option<u64> {
        // The kernel may show this to fewer than it shows the other.
        let rollup = text(self.pid, "smaps_rollup");
        rollup.and_then(|rollup| field(&rollup, "Pss:")).map(|size| size * KIB)
    }
}

/// All processes of the host, at one time.
#[derive(Debug)]
pub struct Processes(Vec<Worker>);

impl Processes {
    /// Those of now.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn now() -> Result<Self> {
        let all = fs::read_dir("/proc").map_err(|e| Error::host("list the processes", e))?;
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(Self(pids.filter_map(Worker::read).collect()))
    }

    /// A process and all that descend from it, by number; none if it has ended.
    pub fn of(&self, root: u32) -> Vec<&Worker> {
        let mut family = BTreeSet::from([root]);
        // A child may have a lower number than its parent: until there is none that is new.
        loop {
            let before = family.len();
            let children = self.0.iter().filter(|worker| family.contains(&worker.parent));
            let found: Vec<_> = children.map(|worker| worker.pid).collect();
            family.extend(found);
            if family.len() == before {
                break;
            }
        }
        let mut workers: Vec<_> =
            self.0.iter().filter(|worker| family.contains(&worker.pid)).collect();
        workers.sort_by_key(|worker| worker.pid);
        workers
    }
}

/// What some processes use in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, since they began.
    pub cpu: Duration,
    /// Bytes of memory; where pages are shared each counts once, if the kernel tells how they are.
    pub memory: u64,
    /// Bytes read from disks, and written to them, since they began; nothing if the kernel does not count
    /// that, or does not tell.
    pub blocks: Option<(u64, u64)>,
    /// Processes and threads, a process with one thread being one.
    pub tasks: u64,
}

impl Usage {
    /// That of these; nothing if they are none.
    pub fn of(workers: &[&Worker]) -> Option<Self> {
        if workers.is_empty() {
            return None;
        }
        let memory = |worker: &&Worker| worker.share().or_else(|| worker.resident());
        let blocks = workers.iter().filter_map(|worker| blocks(&text(worker.pid, "io")?));
        Some(Self {
            cpu: workers.iter().map(|worker| worker.cpu).sum(),
            memory: workers.iter().filter_map(memory).sum(),
            blocks: blocks.reduce(|all, one| (all.0 + one.0, all.1 + one.1)),
            tasks: workers.iter().map(|worker| worker.threads).sum(),
        })
    }
}

/// Reads `/proc/PID/io`.
fn blocks(io: &str) -> Option<(u64, u64)> {
    Some((field(io, "read_bytes:")?, field(io, "write_bytes:")?))
}

/// The number behind a word that begins a line.
fn field(text: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What a file about a process says, if there still is one and it may be read.
fn text(pid: u32, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn worker(pid: u32, parent: u32) -> Worker {
        let cpu = Duration::ZERO;
        Worker { pid, parent, name: "x".into(), state: 'S', threads: 1, cpu }
    }

    #[test]
    fn a_name_may_be_anything() {
        let line = "7 (a) R 1 (b) D 3 7 7 0 -1 4194304 1 2 3 4 150 50 7 3 20 0 9 0 100 1 1";
        let read = Worker::parse(7, line).unwrap();
        assert_eq!((read.name.as_str(), read.state, read.parent), ("a) R 1 (b", 'D', 3));
        assert_eq!((read.threads, read.cpu), (9, Duration::from_millis(2100)));
        for wrong in ["", "7 (a", "7 (a) R", "7 (a) R 1 2 3 4 5 6 7 8 9 x 1 1 1 20 0 9"] {
            assert_eq!(Worker::parse(7, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_family_is_found_in_any_order() {
        let all = Processes(vec![worker(3, 9), worker(9, 5), worker(5, 1), worker(6, 1)]);
        let pids = |root| all.of(root).iter().map(|worker| worker.pid).collect::<Vec<_>>();
        assert_eq!(pids(5), [3, 5, 9]);
        assert_eq!(pids(6), [6]);
        assert!(pids(77).is_empty());
        assert_eq!(Usage::of(&[]), None);
    }

    #[test]
    fn fields_are_read() {
        let io = "rchar: 1\nread_bytes: 4096\nwrite_bytes: 12\ncancelled_write_bytes: 5\n";
        assert_eq!(blocks(io), Some((4096, 12)));
        assert_eq!(blocks("rchar: 1\n"), None);
        assert_eq!(field("Rss:  1 kB\nPss:    378 kB\n", "Pss:"), Some(378));
    }

    #[test]
    fn this_process_uses_something() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = std::process::id();
        let all = Processes::now().unwrap();
        let family = all.of(own);
        assert!(family.iter().any(|worker| worker.pid == child.id() && worker.parent == own));
        let usage = Usage::of(&family).unwrap();
        assert!(usage.memory > 0 && usage.tasks >= 2, "{usage:?}");
        assert!(family.iter().all(|worker| worker.resident().is_some()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn what_has_ended_uses_nothing() {
        // No process has so high a number.
        let gone = worker(u32::MAX, 1);
        assert_eq!((gone.resident(), gone.share()), (None, None));
        assert_eq!(Usage::of(&[&gone]).map(|usage| usage.memory), Some(0));
        assert!(Worker::read(gone.pid).is_none());
    }
}
