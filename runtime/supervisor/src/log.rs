//! What a workload wrote, kept on disk: who wrote, when, and every byte of it.
//!
//! The form is that of the Kubernetes container runtime interface, which tools read and which holds any
//! bytes: `TIME STREAM P|F TEXT`, a line of the workload's each, or a part of one (`P`) where it had not
//! ended when it was written. There are two files: `log`, and when that is full `log.1`, which is the older
//! part; what was older still is gone.
//!
//! Not here: terminals' raw streams get no other form, and nothing is compressed.

use sbx_core::{Error, Result};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::Time;
use crate::lines::{Lines, older};

/// Bytes of log that are kept unless others are asked for.
pub const SIZE: u64 = 16 << 20;

/// One of the workload's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

fn file_of(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Writes a log. What cannot be written is counted, and never holds the workload up.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    file: File,
    size: u64,
    most: u64,
    lost: u64,
}

impl Writer {
    /// Goes on with the log in `dir`, of which `most` bytes are kept at least.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path, most: u64) -> Result<Self> {
        let failed = |e| Error::host("open the sandbox's log", e);
        let file = append_to(&file_of(dir)).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self { dir: dir.into(), file, size, most, lost: 0 })
    }

    /// Keeps what the workload wrote.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut text = Vec::with_capacity(bytes.len() + 64);
        let now = Time::now();
        let most = usize::try_from(self.most).unwrap_or(usize::MAX);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, tag) = match line.strip_suffix(b"\n") {
                Some(line) => (line, 'F'),
                None => (line, 'P'),
            };
            let before = text.len();
            // Writing to memory cannot fail.
            let _ = write!(text, "{now} {} {tag} ", stream.name());
            text.extend(line);
            text.push(b'\n');
            let size = usize::try_from(self.size).unwrap_or(usize::MAX);
            if size + before > 0 && size.saturating_add(text.len()) > most {
                let line = text.split_off(before);
                self.put(&text);
                self.turn_over();
                text = line;
            }
        }
        self.put(&text);
    }

    /// Writes these lines, or as many of them as there is room for.
    fn put(&mut self, text: &[u8]) {
        if self.file.write_all(text).is_ok() {
            self.size += text.len() as u64;
            return;
        }
        let end = self.file.metadata().map_or(self.size, |meta| meta.len());
        let there = usize::try_from(end.saturating_sub(self.size)).unwrap_or_default();
        let there = text.get(..there).unwrap_or_default();
        // Lines that are there have been seen, maybe; a part of one is none.
        let kept = there.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.size += kept as u64;
        let _ = self.file.set_len(self.size);
        let gone = text[kept..].split_inclusive(|byte| *byte == b'\n');
        let gone = gone.filter_map(|raw| Line::parse(raw.strip_suffix(b"\n")?));
        self.lost += gone.map(|line| line.text.len() as u64).sum::<u64>();
    }

    /// The files that it has open.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.file.as_fd())
    }

    /// How many of the workload's bytes could not be written.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Begins a new file. If that fails, the old one grows on: rather too much than nothing.
    fn turn_over(&mut self) {
        let moved = fs::rename(file_of(&self.dir), older(&file_of(&self.dir)));
        if let Ok(file) = moved.and_then(|()| append_to(&file_of(&self.dir))) {
            self.file = file;
            self.size = 0;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// A line of a log, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub time: Time,
    /// Where to.
    pub stream: Stream,
    /// What, with its end if it had one.
    pub text: Vec<u8>,
}

impl Line {
    fn parse(raw: &[u8]) -> Option<Self> {
        let mut parts = raw.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let full = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let mut text = parts.next()?.to_vec();
        text.extend(full.then_some(b'\n'));
        Some(Self { time, stream, text })
    }

    /// Whether it has its end.
    pub fn is_whole(&self) -> bool {
        self.text.ends_with(b"\n")
    }
}

/// Reads a log, and what is added to it while it is read.
#[derive(Debug)]
pub struct Reader(Lines);

impl Reader {
    /// A reader of the log in `dir`, from its beginning. One that does not exist yet is empty.
    pub fn open(dir: &Path) -> Self {
        Self(Lines::open(file_of(dir)))
    }

    /// The next line, if there is one yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line>> {
        let failed = |e| Error::host("read the sandbox's log", e);
        while let Some(raw) = self.0.next_line().map_err(failed)? {
            // What is no line was damaged by a crash of the host's; what follows is not.
            if let Some(line) = Line::parse(&raw) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The last `count` lines, of those at or after `since`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn last(&mut self, count: Option<usize>, since: Option<Time>) -> Result<VecDeque<Line>> {
        let mut lines = VecDeque::new();
        let mut begun = 0;
        let mut open = [false; 2];
        while let Some(line) = self.next_line()? {
            if since.is_some_and(|since| line.time < since) {
                continue;
            }
            let open = &mut open[usize::from(line.stream == Stream::Stderr)];
            // A line counts with all its parts, and one that has no end yet as well.
            let begins = !std::mem::replace(open, !line.is_whole());
            begun += usize::from(begins);
            lines.push_back((line, begins));
            while let Some((_, begins)) = lines.front()
                && (!begins || count.is_some_and(|count| begun > count))
            {
                begun -= usize::from(*begins);
                lines.pop_front();
            }
        }
        Ok(lines.into_iter().map(|(line, _)| line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: impl IntoIterator<Item = Line>) -> String {
        let all: Vec<u8> = lines.into_iter().flat_map(|line| line.text).collect();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn every_byte_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Writer::open(dir.path(), SIZE).unwrap();
        let mut reader = Reader::open(dir.path());
        assert_eq!(reader.next_line().unwrap(), None);
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"\xff\0 \n\n");
        log.write(Stream::Stdout, b"o\n");
        let lines: Vec<_> = std::iter::from_fn(|| reader.next_line().unwrap()).collect();
        let of = |stream| {
            let lines = lines.iter().filter(|line| line.stream == stream);
            lines.flat_map(|line| line.text.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(Stream::Stdout), b"one\ntwo\n");
        assert_eq!(of(Stream::Stderr), b"\xff\0 \n\n");
        // And what comes later, to a reader that is at the end.
        log.write(Stream::Stdout, b"more");
        assert_eq!(reader.next_line().unwrap().unwrap().text, b"more");
        // A writer that goes on after another.
        drop(log);
        Writer::open(dir.path(), SIZE).unwrap().write(Stream::Stdout, b"again\n");
        assert_eq!(reader.next_line().unwrap().unwrap().text, b"again\n");
    }

    #[test]
    fn the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Writer::open(dir.path(), SIZE).unwrap();
        log.write(Stream::Stdout, b"1\n2");
        log.write(Stream::Stdout, b"2\n3\n");
        let last = |count| text(Reader::open(dir.path()).last(count, None).unwrap());
        assert_eq!(last(None), "1\n22\n3\n");
        assert_eq!(last(Some(2)), "22\n3\n");
        assert_eq!(last(Some(0)), "");
        assert_eq!(last(Some(9)), "1\n22\n3\n");
        // One that has no end yet is the last one, in all its parts.
        log.write(Stream::Stdout, b"4");
        log.write(Stream::Stdout, b"4");
        assert_eq!(last(Some(1)), "44");
        assert_eq!(last(Some(2)), "3\n44");
        assert_eq!(last(Some(0)), "");
        let later = Time::now();
        assert_eq!(Reader::open(dir.path()).last(None, Some(later)).unwrap().len(), 0);
    }

    /// At least so much is kept, at most twice as much, and a reader that follows misses nothing.
    #[test]
    fn a_full_log_is_turned_over() {
        let dir = tempfile::tempdir().unwrap();
        let most = 10_000;
        let mut log = Writer::open(dir.path(), most).unwrap();
        let mut follower = Reader::open(dir.path());
        let mut followed = String::new();
        for number in 0..1000 {
            log.write(Stream::Stdout, format!("{number}\n").as_bytes());
            while let Some(line) = follower.next_line().unwrap() {
                followed.push_str(&text([line]));
            }
        }
        let all: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(followed, all);
        let size = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("log") <= most && size("log.1") <= most);
        assert!(size("log") + size("log.1") > most);
        let kept = text(Reader::open(dir.path()).last(None, None).unwrap());
        assert!(all.ends_with(&kept) && kept.len() > 100);
    }

    /// A follower that looks away while the log is turned over twice finds what there still is.
    #[test]
    fn turned_over_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Writer::open(dir.path(), 100).unwrap();
        log.write(Stream::Stdout, b"1\n");
        let mut follower = Reader::open(dir.path());
        assert_eq!(follower.next_line().unwrap().unwrap().text, b"1\n");
        log.write(Stream::Stdout, b"2\n3\n4\n5\n");
        assert_eq!(text(std::iter::from_fn(|| follower.next_line().unwrap())), "2\n3\n4\n5\n");
    }

    /// One write is cut where the file is full.
    #[test]
    fn much_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Writer::open(dir.path(), 1000).unwrap();
        log.write(Stream::Stdout, &b"\n".repeat(1000));
        let size = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("log") <= 1000 && size("log.1") <= 1000);
        assert!(size("log") + size("log.1") > 1000);
    }

    /// What was begun to be written and taken back is nothing that a follower has seen.
    #[test]
    fn a_line_that_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Writer::open(dir.path(), SIZE).unwrap();
        let mut follower = Reader::open(dir.path());
        log.file.write_all(b"half a line").unwrap();
        assert_eq!(follower.next_line().unwrap(), None);
        log.file.set_len(0).unwrap();
        log.write(Stream::Stdout, b"a whole one\n");
        assert_eq!(follower.next_line().unwrap().unwrap().text, b"a whole one\n");
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), "garbage\n\n1 2 3\nhalf").unwrap();
        let mut reader = Reader::open(dir.path());
        assert_eq!(reader.next_line().unwrap(), None);
    }
}
