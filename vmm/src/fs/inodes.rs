//! The files that the guest knows: node ids, most with a descriptor that is good for nothing but to name
//! its file (`O_PATH`).
//!
//! A node lives from its first LOOKUP (or another operation that answers with an entry) until as many
//! FORGETs. Its descriptor keeps the file's number from being given to another file, and follows it
//! wherever the host renames it.
//!
//! A guest may well know more files than a process may have descriptors. When those run out, nodes that
//! were not used lately lose theirs, and are opened again when they are used: by the name in the directory
//! under which the guest last saw them, one step from a directory that is opened in the same way, and
//! only if the very same file is found there. Else the node is stale, and a guest's kernel looks the path up
//! anew. Files that are open or have no name left keep their descriptors. Ids are never used twice.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::wire::ROOT;

/// The most directories without a descriptor that are opened again for the sake of a file below them.
const MAX_DEPTH: usize = 256;

/// What makes a file that file: device, number there, the mount it is seen through, its kind, and when it
/// was made (seconds and nanoseconds), as numbers are used again.
type Key = (u32, u32, u64, u64, u32, i64, u32);

/// A file that the guest knows, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Named {
    fd: Arc<OwnedFd>,
    pub(super) kind: FileType,
}

impl AsFd for Named {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Debug)]
struct Node {
    key: Key,
    kind: FileType,
    lookups: u64,
    fd: Option<Arc<OwnedFd>>,
    /// The directory and the name where the guest last saw it; nothing if that is gone.
    place: Option<(u64, CString)>,
    /// How often the guest has it open.
    opens: usize,
    /// Whether it was used since eviction last looked at it.
    used: bool,
}

/// All of them, and the account of descriptors.
#[derive(Debug)]
pub(super) struct Nodes {
    by_id: HashMap<u64, Node>,
    by_key: HashMap<Key, u64>,
    next: u64,
    /// Nodes with a descriptor, in the order in which eviction looks at them; the root is not among them,
    /// and some may be forgotten.
    clock: VecDeque<u64>,
    /// Descriptors of nodes.
    held: usize,
    /// Descriptors of open files.
    open: usize,
    most_nodes: usize,
    most_descriptors: usize,
}

impl Nodes {
    /// With the root alone.
    pub(super) fn new(
        root: OwnedFd,
        most_nodes: usize,
        most_descriptors: usize,
    ) -> Result<Self, Errno> {
        let stat = stat(&root)?;
        let mut nodes = Self {
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            next: ROOT,
            clock: VecDeque::new(),
            held: 0,
            open: 0,
            most_nodes,
            most_descriptors,
        };
        nodes.insert(root, &stat, None);
        Ok(nodes)
    }

    /// Forgets all but the root, and that anything is open.
    pub(super) fn clear(&mut self) {
        self.by_id.retain(|id, _| *id == ROOT);
        self.by_key.retain(|_, id| *id == ROOT);
        self.clock.clear();
        (self.held, self.open) = (1, 0);
    }

    #[cfg(test)]
    pub(super) fn descriptors(&self) -> usize {
        self.held + self.open
    }

    /// A node by its id.
    ///
    /// # Errors
    /// `ESTALE` if there is none, or if its file cannot be found again.
    pub(super) fn get(&mut self, id: u64) -> Result<Named, Errno> {
        let node = self.by_id.get_mut(&id).ok_or(Errno::STALE)?;
        node.used = true;
        match &node.fd {
            Some(fd) => Ok(Named { fd: Arc::clone(fd), kind: node.kind }),
            None => self.find_again(id),
        }
    }

    /// Opens a node that has lost its descriptor, and the directories on the way to it.
    fn find_again(&mut self, id: u64) -> Result<Named, Errno> {
        let mut missing = Vec::new();
        let mut at = id;
        let mut directory = loop {
            let node = self.by_id.get(&at).ok_or(Errno::STALE)?;
            if let Some(fd) = &node.fd {
                break Arc::clone(fd);
            }
            // The host may have moved directories about until they seem to be in each other.
            if missing.len() > MAX_DEPTH {
                return Err(Errno::STALE);
            }
            let (parent, name) = node.place.clone().ok_or(Errno::STALE)?;
            missing.push((at, name));
            at = parent;
        };
        for (id, name) in missing.iter().rev() {
            let (fd, stat) = child(&directory, name).map_err(lost)?;
            if self.by_key.get(&key(&stat)) != Some(id) {
                return Err(Errno::STALE);
            }
            directory = self.give(*id, fd)?;
        }
        let node = self.by_id.get(&id).ok_or(Errno::STALE)?;
        Ok(Named { fd: directory, kind: node.kind })
    }

    /// Gives a node the descriptor that it lacks.
    fn give(&mut self, id: u64, fd: OwnedFd) -> Result<Arc<OwnedFd>, Errno> {
        self.make_room(1)?;
        let fd = Arc::new(fd);
        if let Some(node) = self.by_id.get_mut(&id) {
            node.fd = Some(Arc::clone(&fd));
            self.held += 1;
            self.enqueue(id);
        }
        Ok(fd)
    }

    fn enqueue(&mut self, id: u64) {
        if self.clock.len() > 2 * self.held + 64 {
            self.clock.retain(|id| self.by_id.contains_key(id));
        }
        self.clock.push_back(id);
    }

