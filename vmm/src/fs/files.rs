//! Operations on files that are open: OPEN, CREATE, READ, WRITE, FSYNC, FALLOCATE, LSEEK.

use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom, openat2};
use rustix::io::{Errno, ReadWriteFlags};
use sbx_core::quota::Full;
use std::io::{IoSlice, Read, Write};
use std::os::fd::OwnedFd;

use super::Access;
use super::inodes::{self, BENEATH};
use super::server::{Handle, Request, Server, reads_only};
use super::wire::{Args, MAX_TRANSFER, Out};

/// Bytes of a file's contents that are held on their way between a file and the guest's memory: small
/// enough to stay in the processor's cache.
const CHUNK: usize = 128 << 10;

/// `FOPEN_KEEP_CACHE`.
const KEEP_CACHE: u32 = 1 << 1;

/// The bit of WRITE's flags that says that the guest's cache is written back (`FUSE_WRITE_CACHE`).
const FROM_CACHE: u32 = 1;

impl Server {
    pub(super) fn open(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let flags = request.args.u32()?;
        let node = self.nodes.get(request.header.node)?;
        if node.kind == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        if !reads_only(flags) {
            self.strip(&node)?;
        }
        let file = self.reopen(&node, host_flags(flags)?)?;
        self.opened(file, request.header.node, request.out)
    }

    /// Answers with an open file (`struct fuse_open_out`).
    fn opened(&mut self, fd: OwnedFd, node: u64, out: &mut Out) -> Result<(), Errno> {
        let handle = self.keep(Handle { fd, directory: false, node })?;
        out.u64(handle);
        out.u32(if self.options.access == Access::ReadWrite { 0 } else { KEEP_CACHE });
        out.u32(0);
        Ok(())
    }

    pub(super) fn create(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (flags, mode) = (request.args.u32()?, request.args.u32()?);
        // The guest's umask is in the mode already.
        request.args.u64()?;
        let name = request.args.name()?;
        self.nodes.make_room(2)?;
        let how = host_flags(flags)?;
        let exclusive = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        let made = self.make(request.header, name, Some(mode), |parent, mode| {
            let flags = how | exclusive | OFlags::NONBLOCK | OFlags::NOCTTY;
            file = Some(openat2(parent, name, flags, mode, BENEATH)?);
            Ok(())
        });
        let named = match made {
            Err(Errno::EXIST) if !OFlags::from_bits_retain(flags).contains(OFlags::EXCL) => {
                inodes::child(self.nodes.get(request.header.node)?, name)?.0
            }
            made => made?,
        };
        let id = self.enter(named, name, request)?;
        let file = match file {
            Some(file) => Ok(file),
            None => self.open_existing(id, flags, how),
        };
        let opened = file.and_then(|file| self.opened(file, id, request.out));
        if opened.is_err() {
            self.nodes.forget(id, 1);
        }
        opened
    }

    fn open_existing(&mut self, id: u64, flags: u32, how: OFlags) -> Result<OwnedFd, Errno> {
        let node = self.nodes.get(id)?;
        if node.kind == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        if !reads_only(flags & !OFlags::CREATE.bits()) {
            self.strip(&node)?;
        }
        self.reopen(&node, how)
    }

    /// Writes contents to `body`; returns how many bytes, fewer than asked for only at the file's end or
    /// where the guest has no room for more.
    pub(super) fn read(
        &mut self,
        mut args: Args<'_>,
        body: &mut dyn Write,
        room: usize,
    ) -> Result<usize, Errno> {
        let (id, offset, size) = (args.u64()?, args.offset()?, args.u32()?);
        let wanted = (size.min(MAX_TRANSFER) as usize).min(room);
        self.chunk.resize(CHUNK, 0);
        let mut done = 0;
        while done < wanted {
            let len = (wanted - done).min(CHUNK);
            let mut chunk = std::mem::take(&mut self.chunk);
            let read = self.file(id).and_then(|file| {
                let from = offset.checked_add(done as u64).ok_or(Errno::INVAL)?;
                rustix::io::pread(file, &mut chunk[..len], from)
            });
            self.chunk = chunk;
            let read = match read {
                Err(Errno::INTR) => continue,
                Err(_) if done > 0 => break,
                read => read?,
            };
            body.write_all(&self.chunk[..read]).map_err(|_| Errno::FAULT)?;
            done += read;
            if read < len {
                break;
            }
        }
        Ok(done)
    }

