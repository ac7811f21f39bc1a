//! Operations on the entries of directories: MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME.

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Statx};
use rustix::io::Errno;
use rustix::path::DecInt;
use sbx_core::quota::{ENTRY, Full};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

use super::attributes::permissions;
use super::inodes::{self, Named};
use super::owners::Owners;
use super::server::{Request, Server};
use super::wire::{Header, Op};

impl Server {
    pub(super) fn make_node(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (mode, _device) = (request.args.u32()?, request.args.u32()?);
        // The guest's umask is in the mode already.
        request.args.u64()?;
        let name = request.args.name()?;
        let kind = match FileType::from_raw_mode(mode) {
            _ if mode & KIND == 0 => FileType::RegularFile,
            kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        };
        let made = self.make(request.header, name, Some(mode), |parent, mode| {
            rustix::fs::mknodat(parent, name, kind, mode, 0)
        })?;
        self.enter(made, name, request).map(drop)
    }

    pub(super) fn make_directory(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (mode, _umask) = (request.args.u32()?, request.args.u32()?);
        let name = request.args.name()?;
        let made = self.make(request.header, name, Some(mode), |parent, mode| {
            rustix::fs::mkdirat(parent, name, mode)
        })?;
        self.enter(made, name, request).map(drop)
    }

    /// Makes a link to whatever the guest says; only the guest ever follows it.
    pub(super) fn sym_link(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let name = request.args.name()?;
        let target = request.args.string()?;
        let made = self.make(request.header, name, None, |parent, _| {
            rustix::fs::symlinkat(target, parent, name)
        })?;
        self.enter(made, name, request).map(drop)
    }

    pub(super) fn link(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let old = request.args.u64()?;
        let name = request.args.name()?;
        let parent = self.nodes.get(request.header.node)?;
        let old = self.nodes.get(old)?;
        self.options.quota.take(ENTRY).map_err(|Full| Errno::NOSPC)?;
        // What is followed is the way from the descriptor to its file, and no link of the share's.
        let (fds, number, follow) =
            (&self.descriptors, DecInt::from_fd(&old), AtFlags::SYMLINK_FOLLOW);
        let linked = rustix::fs::linkat(fds, number, &parent, name, follow);
        let linked = linked.and_then(|()| inodes::child(&parent, name));
        match linked {
            Ok((fd, _)) => self.enter(fd, name, request).map(drop),
            Err(errno) => {
                self.options.quota.give_back(ENTRY);
                Err(errno)
            }
        }
    }

    pub(super) fn remove(&mut self, op: Op, request: &mut Request<'_>) -> Result<(), Errno> {
        let name = request.args.name()?;
        let parent = self.nodes.get(request.header.node)?;
        let flags = if op == Op::RmDir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let (fd, stat) = inodes::child(&parent, name)?;
        let removed = self.nodes.secure(fd, &stat)?;
        rustix::fs::unlinkat(&parent, name, flags)?;
        self.nodes.moved(removed, None);
        Ok(())
    }

    pub(super) fn rename(&mut self, op: Op, request: &mut Request<'_>) -> Result<(), Errno> {
        let parent = request.args.u64()?;
        let mut flags = RenameFlags::empty();
        if op == Op::Rename2 {
            flags = RenameFlags::from_bits_retain(request.args.u32()?);
            request.args.u32()?;
        }
        // RENAME_WHITEOUT would make a device.
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        let (from, to) = (request.args.name()?, request.args.name()?);
        let old = self.nodes.get(request.header.node)?;
        let new = self.nodes.get(parent)?;
        let moved = self.nodes.known(&inodes::child(&old, from)?.1);
        let replaced = match inodes::child(&new, to) {
            Ok((fd, stat)) => self.nodes.secure(fd, &stat)?,
            Err(_) => None,
        };
        rustix::fs::renameat_with(&old, from, &new, to, flags)?;
        let exchange = flags == RenameFlags::EXCHANGE;
        self.nodes.moved(replaced, exchange.then_some((request.header.node, from)));
        self.nodes.moved(moved, Some((parent, to)));
        Ok(())
    }

    /// Has `create` make `name`, and gives it the mode and the owner that the guest wants.
    ///
    /// `create` is handed the directory and the mode. A failure of what comes after it removes the file.
    pub(super) fn make(
        &mut self,
        header: Header,
        name: &CStr,
        mode: Option<u32>,
        create: impl FnOnce(&Named, Mode) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let parent = &self.nodes.get(header.node)?;
        self.nodes.expect_new()?;
        self.options.quota.take(ENTRY).map_err(|Full| Errno::NOSPC)?;
        // The kind decides only about the sticky bit, which is set below.
        let created = create(parent, Mode::from_raw_mode(mode.unwrap_or(0) & 0o777));
        let made = created.and_then(|()| {
            let (fd, stat) = inodes::child(parent, name)?;
            self.hand_over(&fd, parent, &stat, mode, header).map(|()| fd).inspect_err(|_| {
                let directory = inodes::kind(&stat) == FileType::Directory;
                let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                let _ = rustix::fs::unlinkat(parent, name, flags);
            })
        });
        if made.is_err() {
            self.options.quota.give_back(ENTRY);
        }
        made
    }

    /// Gives a new file to the guest's user who made it, with exactly the mode asked for: this process's
    /// umask is not the guest's.
    fn hand_over(
        &self,
        fd: &OwnedFd,
        parent: &Named,
        stat: &Statx,
        mode: Option<u32>,
        header: Header,
    ) -> Result<(), Errno> {
        if self.owners == Owners::AsOnTheHost {
            // In a set-group-id directory, files are of its group.
            let inherits = inodes::stat(parent)?.stx_mode & 0o2000 != 0;
            let gid = if inherits { stat.stx_gid } else { header.gid };
            if (stat.stx_uid, stat.stx_gid) != (header.uid, gid) {
                let (uid, gid) = self.owners.change(Some(header.uid), Some(gid))?;
                rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        let Some(mode) = mode else { return Ok(()) };
        let had = u32::from(stat.stx_mode);
        let mode = permissions(inodes::kind(stat), mode).as_raw_mode();
        if had & 0o1777 == mode {
            return Ok(());
        }
        // A directory's set-group-id bit comes from the directory it is in.
        let mode = Mode::from_raw_mode(mode | (had & 0o2000));
        rustix::fs::chmodat(&self.descriptors, DecInt::from_fd(fd), mode, AtFlags::empty())
    }
}

/// The bits of a mode that say what kind of file it is.
const KIND: u32 = 0o170_000;
