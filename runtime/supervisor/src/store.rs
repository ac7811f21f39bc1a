//! The directory of all sandboxes: the truth about them, for every command and after every crash.
//!
//! ```text
//! ROOT/                    0700, the user's own
//!   lock                   held while names are given and taken away
//!   names/NAME -> ID       a symbolic link for each
//!   events, events.1       what has happened to all of them, the older part in the second (events.rs)
//!   ID/                    one sandbox
//!     config.json          what was asked (record.rs); written before the directory has its name, and
//!                          replaced by rename when that changes
//!     status.json          how it stands; replaced by rename
//!     lock                 held by the supervisor as long as it lives, or by who starts or removes it
//!     control              the supervisor's socket
//!     room                 space on the disk for the record of the end
//!     log, log.1           what the workload wrote, the older part in the second
//! ```
//!
//! A directory under its final name is complete. One that is being made or removed begins with a dot, and
//! is swept up by the next who makes one if its maker is gone.
//!
//! Not here: what the files mean to a running sandbox, which is the supervisor's.

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use sbx_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::events::{self, What};
use crate::names::{self, is_id, random, random_id};
use crate::record::{Config, State, Status, VERSION};

/// A record is a few kilobytes; one that is larger is none.
const RECORD_MAX: u64 = 4 << 20;
/// How often, with a millisecond between, a lock is tried that others take to look at.
const LOCK_TRIES: u32 = 10;
/// How long one is waited for who only begins, ends or removes a sandbox.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are set aside for the record of the end.
const ROOM: usize = 16 << 10;
/// How many digits of an identification are shown.
pub const SHORT: usize = 12;
/// The variable that names another place for all of it.
pub const PLACE: &str = "SBX_STATE_DIR";

