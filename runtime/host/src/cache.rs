//! The cache of code made ready, compiled WebAssembly and unpacked kernels: what makes every start but
//! a workload's first one fast.
//!
//! ```text
//! $XDG_CACHE_HOME/sbx/     0700, or it is not used
//!   index/KEY              a record: kind of code, object, and the object's identity
//!   code/KEY               code, mapped when it is run
//!   lock/KEY               held while KEY is made
//! ```
//!
//! A key is the digest of a workload's bytes, or what git's index keeps for a file (device, inode,
//! size, times), so that a hit reads nothing of the workload. Either key names a record, which names
//! the code together with the identity that its file had when sbx put it there. Code runs only if it
//! still has exactly that identity (every write and every rename changes the inode's ctime), is this
//! user's, and cannot be written by others. So a file that was cut short, overwritten, or copied here
//! from elsewhere is made anew. That an engine made its code itself is for the engine to check.
//!
//! Files appear by rename, and records after code, so that a reader sees whole ones or none.

use sbx_core::{Error, Result};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Precedes every record: what one means changes with this.
const FORMAT: &str = concat!("1-", env!("CARGO_PKG_VERSION"));

/// A file that changed this recently may change again within its clock's tick, unnoticed.
const SETTLED: Duration = Duration::from_secs(2);

/// The user's cache.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// What a record is found by, as the name of its file. One workload has a key for each `variant` that
/// its code is made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// For a workload by its bytes.
    pub fn of_bytes(bytes: &[u8], variant: &str) -> Self {
        let digest = blake3::hash(bytes).to_hex();
        Self(format!("{}-{variant}", &digest[..32]))
    }

    /// For a workload by its file, if that has been left alone long enough for its times to tell
    /// every later change. There is nothing to digest: the identity itself is a name.
    pub fn of_file(meta: &fs::Metadata, variant: &str) -> Option<Self> {
        let changed = Duration::new(
            u64::try_from(meta.ctime().max(meta.mtime())).ok()?,
            u32::try_from(meta.ctime_nsec().max(meta.mtime_nsec())).ok()?,
        );
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let [dev, ino, size, mtime, mtime_ns, ctime, ctime_ns] = Identity::of(meta).0;
        let name = format!(
            "{dev:x}-{ino:x}-{size:x}-{mtime:x}-{mtime_ns:x}-{ctime:x}-{ctime_ns:x}-{variant}"
        );
        (changed + SETTLED < now).then_some(Self(name))
    }

    fn name(&self) -> &str {
        &self.0
    }
}

/// What tells one state of a file from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity([i64; 7]);

impl Identity {
    fn of(meta: &fs::Metadata) -> Self {
        Self([
            meta.dev() as i64,
            meta.ino() as i64,
            meta.size() as i64,
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ])
    }

    fn parse(words: &mut std::str::SplitWhitespace<'_>) -> Option<Self> {
        let mut numbers = [0; 7];
        for number in &mut numbers {
            *number = words.next()?.parse().ok()?;
        }
        Some(Self(numbers))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g, h] = self.0;
        write!(f, "{a} {b} {c} {d} {e} {g} {h}")
    }
}

/// Code that is being written.
#[derive(Debug)]
pub struct Draft {
    /// Where it is written to.
    pub file: File,
    path: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// An entry as `sbx cache ls` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Entry {
    /// Digest of the workload and of the engine's settings.
    pub name: String,
    /// Bytes of code.
    pub size: u64,
    /// When it was last run, as far as the file system keeps access times.
    #[serde(serialize_with = "rfc3339")]
    pub used: SystemTime,
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_seconds(*time))
}

impl Cache {
    /// Opens the user's cache, making it first if there is none.
    ///
    /// # Errors
    /// When there is no place for it or others could write to it. sbx works without a cache, and
    /// compiles each time.
    pub fn open() -> Result<Self> {
        let base = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = base("XDG_CACHE_HOME").or_else(|| Some(base("HOME")?.join(".cache")));
        let dir = base.ok_or_else(|| Error::Refused("HOME is not set".into()))?.join("sbx");
        Self::at(dir)
    }

