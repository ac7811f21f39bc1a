//! The server: takes a request, checks what holds for all, has it answered, and writes the answer.

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC};
use rustix::io::Errno;
use rustix::path::DecInt;
use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use super::inodes::{self, Named, Nodes};
use super::owners::Owners;
use super::wire::{self, Args, Header, MAX_ARGS, MAX_PAGES, MAX_TRANSFER, Op, Out, REPLY_HEADER};
use super::{Access, Error, Options};

/// Shares one directory. It works on whatever thread calls it, one request after the other.
#[derive(Debug)]
pub struct Server {
    pub(super) options: Options,
    pub(super) owners: Owners,
    pub(super) nodes: Nodes,
    pub(super) handles: HashMap<u64, Handle>,
    pub(super) next_handle: u64,
    /// This process's `/proc/self/fd`.
    pub(super) descriptors: OwnedFd,
    /// The arguments of a request, file contents left out.
    args: Vec<u8>,
    /// The answer to a request, file contents left out.
    out: Out,
    /// File contents on their way.
    pub(super) chunk: Vec<u8>,
}

/// What the guest has opened.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fd: OwnedFd,
    pub(super) directory: bool,
    /// Its node, which the guest may have forgotten.
    pub(super) node: u64,
}

/// A request, its arguments in the course of being read, and the answer in the making.
pub(super) struct Request<'a> {
    pub(super) header: Header,
    pub(super) args: Args<'a>,
    pub(super) out: &'a mut Out,
    /// The most bytes that the answer may have.
    pub(super) room: usize,
}

/// An operation that went well.
enum Done {
    /// The answer is in [`Server::out`].
    Ready,
    /// As many bytes of it are written already.
    Written(usize),
    /// There is none.
    Silent,
}

impl Server {
    /// Shares the directory `root`.
    ///
    /// # Errors
    /// When it is none, or when the process has no `/proc`.
    pub fn new(root: OwnedFd, options: Options) -> Result<Self, Error> {
        let nodes = Nodes::new(root, options.nodes, options.descriptors);
        let mut nodes = nodes.map_err(|error| Error::Root(error.into()))?;
        match nodes.get(wire::ROOT) {
            Ok(node) if node.kind == FileType::Directory => {}
            _ => return Err(Error::NotADirectory),
        }
        let descriptors = own_descriptors().map_err(|error| Error::NoProc(error.into()))?;
        Ok(Self {
            options,
            owners: Owners::of_this_process(),
            nodes,
            handles: HashMap::new(),
            next_handle: 1,
            descriptors,
            args: Vec::new(),
            out: Out::default(),
            chunk: Vec::new(),
        })
    }

    /// Forgets all that a guest looked up or opened.
    pub fn reset(&mut self) {
        self.handles.clear();
        self.nodes.clear();
    }

    /// Answers one request. `room` is how many bytes of answer the guest has room for; of these, the
    /// first 16 go to `head` and the others to `body`, which is written first. Returns how many were
    /// written; a request that is not even one, or that has no room for an answer, has none.
    pub fn serve(
        &mut self,
        request: &mut dyn Read,
        head: &mut dyn Write,
        body: &mut dyn Write,
        room: usize,
    ) -> usize {
        let Some(header) = Header::read(request) else { return 0 };
        let mut out = std::mem::take(&mut self.out);
        out.0.clear();
        let body_room = room.saturating_sub(REPLY_HEADER);
        let done = match self.operate(header, request, &mut out, body, body_room) {
            Ok(Done::Silent) => Ok(None),
            Ok(Done::Written(len)) => Ok(Some(len)),
            Ok(Done::Ready) if out.len() > body_room => Err(Errno::INVAL),
            Ok(Done::Ready) => match body.write_all(&out.0) {
                Ok(()) => Ok(Some(out.len())),
                Err(_) => Err(Errno::FAULT),
            },
            Err(errno) => Err(errno),
        };
        self.out = out;
        let (len, error) = match done {
            Ok(None) => return 0,
            Ok(Some(len)) => (len, 0),
            // To the guest, it makes no difference whose descriptors are used up.
            Err(Errno::MFILE) => (0, Errno::NFILE.raw_os_error()),
            Err(errno) => (0, errno.raw_os_error()),
        };
        let len = REPLY_HEADER + len;
        let mut reply = Out::default();
        reply.u32(u32::try_from(len).unwrap_or(u32::MAX));
        reply.u32(error.wrapping_neg().cast_unsigned());
        reply.u64(header.unique);
        if room < REPLY_HEADER || head.write_all(&reply.0).is_err() { 0 } else { len }
    }

