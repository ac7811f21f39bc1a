//! Operations on what a file is: LOOKUP, GETATTR, SETATTR, READLINK, STATFS.

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::inodes::{self, Named};
use super::owners::Owners;
use super::server::{Request, Server};
use super::wire::{Args, MAX_NAME, Out};

/// The bits of a mode that a guest may set.
pub(super) fn permissions(kind: FileType, mode: u32) -> Mode {
    let all = if kind == FileType::Directory { 0o1777 } else { 0o777 };
    Mode::from_raw_mode(mode & all)
}

impl Server {
    pub(super) fn look_up(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let name = request.args.name()?;
        let directory = self.nodes.get(request.header.node)?;
        let (fd, stat) = match inodes::child(directory, name) {
            // Entry 0 is a name that is known not to be there.
            Err(Errno::NOENT) if self.keeps_absence() => {
                self.absent(request.out);
                return Ok(());
            }
            found => found?,
        };
        let id = self.nodes.enter(fd, &stat, request.header.node, name)?;
        self.entry(id, &stat, request.out);
        Ok(())
    }

    pub(super) fn get_attributes(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let stat = inodes::stat(self.nodes.get(request.header.node)?)?;
        let out = &mut *request.out;
        out.u64(self.valid());
        out.u64(0);
        self.attributes(&stat, out);
        Ok(())
    }

    pub(super) fn set_attributes(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let changes = Changes::read(&mut request.args)?;
        let node = self.nodes.get(request.header.node)?;
        if let Some(mode) = changes.mode {
            self.set_mode(&node, mode)?;
        }
        let (uid, gid) = self.owners.change(changes.uid, changes.gid)?;
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(&node, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = changes.size {
            self.set_size(&node, changes.handle, size)?;
        }
        if let Some(times) = changes.times {
            rustix::fs::utimensat(&node, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        self.get_attributes(request)
    }

    fn set_mode(&self, node: &Named, mode: u32) -> Result<(), Errno> {
        if node.kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let (name, mode) = (DecInt::from_fd(node), permissions(node.kind, mode));
        rustix::fs::chmodat(&self.descriptors, name, mode, AtFlags::empty())
    }

    fn set_size(&self, node: &Named, handle: Option<u64>, size: u64) -> Result<(), Errno> {
        if let Some(handle) = handle {
            return rustix::fs::ftruncate(self.file(handle)?, size);
        }
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        self.strip(node)?;
        rustix::fs::ftruncate(self.reopen(node, OFlags::WRONLY)?, size)
    }

    /// Takes the rights of its owner from a program that the guest is about to change: root's writes
    /// would leave them.
    pub(super) fn strip(&self, node: &Named) -> Result<(), Errno> {
        // The host's kernel does it for whoever is not root.
        if self.owners != Owners::AsOnTheHost || node.kind != FileType::RegularFile {
            return Ok(());
        }
        let mode = u32::from(inodes::stat(node)?.stx_mode);
        if mode & 0o6000 == 0 { Ok(()) } else { self.set_mode(node, mode) }
    }

    pub(super) fn read_link(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let node = self.nodes.get(request.header.node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let target = rustix::fs::readlinkat(&node, c"", Vec::new())?;
        request.out.bytes(target.as_bytes());
        Ok(())
    }

    pub(super) fn stat_fs(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let stat = rustix::fs::fstatvfs(self.nodes.get(request.header.node)?)?;
        let out = &mut *request.out;
        for count in [stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree] {
            out.u64(count);
        }
        let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        out.u32(short(stat.f_bsize));
        out.u32(short(stat.f_namemax).min(MAX_NAME as u32));
        out.u32(short(stat.f_frsize));
        out.zeros(7 * 4);
        Ok(())
    }

    /// Writes `struct fuse_entry_out`.
    pub(super) fn entry(&self, id: u64, stat: &Statx, out: &mut Out) {
        out.u64(id);
        // The generation: ids are never used twice.
        out.u64(0);
        out.u64(self.valid());
        out.u64(self.valid());
        out.u64(0);
        self.attributes(stat, out);
    }

    /// Whether the guest is told how long a name will be missing.
    fn keeps_absence(&self) -> bool {
        self.options.access == super::Access::Root
    }

    /// Writes an entry that says that there is none.
    fn absent(&self, out: &mut Out) {
        out.zeros(16);
        out.u64(self.valid());
        out.zeros(super::wire::ENTRY_LEN - 24);
    }

    /// Writes `struct fuse_attr`.
    fn attributes(&self, stat: &Statx, out: &mut Out) {
        let (uid, gid) = self.owners.seen(stat);
        let times = [stat.stx_atime, stat.stx_mtime, stat.stx_ctime];
        out.u64(stat.stx_ino);
        out.u64(stat.stx_size);
        out.u64(stat.stx_blocks);
        for time in &times {
            out.u64(time.tv_sec.cast_unsigned());
        }
        for time in &times {
            out.u32(time.tv_nsec);
        }
        out.u32(stat.stx_mode.into());
        out.u32(stat.stx_nlink);
        out.u32(uid);
        out.u32(gid);
        out.u32(device(stat.stx_rdev_major, stat.stx_rdev_minor));
        out.u32(stat.stx_blksize);
        out.u32(0);
    }
}

/// A device's number as the kernel packs it in 32 bits.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// What SETATTR asks for.
struct Changes {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    handle: Option<u64>,
    times: Option<Timestamps>,
}

impl Changes {
    /// Reads `struct fuse_setattr_in`. Its `valid` says which of the fields mean something.
    fn read(args: &mut Args<'_>) -> Result<Self, Errno> {
        let valid = args.u32()?;
        let asked = |bit: u32| valid & (1 << bit) != 0;
        args.u32()?;
        let (handle, size, _lock_owner) = (args.u64()?, args.u64()?, args.u64()?);
        let (atime, mtime, _ctime) = (args.u64()?, args.u64()?, args.u64()?);
        let (atime_nsec, mtime_nsec, _ctime_nsec) = (args.u32()?, args.u32()?, args.u32()?);
        let (mode, _unused) = (args.u32()?, args.u32()?);
        let (uid, gid) = (args.u32()?, args.u32()?);
        if asked(3) && i64::try_from(size).is_err() {
            return Err(Errno::FBIG);
        }
        let times = Timestamps {
            last_access: time(asked(4), asked(7), atime, atime_nsec)?,
            last_modification: time(asked(5), asked(8), mtime, mtime_nsec)?,
        };
        Ok(Self {
            mode: asked(0).then_some(mode),
            uid: asked(1).then_some(uid),
            gid: asked(2).then_some(gid),
            size: asked(3).then_some(size),
            handle: asked(6).then_some(handle),
            times: (asked(4) || asked(5)).then_some(times),
        })
    }
}

fn time(asked: bool, now: bool, seconds: u64, nanoseconds: u32) -> Result<Timespec, Errno> {
    let special = |tv_nsec| Ok(Timespec { tv_sec: 0, tv_nsec });
    match (asked, now) {
        (false, _) => special(UTIME_OMIT),
        (true, true) => special(UTIME_NOW),
        // The kernel's special values are above this, too.
        (true, false) if nanoseconds >= 1_000_000_000 => Err(Errno::INVAL),
        (true, false) => {
            Ok(Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.into() })
        }
    }
}
