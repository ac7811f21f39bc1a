//! A few commands, for a root that has no programs of its own: init under another name.
//!
//! They do what scripts of a line need and no more; options are not known.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags, open, symlink};
use rustix::io::Errno;
use rustix::process::getcwd;
use rustix::system::uname;
use rustix::thread::nanosleep;

use crate::sys::standard;

/// The commands.
const NAMES: [&str; 9] = ["cat", "echo", "env", "false", "mount", "pwd", "sleep", "true", "uname"];

/// Puts the commands to where programs are, unless something is there.
pub(crate) fn install() {
    let _ = rustix::fs::mkdir("/bin", Mode::from_raw_mode(0o755));
    for name in NAMES {
        let _ = symlink("/init", format!("/bin/{name}"));
    }
}

/// Runs the command that `arguments` begin with, and returns its exit status.
pub(crate) fn run(arguments: &[&[u8]], environment: &[&[u8]]) -> i32 {
    let path = arguments.first().copied().unwrap_or_default();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let rest = arguments.get(1..).unwrap_or_default();
    let result = match name {
        b"true" => Ok(()),
        b"false" => return 1,
        b"echo" => print(&[&rest.join(&b' '), b"\n"]),
        b"env" => environment.iter().try_for_each(|line| print(&[line, b"\n"])),
        b"pwd" => getcwd(Vec::new()).and_then(|path| print(&[path.as_bytes(), b"\n"])),
        b"uname" => {
            let system = uname();
            print(&[system.sysname().to_bytes(), b" ", system.release().to_bytes(), b"\n"])
        }
        b"mount" => cat_file(b"/proc/self/mounts"),
        b"cat" if rest.is_empty() => cat(standard(0)),
        b"cat" => rest.iter().try_for_each(|file| cat_file(file)),
        b"sleep" => return sleep(rest),
        _ => {
            complain(name, "is no command of sbx's init");
            return 127;
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            complain(name, &format!("{error}"));
            1
        }
    }
}

fn sleep(arguments: &[&[u8]]) -> i32 {
    let time = match arguments {
        [time] => duration(time),
        _ => None,
    };
    let Some(time) = time else {
        complain(b"sleep", "takes a number of seconds");
        return 1;
    };
    let _ = nanosleep(&time);
    0
}

/// A time in seconds, with a fraction perhaps.
fn duration(text: &[u8]) -> Option<Timespec> {
    let text = core::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if ![seconds, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let tv_sec = seconds.parse().ok()?;
    let tv_nsec = format!("{fraction:0<9.9}").parse().ok()?;
    Some(Timespec { tv_sec, tv_nsec })
}

fn cat_file(path: &[u8]) -> Result<(), Errno> {
    cat(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn cat(from: impl rustix::fd::AsFd) -> Result<(), Errno> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match rustix::io::read(&from, &mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => print(&[&piece[..count]])?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes the parts to standard output in one go, if it takes them.
fn print(parts: &[&[u8]]) -> Result<(), Errno> {
    write(standard(1), &parts.concat())
}

fn complain(name: &[u8], what: &str) {
    let _ = write(standard(2), &[name, b": ", what.as_bytes(), b"\n"].concat());
}

fn write(to: rustix::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let cases = [
            ("2", Some((2, 0))),
            ("0.25", Some((0, 250_000_000))),
            ("1.1234567891", Some((1, 123_456_789))),
            ("", None),
            ("1.", Some((1, 0))),
            ("-1", None),
            ("1.x", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            let time = duration(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
            assert_eq!(time, expected, "{text}");
        }
    }

    #[test]
    fn statuses() {
        assert_eq!(run(&[b"/bin/true"], &[]), 0);
        assert_eq!(run(&[b"false", b"x"], &[]), 1);
        assert_eq!(run(&[b"nothing"], &[]), 127);
        assert_eq!(run(&[], &[]), 127);
        assert_eq!(run(&[b"cat", b"/no/such/file"], &[]), 1);
    }
}