/// All sandboxes of one user.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The user's own: `$SBX_STATE_DIR`, or /run/sbx for root, or `$XDG_RUNTIME_DIR/sbx`. It is made if it is
    /// not there.
    ///
    /// # Errors
    /// When there is no such place, or it is not this user's alone.
    pub fn open() -> Result<Self> {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = match (var(PLACE), rustix::process::geteuid().is_root()) {
            (Some(place), _) => PathBuf::from(place),
            (None, true) => "/run/sbx".into(),
            (None, false) => PathBuf::from(var("XDG_RUNTIME_DIR").ok_or_else(|| {
                Error::Refused(format!(
                    "there is no place to keep sandboxes in; log in with a session that sets \
                     XDG_RUNTIME_DIR, or set {PLACE} to a directory of your own"
                ))
            })?)
            .join("sbx"),
        };
        Self::at(root)
    }

    /// That in this directory.
    pub fn at(root: PathBuf) -> Result<Self> {
        let failed = |e| Error::host(format!("keep sandboxes in {}", root.display()), e);
        // Supervisors leave the caller's directory.
        let root = std::path::absolute(&root).map_err(failed)?;
        let make = |dir: &Path| match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(failed(e)),
            _ => Ok(()),
        };
        make(&root)?;
        let meta = fs::symlink_metadata(&root).map_err(failed)?;
        let own = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
        if !own || meta.mode() & 0o077 != 0 {
            return Err(Error::Refused(format!(
                "{} is not a directory of this user's alone; remove it, or set {PLACE} to another",
                root.display()
            )));
        }
        make(&root.join("names"))?;
        Ok(Self { root })
    }

    /// Makes a sandbox, complete or not at all, and holds its lock. The identification is made here, and a
    /// name if there is none.
    ///
    /// # Errors
    /// When the name is taken, or the directory cannot be written.
    pub fn create(&self, config: &mut Config) -> Result<(Entry, Lock)> {
        let failed = |e| Error::host("keep the sandbox's record", e);
        let _names = self.lock_names()?;
        self.sweep();
        config.version = VERSION;
        config.id = random_id()?;
        if config.name.is_empty() {
            config.name = self.free_name()?;
        }
        self.check_free(&config.name)?;
        let draft = self.root.join(format!(".new-{}", config.id));
        DirBuilder::new().mode(0o700).create(&draft).map_err(failed)?;
        let made = Entry { dir: draft.clone(), id: config.id.clone() };
        let fill = || -> Result<Lock> {
            let lock = made.make_lock()?;
            write(&draft, "config.json", config)?;
            made.write(&Status::created())?;
            let link = self.root.join("names").join(&config.name);
            let _ = fs::remove_file(&link);
            symlink(&config.id, &link).map_err(failed)?;
            fs::rename(&draft, self.root.join(&config.id)).map_err(failed)?;
            Ok(lock)
        };
        match fill() {
            Ok(lock) => {
                let entry = self.entry(config.id.clone());
                events::tell(&entry, Some(config), What::Create);
                Ok((entry, lock))
            }
            Err(e) => {
                let _ = fs::remove_dir_all(&draft);
                self.forget_names(&config.id);
                Err(e)
            }
        }
    }

    /// Gives a sandbox another name, whatever it does at the time.
    ///
    /// # Errors
    /// When the name is none, or taken, or the directory cannot be written.
    pub fn rename(&self, entry: &Entry, name: &str) -> Result<()> {
        let failed = |e| Error::host(format!("rename sandbox {}", short(&entry.id)), e);
        let _names = self.lock_names()?;
        self.check_free(name)?;
        let mut config = entry.config()?;
        let old = std::mem::replace(&mut config.name, name.into());
        let links = self.root.join("names");
        let _ = fs::remove_file(links.join(name));
        symlink(&entry.id, links.join(name)).map_err(failed)?;
        let written = write(&entry.dir, "config.json", &config);
        let _ = fs::remove_file(links.join(if written.is_ok() { &old } else { name }));
        written?;
        events::tell(entry, Some(&config), What::Rename { old_name: old });
        Ok(())
    }

    /// Whether a sandbox can be called so.
    fn check_free(&self, name: &str) -> Result<()> {
        if !names::is_valid(name) {
            return Err(Error::Refused(format!(
                "'{name}' is no name for a sandbox; use letters, digits, and behind the first of them \
                 also _ . and -"
            )));
        }
        match self.holder(name) {
            None => Ok(()),
            Some(id) => Err(Error::Refused(format!(
                "the name {name} is taken by sandbox {}; remove or rename that, or take another name",
                short(&id)
            ))),
        }
    }

    /// The sandbox of this name, identification, or beginning of one that is no other's.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, text: &str) -> Result<Entry> {
        if let Some(id) = names::is_valid(text).then(|| self.holder(text)).flatten() {
            return Ok(self.entry(id));
        }
        let mut found =
            self.ids()?.into_iter().filter(|id| !text.is_empty() && id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(self.entry(id)),
            (Some(_), Some(_)) => Err(Error::Refused(format!(
                "more than one sandbox has an identification that begins with {text}; write more of it"
            ))),
            _ => Err(Error::Refused(format!("there is no sandbox {text}; sbx ps -a lists them"))),
        }
    }

    /// All sandboxes, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        Ok(self.ids()?.into_iter().map(|id| self.entry(id)).collect())
    }

    /// Removes a sandbox that has no supervisor: its name first, then all that is kept of it.
    ///
    /// # Errors
    /// When the directory cannot be changed.
    pub fn remove(&self, entry: &Entry, lock: Lock) -> Result<()> {
        let failed = |e| Error::host(format!("remove sandbox {}", short(&entry.id)), e);
        {
            let _names = self.lock_names()?;
            let config = entry.config().ok();
            self.forget_names(&entry.id);
            let gone = self.root.join(format!(".old-{}", entry.id));
            fs::rename(&entry.dir, &gone).map_err(failed)?;
            events::tell(entry, config.as_ref(), What::Remove);
            fs::remove_dir_all(&gone).map_err(failed)?;
        }
        drop(lock);
        Ok(())
    }

    /// Its directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn entry(&self, id: String) -> Entry {
        Entry { dir: self.root.join(&id), id }
    }

    fn ids(&self) -> Result<Vec<String>> {
        let failed = |e| Error::host(format!("list the sandboxes in {}", self.root.display()), e);
        let mut ids = Vec::new();
        for item in fs::read_dir(&self.root).map_err(failed)? {
            let name = item.map_err(failed)?.file_name();
            ids.extend(name.into_string().ok().filter(|name| is_id(name)));
        }
        Ok(ids)
    }

    /// The sandbox that has this name.
    fn holder(&self, name: &str) -> Option<String> {
        let id = fs::read_link(self.root.join("names").join(name)).ok()?;
        let id = id.into_os_string().into_string().ok().filter(|id| is_id(id))?;
        self.root.join(&id).is_dir().then_some(id)
    }

    fn forget_names(&self, id: &str) {
        for link in fs::read_dir(self.root.join("names")).into_iter().flatten().flatten() {
            if fs::read_link(link.path()).is_ok_and(|target| target == Path::new(id)) {
                let _ = fs::remove_file(link.path());
            }
        }
    }

    fn free_name(&self) -> Result<String> {
        for _ in 0..100 {
            let name = names::name(random()?);
            if self.holder(&name).is_none() {
                return Ok(name);
            }
        }
        // Nearly all are taken.
        let [a, b, c, d] = random()?;
        Ok(format!("{}_{a:02x}{b:02x}", names::name([c, d])))
    }

    fn lock_names(&self) -> Result<File> {
        let failed = |e| Error::host("lock the list of sandboxes", e);
        let mut options = File::options();
        let path = self.root.join("lock");
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(failed)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        Ok(file)
    }

    /// Removes what makers and removers that were killed have left, the list being locked.
    fn sweep(&self) {
        for item in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if item.file_name().to_str().is_some_and(|name| name.starts_with('.')) {
                let _ = fs::remove_dir_all(item.path());
            }
        }
    }
}

/// One sandbox's directory.
#[derive(Clone, Debug)]
pub struct Entry {
    dir: PathBuf,
    id: String,
}