    /// The id of what `fd` names, which was found as `name` in `directory`, looked up once more.
    pub(super) fn enter(
        &mut self,
        fd: OwnedFd,
        stat: &Statx,
        directory: u64,
        name: &CStr,
    ) -> Result<u64, Errno> {
        let place = || Some((directory, name.to_owned()));
        let Some(id) = self.by_key.get(&key(stat)).copied() else {
            self.expect_new()?;
            return Ok(self.insert(fd, stat, place()));
        };
        let Some(node) = self.by_id.get_mut(&id) else { return Err(Errno::STALE) };
        node.lookups = node.lookups.saturating_add(1);
        node.used = true;
        let known = node.place.as_ref().is_some_and(|(d, n)| *d == directory && **n == *name);
        if id != ROOT && !known {
            node.place = place();
        }
        if node.fd.is_none() {
            // If there is no room, it is found again by its name as well.
            let _ = self.give(id, fd);
        }
        Ok(id)
    }

    fn insert(&mut self, fd: OwnedFd, stat: &Statx, place: Option<(u64, CString)>) -> u64 {
        let id = self.next;
        self.next += 1;
        let (key, kind) = (key(stat), kind(stat));
        let fd = Some(Arc::new(fd));
        let node = Node { key, kind, lookups: 1, fd, place, opens: 0, used: true };
        self.by_id.insert(id, node);
        self.by_key.insert(key, id);
        self.held += 1;
        if id != ROOT {
            self.enqueue(id);
        }
        id
    }

    /// Makes sure that a file can be entered that the guest does not know yet.
    ///
    /// # Errors
    /// `ENFILE` if it knows as many as it may.
    pub(super) fn expect_new(&mut self) -> Result<(), Errno> {
        if self.by_id.len() >= self.most_nodes {
            return Err(Errno::NFILE);
        }
        self.make_room(1)
    }

    /// Takes back `count` lookups.
    pub(super) fn forget(&mut self, id: u64, count: u64) {
        if id == ROOT {
            return;
        }
        let Some(node) = self.by_id.get_mut(&id) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0 {
            self.held -= usize::from(node.fd.is_some());
            self.by_key.remove(&node.key);
            self.by_id.remove(&id);
        }
    }

    /// Makes sure that so many descriptors may be opened, by closing those of nodes if need be.
    ///
    /// # Errors
    /// `ENFILE` if all that are left are in use.
    pub(super) fn make_room(&mut self, count: usize) -> Result<(), Errno> {
        // Everyone is looked at twice at most: the first look may only take note that it was used.
        let mut looks = 2 * self.clock.len();
        while self.held + self.open + count > self.most_descriptors {
            looks = looks.checked_sub(1).ok_or(Errno::NFILE)?;
            let Some(id) = self.clock.pop_front() else { return Err(Errno::NFILE) };
            let Some(node) = self.by_id.get_mut(&id) else { continue };
            if node.used || node.opens > 0 || node.place.is_none() {
                node.used = false;
                self.clock.push_back(id);
            } else {
                node.fd = None;
                self.held -= 1;
            }
        }
        Ok(())
    }

    /// Accounts for a file that the guest opens.
    pub(super) fn opened(&mut self, id: u64) -> Result<(), Errno> {
        self.make_room(1)?;
        self.open += 1;
        if let Some(node) = self.by_id.get_mut(&id) {
            node.opens += 1;
        }
        Ok(())
    }

    /// Accounts for a file that the guest closes.
    pub(super) fn closed(&mut self, id: u64) {
        self.open = self.open.saturating_sub(1);
        if let Some(node) = self.by_id.get_mut(&id) {
            node.opens = node.opens.saturating_sub(1);
        }
    }

    /// The node of a file, if the guest knows it.
    pub(super) fn known(&self, stat: &Statx) -> Option<u64> {
        self.by_key.get(&key(stat)).copied()
    }

    /// Like [`Self::known`], for a file that is about to lose the name by which it could be found again:
    /// its node has a descriptor now.
    pub(super) fn secure(&mut self, fd: OwnedFd, stat: &Statx) -> Result<Option<u64>, Errno> {
        let Some(id) = self.known(stat) else { return Ok(None) };
        if self.by_id.get(&id).is_some_and(|node| node.fd.is_none()) {
            self.give(id, fd)?;
        }
        Ok(Some(id))
    }

    /// Takes note of where a node is now: somewhere else, or nowhere.
    pub(super) fn moved(&mut self, id: Option<u64>, place: Option<(u64, &CStr)>) {
        if let Some(id) = id
            && id != ROOT
            && let Some(node) = self.by_id.get_mut(&id)
        {
            node.place = place.map(|(directory, name)| (directory, name.to_owned()));
        }
    }
}

/// What it means for a node that its name cannot be opened.
fn lost(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => Errno::STALE,
        errno => errno,
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
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)
}

pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn key(stat: &Statx) -> Key {
    let made = if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
        (0, 0)
    } else {
        (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
    };
    let kind = kind(stat).as_raw_mode();
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    (device.0, device.1, stat.stx_ino, stat.stx_mnt_id, kind, made.0, made.1)
}
