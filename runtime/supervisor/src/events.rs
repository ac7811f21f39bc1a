//! What has happened to a user's sandboxes, kept on disk: a line of JSON for each event, in `events`, and
//! when that is full in `events.1`, which is the older part; what was older still is gone.
//!
//! Every command and every supervisor may write. A writer holds the file's own lock while it looks whether
//! the file is full and adds its line, so that none is added to a file that is just being turned over.
//! Nobody waits long: should whoever has the lock be held, the line is added without it, which is as whole,
//! since the kernel adds what is written in one piece; only nothing is turned over then.
//!
//! An event that cannot be written is lost, and nothing else fails with it. The end of a sandbox whose
//! supervisor was killed has no line: nobody was there to write it.
//!
//! Not here: what happens in a sandbox, which is its log's, and how events are shown.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sbx_core::{Error, Exit, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::lines::{Lines, inode, older};
use crate::record::Config;
use crate::store::{Entry, Store};
use crate::time::Time;

/// Bytes of events that are kept at least; twice as much is there at most.
const SIZE: u64 = 1 << 20;
/// How often, with a millisecond between, the lock is tried.
const LOCK_TRIES: u32 = 100;
const NAME: &str = "events";

/// Something that happened to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Time,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// The sandbox's identification.
    pub id: String,
    /// What it was called then; nothing if its record was damaged.
    pub name: String,
    /// What was remembered about it.
    pub labels: BTreeMap<String, String>,
}

/// What happens to sandboxes, mostly by docker's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// It was made.
    Create,
    /// Its workload has begun.
    Start,
    /// Its workload is held.
    Pause,
    /// Its workload goes on.
    Resume,
    /// Its workload has ended, and begun anew by the restart policy.
    Restart {
        /// The exit status of the end before.
        exit_status: u8,
        /// How often that was.
        restarts: u32,
    },
    /// It was sent a signal.
    Kill {
        /// The signal.
        signal: i32,
    },
    /// Its workload ran out of memory; its end follows.
    Oom {
        /// The limit, in bytes.
        memory_limit: u64,
    },
    /// Its workload has ended.
    Die {
        /// The exit status.
        exit_status: u8,
        /// A word for what ended it: that of [`Exit`].
        reason: String,
        /// A sentence about that, where the status does not say it all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// It has another name.
    Rename {
        /// The one before.
        old_name: String,
    },
    /// It is gone.
    Remove,
}

impl What {
    /// The words for all of it.
    pub const NAMES: [&str; 10] =
        ["create", "start", "pause", "resume", "restart", "kill", "oom", "die", "rename", "remove"];

    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart { .. } => "restart",
            Self::Kill { .. } => "kill",
            Self::Oom { .. } => "oom",
            Self::Die { .. } => "die",
            Self::Rename { .. } => "rename",
            Self::Remove => "remove",
        }
    }

    /// An end, and what is to be told before it.
    pub(crate) fn of_end(exit: &Exit) -> Vec<Self> {
        let reason = match exit {
            Exit::Code(_) => "code",
            Exit::Signal(_) => "signal",
            Exit::Trap(_) => "trap",
            Exit::OutOfMemory(_) => "out-of-memory",
            Exit::Timeout(_) => "timeout",
            Exit::CpuTime(_) => "cpu-time",
            Exit::Fuel(_) => "fuel",
            Exit::Output(_) => "output",
            Exit::Failed(_) => "failed",
        };
        let die = Self::Die {
            exit_status: exit.status(),
            reason: reason.into(),
            message: exit.message(),
        };
        match exit {
            Exit::OutOfMemory(limit) => vec![Self::Oom { memory_limit: *limit }, die],
            _ => vec![die],
        }
    }
}

/// Keeps an event. What is not known of a sandbox, its record being damaged, is left empty.
pub(crate) fn tell(entry: &Entry, config: Option<&Config>, what: What) {
    let mut event = Event {
        time: Time::now(),
        what,
        id: entry.id().into(),
        name: config.map(|config| config.name.clone()).unwrap_or_default(),
        labels: config.map(|config| config.labels.clone()).unwrap_or_default(),
    };
    if let Some(root) = entry.dir().parent() {
        let _ = write(root, &mut event, SIZE);
    }
}

