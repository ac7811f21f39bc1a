//! The workload's file: opened once, and looked at before anything is made of it.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sbx_core::{Error, Result};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// The largest file that is taken for a program or a kernel, in bytes.
const LARGEST: u64 = 1 << 30;

/// Opens the file of a workload, without waiting for anybody: a FIFO is none.
///
/// # Errors
/// When there is no such file, it cannot be opened, or is no regular file or too large.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    let name = path.display();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty());
    let file = file.map(File::from).map_err(|e| match e {
        Errno::NOENT | Errno::NOTDIR => Error::NotFound(format!("there is no workload at {name}")),
        e => Error::NotRunnable(format!("cannot open {name}: {}", io::Error::from(e))),
    })?;
    let meta = file.metadata().map_err(|e| Error::host(format!("inspect {name}"), e))?;
    if meta.is_dir() {
        return Err(Error::NotRunnable(format!("{name} is a directory; name the program in it")));
    }
    if !meta.is_file() {
        return Err(Error::NotRunnable(format!("{name} is not a regular file")));
    }
    if meta.len() > LARGEST {
        return Err(Error::NotRunnable(format!("{name} is too large to be a program")));
    }
    Ok((file, meta))
}

/// Reads all of a workload's file.
///
/// # Errors
/// When the file cannot be read.
pub fn read(file: &File, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::host(format!("read {}", path.display()), e))?;
    Ok(bytes)
}

/// The first bytes of the workload's file, as many as fit; nothing if it cannot be read, which whoever
/// runs it will say better.
pub fn head<'a>(path: &Path, room: &'a mut [u8]) -> Option<&'a [u8]> {
    let (mut file, _) = open(path).ok()?;
    let len = file.read(room).ok()?;
    room.get(..len)
}