    /// Reads the arguments of a request and has it done.
    fn operate(
        &mut self,
        header: Header,
        request: &mut dyn Read,
        out: &mut Out,
        body: &mut dyn Write,
        room: usize,
    ) -> Result<Done, Errno> {
        let op = Op::new(header.opcode).ok_or(Errno::NOSYS)?;
        let len = if op == Op::Write { wire::WRITE_ARGS } else { header.args_len() };
        if len > MAX_ARGS {
            return unanswered(op, Err(Errno::INVAL));
        }
        let mut bytes = std::mem::take(&mut self.args);
        bytes.resize(len, 0);
        let done = match request.read_exact(&mut bytes) {
            Err(_) => Err(Errno::INVAL),
            Ok(()) => {
                let args = Args(&bytes);
                self.permit(op, args).and_then(|()| match op {
                    Op::Read => self.read(args, body, room).map(Done::Written),
                    Op::Write => {
                        let mut asked = Request { header, args, out, room };
                        self.write(&mut asked, request).map(|()| Done::Ready)
                    }
                    _ => self.dispatch(op, &mut Request { header, args, out, room }),
                })
            }
        };
        self.args = bytes;
        unanswered(op, done)
    }

    /// The one place that keeps read-only shares as they are.
    fn permit(&self, op: Op, mut args: Args<'_>) -> Result<(), Errno> {
        let modifies = op.modifies() || (op == Op::Open && !reads_only(args.u32()?));
        if modifies && self.options.access != Access::ReadWrite {
            return Err(Errno::ROFS);
        }
        Ok(())
    }

    fn dispatch(&mut self, op: Op, request: &mut Request<'_>) -> Result<Done, Errno> {
        match op {
            Op::Lookup => self.look_up(request),
            Op::GetAttr => self.get_attributes(request),
            Op::SetAttr => self.set_attributes(request),
            Op::ReadLink => self.read_link(request),
            Op::StatFs => self.stat_fs(request),
            Op::SymLink => self.sym_link(request),
            Op::MkNod => self.make_node(request),
            Op::MkDir => self.make_directory(request),
            Op::Link => self.link(request),
            Op::Unlink | Op::RmDir => self.remove(op, request),
            Op::Rename | Op::Rename2 => self.rename(op, request),
            Op::Open => self.open(request),
            Op::Create => self.create(request),
            Op::FAllocate => self.allocate(request),
            Op::LSeek => self.seek(request),
            Op::OpenDir => self.open_directory(request),
            Op::ReadDir | Op::ReadDirPlus => self.read_directory(op, request),
            Op::Release | Op::ReleaseDir => self.release(request),
            Op::FSync | Op::FSyncDir => self.sync(request),
            Op::Init => self.init(request),
            Op::Destroy => {
                self.reset();
                Ok(())
            }
            Op::Forget => self.forget(request),
            Op::BatchForget => self.forget_batch(request),
            // Nothing here takes long enough to be interrupted.
            Op::Interrupt => Ok(()),
            // They have file contents behind their arguments and never come here.
            Op::Read | Op::Write => Err(Errno::NOSYS),
        }
        .map(|()| Done::Ready)
    }

    fn forget(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        self.nodes.forget(request.header.node, request.args.u64()?);
        Ok(())
    }

    fn forget_batch(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let count = request.args.u32()?;
        request.args.u32()?;
        for _ in 0..count {
            // Ends with the arguments, whatever the count says.
            let (node, lookups) = (request.args.u64()?, request.args.u64()?);
            self.nodes.forget(node, lookups);
        }
        Ok(())
    }

    /// Agrees on a version and on features.
    fn init(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let (major, minor) = (request.args.u32()?, request.args.u32()?);
        let (readahead, flags) = (request.args.u32()?, request.args.u32()?);
        if major < MAJOR || (major == MAJOR && minor < MINOR) {
            return Err(Errno::PROTO);
        }
        self.reset();
        let out = &mut *request.out;
        out.u32(MAJOR);
        out.u32(MINOR);
        // A newer major version is answered with ours alone, and comes again with it.
        if major == MAJOR {
            out.u32(readahead);
            out.u32(flags & self.features());
            // How many requests in the background, and what counts as many: the kernel's own defaults.
            out.u32(0);
            out.u32(MAX_TRANSFER);
            // Times are exact to the nanosecond.
            out.u32(1);
            out.u16(MAX_PAGES);
        }
        out.zeros(INIT_OUT - out.len());
        Ok(())
    }