/// Adds an event, in the order of its time as far as the lock reaches.
fn write(root: &Path, event: &mut Event, most: u64) -> io::Result<()> {
    let path = root.join(NAME);
    let (mut file, mut locked) = open(&path)?;
    event.time = Time::now();
    let mut text = serde_json::to_vec(event)?;
    text.push(b'\n');
    let mut size = file.metadata()?.len();
    let full = locked && size > 0 && size + text.len() as u64 > most;
    // If that fails, the old one grows on. Others that have it open see that it is another file, once they
    // get its lock.
    if full && fs::rename(&path, older(&path)).is_ok() {
        (file, locked) = open(&path)?;
        size = file.metadata()?.len();
    }
    let written = file.write_all(&text);
    if written.is_err() && locked {
        // A part of it may be there, which is no line.
        let _ = file.set_len(size);
    }
    written
}

/// Opens the file, and locks it if that can be had soon.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600);
    for _ in 0..LOCK_TRIES {
        let file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Not one that was turned over between the two.
                let named = options.open(path)?;
                if inode(&named) == inode(&file) {
                    return Ok((file, true));
                }
            }
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
    }
    Ok((options.open(path)?, false))
}

/// Reads events, and those that are added while they are read.
#[derive(Debug)]
pub struct Reader(Lines);

impl Reader {
    /// A reader of all events that are kept, from the oldest.
    pub fn open(store: &Store) -> Self {
        Self(Lines::open(store.root().join(NAME)))
    }

    /// Passes over what is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn skip(&mut self) -> Result<()> {
        while self.next_line()?.is_some() {}
        Ok(())
    }

    /// The next event, if there is one yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        while let Some(line) = self.next_line()? {
            // What cannot be understood was damaged by a crash of the host's, or is another version's.
            if let Ok(event) = serde_json::from_slice(&line) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        self.0.next_line().map_err(|e| Error::host("read what has happened to sandboxes", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: i32) -> Event {
        let what = What::Kill { signal: number };
        let labels = BTreeMap::from([("a".into(), "b".into())]);
        Event { time: Time::now(), what, id: "1".repeat(64), name: "x".into(), labels }
    }

    fn signals(reader: &mut Reader) -> Vec<i32> {
        let events = std::iter::from_fn(|| reader.next_event().unwrap());
        let signal = |event: Event| match event.what {
            What::Kill { signal } => signal,
            what => panic!("{what:?}"),
        };
        events.map(signal).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let exit = Exit::OutOfMemory(1 << 20);
        let mut reader = Reader(Lines::open(dir.path().join(NAME)));
        assert_eq!(reader.next_event().unwrap(), None);
        let all = What::of_end(&exit).into_iter().chain([
            What::Create,
            What::Restart { exit_status: 7, restarts: 2 },
            What::Rename { old_name: "y".into() },
        ]);
        for what in all {
            let mut written = Event { what, ..event(0) };
            write(dir.path(), &mut written, SIZE).unwrap();
            let line = serde_json::to_value(&written).unwrap();
            assert_eq!(line["event"], written.what.name());
            assert!(What::NAMES.contains(&written.what.name()));
            assert_eq!(reader.next_event().unwrap(), Some(written));
        }
    }

    #[test]
    fn what_is_no_event_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "garbage\n{}\n\n").unwrap();
        write(dir.path(), &mut event(1), SIZE).unwrap();
        let mut reader = Reader(Lines::open(dir.path().join(NAME)));
        assert_eq!(signals(&mut reader), [1]);
    }

    /// Whoever follows gets every line of every writer, whole and once, while the file is turned over.
    #[test]
    fn many_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (writers, each, most) = (4, 100, 50_000);
        let mut reader = Reader(Lines::open(dir.path().join(NAME)));
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            let write = |writer: i32| {
                for number in 0..each {
                    write(dir.path(), &mut event(writer * each + number), most).unwrap();
                }
            };
            let threads: Vec<_> =
                (0..writers).map(|writer| scope.spawn(move || write(writer))).collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                read.extend(signals(&mut reader));
            }
        });
        read.extend(signals(&mut reader));
        read.sort_unstable();
        assert_eq!(read, (0..writers * each).collect::<Vec<_>>());
        let size = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("events") <= most && size("events.1") <= most);
        assert!(size("events") + size("events.1") > most);
    }

    /// One that holds the lock and does nothing holds nobody up.
    #[test]
    fn a_lock_that_is_held_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let (_file, locked) = open(&dir.path().join(NAME)).unwrap();
        assert!(locked);
        write(dir.path(), &mut event(1), 1).unwrap();
        write(dir.path(), &mut event(2), 1).unwrap();
        let mut reader = Reader(Lines::open(dir.path().join(NAME)));
        assert_eq!(signals(&mut reader), [1, 2]);
    }
}
