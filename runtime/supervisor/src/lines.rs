//! The lines of a file that is turned over when it is full: `FILE`, and `FILE.1`, which is the older part.
//! They are read in order, and so is what is added while they are read.
//!
//! Not here: what a line means, and who writes it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the older part of a file is.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    older.into()
}

/// What tells one file from another, whatever it is called.
pub(crate) fn inode(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A reader.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    /// The file that is read, and after it the newer ones.
    now: Option<BufReader<File>>,
    next: VecDeque<BufReader<File>>,
}

impl Lines {
    /// A reader from the beginning. A file that does not exist yet is empty.
    pub(crate) fn open(path: PathBuf) -> Self {
        let next = both(&path).map(BufReader::new).collect();
        Self { path, now: None, next }
    }

    /// The next line without its end, if there is a whole one yet.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = &mut self.now else {
                if !self.go_on() {
                    return Ok(None);
                }
                continue;
            };
            let mut raw = Vec::new();
            let count = file.read_until(b'\n', &mut raw)?;
            if raw.pop_if(|byte| *byte == b'\n').is_some() {
                return Ok(Some(raw));
            }
            if count > 0 {
                // A line whose end has not been written yet, and is taken back if there is no room for that.
                file.seek(SeekFrom::Current(-i64::try_from(count).unwrap_or_default()))?;
            }
            if !self.go_on() {
                return Ok(None);
            }
        }
    }

    /// At the end of a file: whether there is a newer one to go on with.
    fn go_on(&mut self) -> bool {
        if self.next.is_empty() {
            let here = self.now.as_ref().and_then(|file| inode(file.get_ref()));
            let files: Vec<_> = both(&self.path).collect();
            // All but those up to the one that is read. If that is gone, so are those in between.
            let known = files.iter().position(|file| inode(file) == here).map_or(0, |at| at + 1);
            self.next.extend(files.into_iter().skip(known).map(BufReader::new));
            // What was written to the old one just before it was turned over comes first.
            if self.now.is_some() {
                return !self.next.is_empty();
            }
        }
        self.now = self.next.pop_front();
        self.now.is_some()
    }
}

/// The older file and the newer one, as far as they exist, as they were at one moment.
fn both(path: &Path) -> impl Iterator<Item = File> {
    let open = |path: &Path| File::open(path).ok();
    let older = older(path);
    loop {
        let (first, newer, again) = (open(&older), open(path), open(&older));
        let [before, now, after] =
            [&first, &newer, &again].map(|file| file.as_ref().and_then(inode));
        // Otherwise it was turned over in between.
        if before == after && (before.is_none() || before != now) {
            return first.into_iter().chain(newer);
        }
    }
}
