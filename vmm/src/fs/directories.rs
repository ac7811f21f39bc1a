//! Operations on directories that are open: OPENDIR, READDIR, READDIRPLUS.
//!
//! A place in a directory is the host's own cookie for it, to which the host's directory is moved before
//! each reading; a guest that asks for places of its own invention gets what the host makes of them.
//! For some file systems (tmpfs before Linux 6.6) a place is a count of entries, and moving there after some
//! were removed skips others. So no more is read than there is room to tell: whoever removes what it is
//! told, and reads on, finds the host's directory at its place, and nothing is moved.

use rustix::fs::{FileType, OFlags, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;
use std::mem::MaybeUninit;

use super::Access;
use super::inodes;
use super::server::{Handle, Request, Server};
use super::wire::{ENTRY_LEN, Op, Out, ROOT};

/// The most bytes of a listing in one answer.
const MAX_LISTING: usize = 64 << 10;
/// Bytes of entries that are asked of the host at once, at most and at least. An entry has up to 280,
/// and some are lost to its alignment.
const BATCH: usize = 32 << 10;
const BATCH_MIN: usize = 288;
/// Bytes of `struct fuse_dirent` before the name.
const DIRENT: usize = 24;
/// Bytes of the shortest entries, as the host and as an answer has them. The longer they are, the less do
/// they differ.
const SHORTEST: usize = 24;
const SHORTEST_ANSWER: usize = DIRENT + 8;

/// `FOPEN_KEEP_CACHE` and `FOPEN_CACHE_DIR`.
const KEEP_LISTING: u32 = 1 << 1 | 1 << 3;

impl Server {
    pub(super) fn open_directory(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let node = self.nodes.get(request.header.node)?;
        let fd = self.reopen(&node, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let handle = self.keep(Handle { fd, directory: true, node: request.header.node })?;
        request.out.u64(handle);
        request.out.u32(if self.options.access == Access::Root { KEEP_LISTING } else { 0 });
        request.out.u32(0);
        Ok(())
    }

    pub(super) fn read_directory(
        &mut self,
        op: Op,
        request: &mut Request<'_>,
    ) -> Result<(), Errno> {
        let (id, offset, size) = (request.args.u64()?, request.args.offset()?, request.args.u32()?);
        // Taken out for the time being, for entries to be looked up while it is read.
        let handle = self.handles.remove(&id).ok_or(Errno::BADF)?;
        let result = if handle.directory {
            let room = (size as usize).min(request.room).min(MAX_LISTING);
            rustix::fs::seek(&handle.fd, SeekFrom::Start(offset))
                .and_then(|_| self.list(op, &handle, room, request.out))
        } else {
            Err(Errno::NOTDIR)
        };
        self.handles.insert(id, handle);
        result
    }

    fn list(
        &mut self,
        op: Op,
        directory: &Handle,
        room: usize,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let plus = if op == Op::ReadDirPlus { ENTRY_LEN } else { 0 };
        let mut batch = [MaybeUninit::uninit(); BATCH];
        loop {
            let fits = (room - out.len()) * SHORTEST / (SHORTEST_ANSWER + plus);
            // Rather than to read what cannot be told, less is told than could be.
            if fits < BATCH_MIN && out.len() > 0 {
                return Ok(());
            }
            let batch = &mut batch[..fits.clamp(BATCH_MIN, BATCH)];
            if !self.list_batch(plus, directory, room, batch, out)? {
                return Ok(());
            }
        }
    }

    /// Lists what the host puts into `batch`; whether there may be more.
    fn list_batch(
        &mut self,
        plus: usize,
        directory: &Handle,
        room: usize,
        batch: &mut [MaybeUninit<u8>],
        out: &mut Out,
    ) -> Result<bool, Errno> {
        let mut entries = RawDir::new(&directory.fd, batch);
        let mut any = false;
        // The last of a batch, or what follows would be read already.
        while !(any && entries.is_buffer_empty()) {
            let Some(entry) = entries.next() else { return Ok(false) };
            any = true;
            let entry = match entry {
                // What was read is not lost; the next reading meets the error again.
                Err(_) if out.len() > 0 => return Ok(false),
                entry => entry?,
            };
            let name = entry.file_name().to_bytes();
            let needed = plus + (DIRENT + name.len()).next_multiple_of(8);
            if out.len() + needed > room {
                return if out.len() > 0 { Ok(false) } else { Err(Errno::INVAL) };
            }
            if plus != 0 {
                match self.list_entry(directory, &entry, out) {
                    // Gone since the host listed it.
                    Err(Errno::NOENT) => continue,
                    Ok(()) => {}
                    // Without attributes, the guest asks for them and meets the error by itself.
                    Err(_) => out.zeros(ENTRY_LEN),
                }
            }
            // What is above the root is none of the guest's business; zero would hide the entry.
            let above = directory.node == ROOT && name == b"..";
            list_name(&entry, if above { ROOT } else { entry.ino() }, out);
        }
        Ok(true)
    }

    /// Looks up an entry of a listing, but for the two that are no files of it.
    fn list_entry(
        &mut self,
        directory: &Handle,
        entry: &RawDirEntry<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            out.zeros(ENTRY_LEN);
            return Ok(());
        }
        let (fd, stat) = inodes::child(&directory.fd, entry.file_name())?;
        let id = self.nodes.enter(fd, &stat, directory.node, entry.file_name())?;
        self.entry(id, &stat, out);
        Ok(())
    }
}

/// Writes `struct fuse_dirent`.
fn list_name(entry: &RawDirEntry<'_>, number: u64, out: &mut Out) {
    let name = entry.file_name().to_bytes();
    out.u64(number);
    out.u64(entry.next_entry_cookie());
    out.u32(u32::try_from(name.len()).unwrap_or(u32::MAX));
    out.u32(match entry.file_type() {
        FileType::Unknown => 0,
        kind => kind.as_raw_mode() >> 12,
    });
    out.bytes(name);
    out.zeros(out.len().next_multiple_of(8) - out.len());
}