/// The right to start, hold or remove a sandbox; given up with the value, or by the end of all processes
/// that have inherited it.
#[derive(Debug)]
pub struct Lock(File);

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Entry {
    /// Its identification.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was asked.
    ///
    /// # Errors
    /// When the record is damaged, or of another version of sbx.
    pub fn config(&self) -> Result<Config> {
        self.read("config.json")
    }

    /// How it stands. One that says it is alive and has no supervisor is dead.
    ///
    /// # Errors
    /// When the record is damaged, or of another version of sbx.
    pub fn status(&self) -> Result<Status> {
        let status: Status = self.read("status.json")?;
        if !status.state.is_alive() || self.is_held() {
            return Ok(status);
        }
        // It may have ended just now, and said so before it let the lock go.
        let status: Status = self.read("status.json")?;
        let state = if status.state.is_alive() { State::Dead } else { status.state };
        Ok(Status { state, process: None, supervisor: None, ..status })
    }

    /// Sets room aside on the disk, which the log may fill, for [`Self::write_last`].
    ///
    /// # Errors
    /// When there is none.
    pub fn reserve(&self) -> Result<()> {
        fs::write(self.dir.join("room"), [b'.'; ROOM])
            .map_err(|e| Error::host("set room aside for the sandbox's record", e))
    }

    /// Replaces how it stands for the last time, in the room that was set aside if there is no other.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write_last(&self, status: &Status) -> Result<()> {
        let written = self.write(status);
        let _ = fs::remove_file(self.dir.join("room"));
        if written.is_ok() { written } else { self.write(status) }
    }

    /// Replaces how it stands: whoever reads finds the one or the other, whole.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, status: &Status) -> Result<()> {
        write(&self.dir, "status.json", status)
    }

    /// Takes the lock, unless the sandbox is alive. Who has it otherwise only begins, ends or removes the
    /// sandbox, and is waited for: what a command was told to have ended can be started or removed at once.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub fn lock(&self) -> Result<Option<Lock>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lock = self.try_lock()?;
            // A record that is not to be read tells nothing that could be waited for.
            let alive = |status: Result<Status>| status.map_or(true, |s| s.state.is_alive());
            if lock.is_some() || Instant::now() >= deadline {
                return Ok(lock);
            }
            if alive(self.read("status.json")) && self.dir.exists() {
                return Ok(None);
            }
        }
    }

    /// Takes the lock, unless somebody has it.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let file = self.open_lock()?;
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Who had it before may have removed the sandbox.
                Ok(()) if self.dir.join("lock").exists() => return Ok(Some(Lock(file))),
                Ok(()) => return Err(self.gone()),
                // Somebody may only have looked whether it is held.
                Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => return Err(Error::host(format!("lock sandbox {}", short(&self.id)), e)),
            }
        }
        Ok(None)
    }

    fn is_held(&self) -> bool {
        let shared = FlockOperation::NonBlockingLockShared;
        self.open_lock().is_ok_and(|file| flock(&file, shared) == Err(Errno::WOULDBLOCK))
    }

    fn open_lock(&self) -> Result<File> {
        File::options().read(true).open(self.dir.join("lock")).map_err(|e| match e.kind() {
            ErrorKind::NotFound => self.gone(),
            _ => Error::host(format!("lock sandbox {}", short(&self.id)), e),
        })
    }

    fn gone(&self) -> Error {
        Error::Refused(format!("sandbox {} has been removed", short(&self.id)))
    }

    fn make_lock(&self) -> Result<Lock> {
        let failed = |e| Error::host("keep the sandbox's record", e);
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600);
        let file = file.open(self.dir.join("lock")).map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| failed(e.into()))?;
        Ok(Lock(file))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let file = File::open(self.dir.join(name)).map_err(|e| match e.kind() {
            ErrorKind::NotFound if !self.dir.exists() => self.gone(),
            _ => Error::host(format!("read the record of sandbox {}", short(&self.id)), e),
        })?;
        let damaged = |why: &dyn std::fmt::Display| {
            Error::Refused(format!(
                "the record of sandbox {0} is damaged ({why}); remove it with: sbx rm -f {0}",
                short(&self.id)
            ))
        };
        let mut text = Vec::new();
        file.take(RECORD_MAX).read_to_end(&mut text).map_err(|e| damaged(&e))?;
        let Form { version } = serde_json::from_slice(&text).map_err(|e| damaged(&e))?;
        if version != VERSION {
            return Err(Error::Refused(format!(
                "sandbox {} was made by another version of sbx (its record is of form {version}, and this \
                 one knows {VERSION})",
                short(&self.id)
            )));
        }
        serde_json::from_slice(&text).map_err(|e| damaged(&e))
    }
}

/// What every record says, whatever its form.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// The beginning of an identification, as it is shown.
pub fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// Writes a record by rename.
fn write(dir: &Path, name: &str, record: &impl Serialize) -> Result<()> {
    let failed = |e: std::io::Error| Error::host("write the sandbox's record", e);
    let draft = dir.join(format!(".{name}"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(file.map_err(|e| failed(e.into()))?);
    let text = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
    let written = file.write_all(&text).and_then(|()| fs::rename(&draft, dir.join(name)));
    written.map_err(|e| {
        let _ = fs::remove_file(&draft);
        failed(e)
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
