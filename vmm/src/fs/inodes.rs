//! The files that the guest knows: node ids, each with a descriptor that is good for nothing but to name
//! its file (`O_PATH`).
//!
//! A node lives from its first LOOKUP (or another operation that answers with an entry) until as many
//! FORGETs; its descriptor keeps the file's number from being given to another file, and follows it
//! wherever the host renames it. Ids are never used twice.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use super::wire::ROOT;

/// What makes a file that file: its device, its number there, and the mount it is seen through.
type Key = (u32, u32, u64, u64);

/// A file that the guest knows.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) fd: OwnedFd,
    pub(super) kind: FileType,
    key: Key,
    lookups: u64,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Nodes {
    by_id: HashMap<u64, Node>,
    by_key: HashMap<Key, u64>,
    next: u64,
}

impl Nodes {
    /// With the root alone.
    pub(super) fn new(root: OwnedFd) -> Result<Self, Errno> {
        let stat = stat(&root)?;
        let node = Node { fd: root, kind: kind(&stat), key: key(&stat), lookups: 1 };
        let by_key = HashMap::from([(node.key, ROOT)]);
        Ok(Self { by_id: HashMap::from([(ROOT, node)]), by_key, next: ROOT + 1 })
    }

    /// Forgets all but the root.
    pub(super) fn clear(&mut self) {
        self.by_id.retain(|id, _| *id == ROOT);
        self.by_key.retain(|_, id| *id == ROOT);
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: u64) -> Result<&Node, Errno> {
        self.by_id.get(&id).ok_or(Errno::STALE)
    }

    /// The id of what `fd` names, looked up once more. A file that is new takes one of the `room`
    /// descriptors that are left.
    pub(super) fn enter(&mut self, fd: OwnedFd, stat: &Statx, room: usize) -> Result<u64, Errno> {
        let key = key(stat);
        if let Some(id) = self.by_key.get(&key) {
            if let Some(node) = self.by_id.get_mut(id) {
                node.lookups = node.lookups.saturating_add(1);
            }
            return Ok(*id);
        }
        if room == 0 {
            return Err(Errno::NFILE);
        }
        let id = self.next;
        self.next += 1;
        self.by_id.insert(id, Node { fd, kind: kind(stat), key, lookups: 1 });
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Takes back `count` lookups.
    pub(super) fn forget(&mut self, id: u64, count: u64) {
        if id == ROOT {
            return;
        }
        let Some(node) = self.by_id.get_mut(&id) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0 {
            self.by_key.remove(&node.key);
            self.by_id.remove(&id);
        }
    }
}

/// Opens `name` in a directory to name it: one step, no link followed, whatever kind of file it is. No
/// driver or file system is asked to open anything, so this has no effect on what is named.
pub(super) fn child(dir: impl AsFd, name: &CStr) -> Result<(OwnedFd, Statx), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat2(dir, name, flags, Mode::empty(), BENEATH)?;
    let stat = stat(&fd)?;
    Ok((fd, stat))
}

/// How every name is resolved. The names are single steps already; this is the host kernel's word on it.
pub(super) const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The attributes of what a descriptor names.
pub(super) fn stat(fd: impl AsFd) -> Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)
}

pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn key(stat: &Statx) -> Key {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino, stat.stx_mnt_id)
}