    fn at(dir: PathBuf) -> Result<Self> {
        let meta = match fs::symlink_metadata(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                lay_out(&dir).map_err(|e| Error::host(format!("create {}", dir.display()), e))?;
                fs::symlink_metadata(&dir)
            }
            found => found,
        }
        .map_err(|e| Error::host(format!("use {}", dir.display()), e))?;
        if !meta.is_dir() || !private(&meta) {
            let dir = dir.display();
            return Err(Error::Refused(format!(
                "{dir} is open to other users; make it private with chmod 700 {dir}"
            )));
        }
        Ok(Self { dir })
    }

    /// Finds code of one of `kinds`, opened for mapping.
    pub fn find(&self, key: &Key, kinds: &[&'static str]) -> Option<(&'static str, File)> {
        let record = fs::read_to_string(self.dir.join("index").join(key.name())).ok()?;
        let mut words = record.split_whitespace();
        let (format, kind, object) = (words.next()?, words.next()?, words.next()?);
        let kind = kinds.iter().find(|k| **k == kind)?;
        let identity = Identity::parse(&mut words)?;
        if format != FORMAT || Path::new(object).file_name() != Some(OsStr::new(object)) {
            return None;
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc_nofollow())
            .open(self.dir.join("code").join(object))
            .ok()?;
        let meta = file.metadata().ok()?;
        (meta.is_file() && private(&meta) && Identity::of(&meta) == identity)
            .then_some((*kind, file))
    }

    /// Holds off others who would make the same code, until the answer is dropped.
    pub fn lock(&self, key: &Key) -> io::Result<File> {
        // Whatever cleaned part of the cache away, or was killed while making it, is mended here.
        lay_out(&self.dir)?;
        let path = self.dir.join("lock").join(key.name());
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// Begins a file of code.
    pub fn draft(&self, key: &Key) -> io::Result<Draft> {
        let name = format!(".{}-{}", key.name(), std::process::id());
        let path = self.dir.join("code").join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Draft { file, path })
    }

    /// Publishes a draft under `key`, as code of `kind` (a word).
    pub fn publish(&self, key: &Key, kind: &str, draft: &Draft) -> io::Result<()> {
        let object = key.name().to_owned();
        fs::rename(&draft.path, self.dir.join("code").join(&object))?;
        self.record(key, kind, &object, &draft.file.metadata()?)
    }

    /// Lets `key` find the code that `found_by` finds.
    pub fn alias(&self, key: &Key, found_by: &Key) -> io::Result<()> {
        let index = self.dir.join("index");
        self.replace(&index.join(key.name()), &fs::read(index.join(found_by.name()))?)
    }

    fn record(&self, key: &Key, kind: &str, object: &str, meta: &fs::Metadata) -> io::Result<()> {
        let record = format!("{FORMAT} {kind} {object} {}\n", Identity::of(meta));
        self.replace(&self.dir.join("index").join(key.name()), record.as_bytes())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let draft = path.with_extension(std::process::id().to_string());
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        fs::rename(&draft, path)
    }

    /// What is in the cache.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let failed = |e| Error::host("read the cache", e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.dir.join("code")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Another sbx may have removed it since.
            let Ok(meta) = entry.metadata() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let used = meta.accessed().or_else(|_| meta.modified()).map_err(failed)?;
            entries.push(Entry { name, size: meta.len(), used });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Removes the code that was last run longer than `age` ago, what no record names any more, and
    /// what a killed sbx left half written. Returns how many files of code and how many bytes.
    pub fn prune(&self, age: Duration) -> Result<(usize, u64)> {
        let failed = |e| Error::host("prune the cache", e);
        let now = SystemTime::now();
        let old = |used: SystemTime| now.duration_since(used).unwrap_or_default() >= age;
        let (mut files, mut bytes) = (0, 0);
        for entry in self.entries()?.into_iter().filter(|e| old(e.used)) {
            fs::remove_file(self.dir.join("code").join(&entry.name)).map_err(failed)?;
            files += 1;
            bytes += entry.size;
        }
        for part in ["index", "lock", "code"] {
            for entry in fs::read_dir(self.dir.join(part)).map_err(failed)?.flatten() {
                let draft = entry.file_name().as_encoded_bytes().contains(&b'.');
                let stale = match part {
                    "index" => draft || self.is_dangling(&entry.path()),
                    "code" => draft,
                    _ => true,
                };
                let used = entry.metadata().and_then(|m| m.modified()).unwrap_or(now);
                let at_rest =
                    now.duration_since(used).unwrap_or_default() > Duration::from_secs(3600);
                if stale && (at_rest || (part == "index" && !draft)) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok((files, bytes))
    }

    fn is_dangling(&self, record: &Path) -> bool {
        let text = fs::read_to_string(record).unwrap_or_default();
        text.split_whitespace()
            .nth(2)
            .is_none_or(|object| !self.dir.join("code").join(object).exists())
    }
}

/// Makes the directories of a cache, as far as there are none.
fn lay_out(dir: &Path) -> io::Result<()> {
    ["index", "code", "lock"]
        .iter()
        .try_for_each(|part| DirBuilder::new().recursive(true).mode(0o700).create(dir.join(part)))
}

fn private(meta: &fs::Metadata) -> bool {
    meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0
}

fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