    /// `FUSE_INIT`'s flags that are offered. Not those for locks (the guest's kernel has them for
    /// itself), for caching what is written, and for `..` to be looked up.
    fn features(&self) -> u32 {
        let cache = match self.options.access {
            Access::Root => CACHE_SYMLINKS,
            Access::ReadOnly | Access::ReadWrite => AUTO_INVAL_DATA,
        };
        FEATURES | cache
    }

    /// How many seconds the guest may keep what it knows of a file.
    pub(super) fn valid(&self) -> u64 {
        match self.options.access {
            Access::Root => 3600,
            Access::ReadOnly | Access::ReadWrite => 1,
        }
    }

    /// Keeps an open file for the guest.
    pub(super) fn keep(&mut self, handle: Handle) -> Result<u64, Errno> {
        self.nodes.opened(handle.node)?;
        let id = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(id, handle);
        Ok(id)
    }

    pub(super) fn release(&mut self, request: &mut Request<'_>) -> Result<(), Errno> {
        let id = request.args.u64()?;
        let handle = self.handles.remove(&id).ok_or(Errno::BADF)?;
        self.nodes.closed(handle.node);
        Ok(())
    }

    /// The open file with this number.
    pub(super) fn file(&self, id: u64) -> Result<&OwnedFd, Errno> {
        match self.handles.get(&id) {
            Some(handle) if handle.directory => Err(Errno::ISDIR),
            Some(handle) => Ok(&handle.fd),
            None => Err(Errno::BADF),
        }
    }

    /// Opens the very file that a node names, if it is of the kinds that may be opened.
    pub(super) fn reopen(&self, node: &Named, flags: OFlags) -> Result<OwnedFd, Errno> {
        match node.kind {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::ACCESS),
        }
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(&self.descriptors, DecInt::from_fd(node), flags, Mode::empty())
    }

    /// Answers with an entry: the node of `fd`, which is `name` in the directory that was asked about,
    /// looked up once more.
    pub(super) fn enter(
        &mut self,
        fd: OwnedFd,
        name: &CStr,
        request: &mut Request<'_>,
    ) -> Result<u64, Errno> {
        let stat = inodes::stat(&fd)?;
        let id = self.nodes.enter(fd, &stat, request.header.node, name)?;
        self.entry(id, &stat, request.out);
        Ok(id)
    }
}

/// The protocol's version that is spoken here; Linux has virtio-fs since it.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
/// Bytes of `struct fuse_init_out`.
const INIT_OUT: usize = 64;

const AUTO_INVAL_DATA: u32 = 1 << 12;
const CACHE_SYMLINKS: u32 = 1 << 23;
/// `ASYNC_READ`, `ATOMIC_O_TRUNC`, `BIG_WRITES`, `DO_READDIRPLUS`, `READDIRPLUS_AUTO`,
/// `PARALLEL_DIROPS`, `HANDLE_KILLPRIV`, `MAX_PAGES`.
const FEATURES: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 19 | 1 << 22;

/// Whether these flags of `open` can change nothing.
pub(super) fn reads_only(flags: u32) -> bool {
    let flags = OFlags::from_bits_retain(flags);
    let changes = OFlags::ACCMODE | OFlags::TRUNC | OFlags::CREATE | OFlags::TMPFILE;
    !flags.intersects(changes.difference(OFlags::DIRECTORY))
}

/// FORGET and its like have no answer, not even that something is wrong.
fn unanswered(op: Op, done: Result<Done, Errno>) -> Result<Done, Errno> {
    match op {
        Op::Forget | Op::BatchForget | Op::Interrupt => Ok(Done::Silent),
        _ => done,
    }
}

/// Opens `/proc/self/fd`, and makes sure that it is that.
fn own_descriptors() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())?;
    match rustix::fs::fstatfs(fd.as_fd())?.f_type {
        PROC_SUPER_MAGIC => Ok(fd),
        _ => Err(Errno::NOENT),
    }
}
