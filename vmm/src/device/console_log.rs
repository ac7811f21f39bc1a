//! The end of what a guest said on its console, kept for the report of a machine that ended badly, and
//! the reason of a kernel's panic among it.
//!
//! Kept are the last [`LINES`] lines, each cut at [`LINE`] bytes, whatever the guest writes. They are
//! for a terminal to show: escape sequences and what cannot be printed are dropped, and a carriage return
//! does not start a line anew.
//!
//! Not here: the whole output, which goes where the caller sends it.

use std::collections::VecDeque;

/// How many lines are kept.
pub const LINES: usize = 40;
/// How many bytes of a line are.
pub const LINE: usize = 512;

/// What Linux begins a panic's line with, after the time.
const PANIC: &str = "Kernel panic - not syncing: ";

/// The log.
#[derive(Debug, Default)]
pub struct ConsoleLog {
    lines: VecDeque<String>,
    /// The line that is being written, in bytes: a character may come in parts.
    line: Vec<u8>,
    escape: Escape,
    panic: Option<String>,
}

/// Where in an escape sequence the output is (ECMA-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After the escape character.
    Begun,
    /// In a control sequence, up to its final byte.
    Control,
    /// In a string (a window's title), up to its terminator.
    String,
}

const BELL: u8 = 0x07;
const ESCAPE: u8 = 0x1b;

impl ConsoleLog {
    /// Takes output.
    pub fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.take(*byte));
    }

    /// The last lines, the one that was not finished too if there is something on it.
    pub fn lines(&self) -> Vec<String> {
        let rest = (!self.line.is_empty()).then(|| printable(&self.line));
        self.lines.iter().cloned().chain(rest).collect()
    }

    /// Why the guest's kernel panicked, in its own words, if it did. The first panic counts.
    pub fn panic(&self) -> Option<String> {
        self.panic.clone().or_else(|| panic_reason(&printable(&self.line)))
    }

    fn take(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            // A line's end ends whatever was broken before it.
            (_, b'\n') => {
                self.end_line();
                Escape::None
            }
            (_, ESCAPE) => Escape::Begun,
            (Escape::None, b'\t' | b' '..=0x7e | 0x80..) => {
                if self.line.len() < LINE {
                    self.line.push(byte);
                }
                Escape::None
            }
            (Escape::None, _) => Escape::None,
            (Escape::Begun, b'[') => Escape::Control,
            (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Escape::String,
            // Intermediate bytes; the final one follows.
            (Escape::Begun, 0x20..=0x2f) => Escape::Begun,
            (Escape::Begun, _) => Escape::None,
            (Escape::Control, 0x40..=0x7e) | (Escape::String, BELL) => Escape::None,
            (unfinished, _) => unfinished,
        };
    }

    fn end_line(&mut self) {
        let line = printable(&self.line);
        self.line.clear();
        if self.panic.is_none() {
            self.panic = panic_reason(&line);
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// What is not UTF-8 is shown as such; control characters outside of ASCII are dropped.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

fn panic_reason(line: &str) -> Option<String> {
    let (_, reason) = line.split_once(PANIC)?;
    Some(reason.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(output: &str) -> ConsoleLog {
        let mut log = ConsoleLog::default();
        log.write(output.as_bytes());
        log
    }

    #[test]
    fn the_last_lines_are_kept() {
        let output: String = (0..100).map(|n| format!("line {n}\r\n")).collect();
        let log = log(&(output + "and half a"));
        let lines = log.lines();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[0], "line 60");
        assert_eq!(lines[LINES - 1..], ["line 99", "and half a"]);
        assert_eq!(log.panic(), None);
    }

    #[test]
    fn what_a_terminal_would_obey_is_dropped() {
        for (output, line) in [
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]0;title\x1b\\text", "text"),
            ("\x1bPstring\x1b\\text", "text"),
            ("\x1b(Btext\x1b7", "text"),
            ("a\x08\x00\x7fb\rc\td", "abc\td"),
            ("\u{9b}31mg\u{85}r\u{fc}n", "31mgr\u{fc}n"),
            ("\x1b[12\nnext", "next"),
            ("\x1b]0;never ended\nnext", "next"),
        ] {
            assert_eq!(log(output).lines().last().unwrap(), line, "{output:?}");
        }
        let mut bytes = ConsoleLog::default();
        bytes.write(b"\xff\xfe ok");
        assert_eq!(bytes.lines(), ["\u{fffd}\u{fffd} ok"]);
    }

    #[test]
    fn a_panic_gives_its_reason() {
        let reason = "VFS: Unable to mount root fs on unknown-block(0,0)";
        let first = format!("[    0.41] Kernel panic - not syncing: {reason}");
        assert_eq!(log(&first).panic().unwrap(), reason);
        let then = format!("{first}\r\n[    0.42] Kernel panic - not syncing: another\r\n");
        let mut log = log(&then);
        (0..1000).for_each(|_| log.write(b"more\n"));
        assert_eq!(log.panic().unwrap(), reason);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut log = ConsoleLog::default();
        for byte in 0..=u8::MAX {
            (0..4 * LINE).for_each(|_| log.write(&[byte]));
            (0..2 * LINES).for_each(|_| log.write(b"\n"));
            log.write(&[byte; 4 * LINE]);
        }
        // A byte that is not UTF-8 takes three to be shown.
        assert!(log.lines().len() <= LINES + 1);
        assert!(log.lines().iter().all(|line| line.len() <= 3 * LINE));
        assert!(log.line.len() <= LINE);
    }
}