    /// Writes contents, which are what is left of `contents`.
    pub(super) fn write(
        &mut self,
        request: &mut Request<'_>,
        contents: &mut dyn Read,
    ) -> Result<(), Errno> {
        let (id, offset, size) = (request.args.u64()?, request.args.offset()?, request.args.u32()?);
        let (write_flags, _lock_owner) = (request.args.u32()?, request.args.u64()?);
        let flags = OFlags::from_bits_retain(request.args.u32()?);
        if size > MAX_TRANSFER {
            return Err(Errno::INVAL);
        }
        self.file(id)?;
        // What is appended goes to the file's end on the host, of which the guest may know late. A cache
        // that is written back knows its places.
        let append = flags.contains(OFlags::APPEND) && write_flags & FROM_CACHE == 0;
        let how = if append { ReadWriteFlags::APPEND } else { ReadWriteFlags::empty() };
        self.options.quota.take(size.into()).map_err(|Full| Errno::NOSPC)?;
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(CHUNK, 0);
        let written = self
            .file(id)
            .and_then(|file| copy(contents, file, offset, size as usize, how, &mut chunk));
        self.chunk = chunk;
        let len = u32::try_from(written.unwrap_or(0)).unwrap_or(size);
        self.options.quota.give_back(u64::from(size.saturating_sub(len)));
        written?;
        request.out.u32(len);
        request.out.u32(0);
        Ok(())
    }

    pub(super) fn sync(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (id, flags) = (request.args.u64()?, request.args.u32()?);
        let fd = &self.handles.get(&id).ok_or(Errno::BADF)?.fd;
        if flags & 1 == 0 { rustix::fs::fsync(fd) } else { rustix::fs::fdatasync(fd) }
    }

    /// Blocks that a file is given count as bytes written.
    pub(super) fn allocate(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (id, offset) = (request.args.u64()?, request.args.offset()?);
        let (len, mode) = (request.args.offset()?, request.args.u32()?);
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        let file = self.file(id)?;
        let adds = match mode.difference(FallocateFlags::KEEP_SIZE) {
            FallocateFlags::PUNCH_HOLE => 0,
            mode if mode.is_empty() || mode == FallocateFlags::ZERO_RANGE => len,
            _ => return Err(Errno::OPNOTSUPP),
        };
        self.options.quota.take(adds).map_err(|Full| Errno::NOSPC)?;
        let done = rustix::fs::fallocate(file, mode, offset, len);
        if done.is_err() {
            self.options.quota.give_back(adds);
        }
        done
    }

    /// Finds data and holes; places that only the guest knows it does not ask for.
    pub(super) fn seek(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (id, offset, whence) =
            (request.args.u64()?, request.args.offset()?, request.args.u32()?);
        let to = match whence {
            3 => SeekFrom::Data(offset),
            4 => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let found = rustix::fs::seek(self.file(id)?, to)?;
        request.out.u64(found);
        Ok(())
    }
}

/// The flags of `open` that are the host's business.
fn host_flags(flags: u32) -> Result<OFlags, Errno> {
    let flags = OFlags::from_bits_retain(flags);
    if flags.contains(OFlags::ACCMODE) {
        return Err(Errno::INVAL);
    }
    Ok(flags & (OFlags::RWMODE | OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC))
}

/// Copies `len` bytes into a file; returns how many before the file took no more.
fn copy(
    contents: &mut dyn Read,
    file: &OwnedFd,
    offset: u64,
    len: usize,
    how: ReadWriteFlags,
    chunk: &mut [u8],
) -> Result<usize, Errno> {
    let mut done = 0;
    while done < len {
        let part = (len - done).min(chunk.len());
        contents.read_exact(&mut chunk[..part]).map_err(|_| Errno::INVAL)?;
        let mut bytes = &chunk[..part];
        while !bytes.is_empty() {
            let to = offset.checked_add(done as u64).ok_or(Errno::FBIG)?;
            match rustix::io::pwritev2(file, &[IoSlice::new(bytes)], to, how) {
                Err(Errno::INTR) => {}
                Ok(written) if written > 0 => {
                    done += written;
                    bytes = &bytes[written..];
                }
                _ if done > 0 => return Ok(done),
                written => return written,
            }
        }
    }
    Ok(done)
}
