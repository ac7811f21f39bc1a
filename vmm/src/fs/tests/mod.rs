//! The server, asked by bytes as a guest asks it.

mod confinement;
mod descriptors;
mod hostile;
mod other_user;
mod quota;
mod read_only;
mod reading;
mod writing;

use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::server::Server;
use super::wire::{Op, ROOT};
use super::{Access, Options};
use sbx_core::quota::Quota;

/// Whose requests they are, unless a test says otherwise.
const UID: u32 = 1000;
const GID: u32 = 1001;

/// A guest, and the directory that is shared with it.
struct Guest {
    server: Server,
    dir: tempfile::TempDir,
    /// Room for answers.
    room: usize,
}

/// What `struct fuse_entry_out` says.
#[derive(Clone, Copy, Debug)]
struct Entry {
    node: u64,
    valid: u64,
    size: u64,
    number: u64,
    mode: u32,
    links: u32,
    uid: u32,
    gid: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Entry {
    fn parse(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 128);
        let attributes = Self::parse_attributes(&bytes[40..]);
        Self { node: u64_at(bytes, 0), valid: u64_at(bytes, 16), ..attributes }
    }

    fn parse_attributes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 88);
        Self {
            node: 0,
            valid: 0,
            number: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            mode: u32_at(bytes, 60),
            links: u32_at(bytes, 64),
            uid: u32_at(bytes, 68),
            gid: u32_at(bytes, 72),
        }
    }
}

/// Arguments in the making.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn n32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn n64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn name(mut self, name: &str) -> Self {
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

fn args() -> Bytes {
    Bytes::default()
}

/// A request as a guest lays it out.
fn request(opcode: u32, node: u64, (uid, gid): (u32, u32), args: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + args.len()).unwrap();
    let head = Bytes::default().n32(len).n32(opcode).n64(77).n64(node).n32(uid).n32(gid).n64(0);
    head.raw(args).0
}

fn options(access: Access) -> Options {
    Options { access, quota: Quota::new(None), nodes: 10_000, descriptors: 1000 }
}

fn open_dir(path: &Path) -> std::os::fd::OwnedFd {
    File::open(path).unwrap().into()
}

impl Guest {
    fn new(access: Access) -> Self {
        Self::with(options(access), |_| {})
    }

    /// With what `fill` puts into the directory.
    fn with(options: Options, fill: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let server = Server::new(open_dir(dir.path()), options).unwrap();
        Self { server, dir, room: 2 << 20 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The bytes of the answer, header included.
    fn raw(&mut self, request: &[u8]) -> Vec<u8> {
        let (mut head, mut body) = (Vec::new(), Vec::new());
        let written = self.server.serve(&mut &*request, &mut head, &mut body, self.room);
        if written > 0 {
            head.extend(body);
            assert_eq!(head.len(), written);
        }
        head
    }

    fn call_as(
        &mut self,
        ids: (u32, u32),
        op: Op,
        node: u64,
        args: Bytes,
    ) -> Result<Vec<u8>, Errno> {
        let answer = self.raw(&request(op as u32, node, ids, &args.0));
        assert_eq!(u32_at(&answer, 0) as usize, answer.len(), "{op:?}");
        assert_eq!(u64_at(&answer, 8), 77);
        match u32_at(&answer, 4).cast_signed() {
            0 => Ok(answer[16..].to_vec()),
            error => {
                assert_eq!(answer.len(), 16);
                Err(Errno::from_raw_os_error(-error))
            }
        }
    }

    fn call(&mut self, op: Op, node: u64, args: Bytes) -> Result<Vec<u8>, Errno> {
        self.call_as((UID, GID), op, node, args)
    }

    fn look_up(&mut self, node: u64, name: &str) -> Result<Entry, Errno> {
        self.call(Op::Lookup, node, args().name(name)).map(|entry| Entry::parse(&entry))
    }

    /// The node at the end of a path.
    fn walk(&mut self, path: &str) -> u64 {
        path.split('/').fold(ROOT, |node, name| self.look_up(node, name).unwrap().node)
    }

    fn attributes(&mut self, node: u64) -> Result<Entry, Errno> {
        let answer = self.call(Op::GetAttr, node, args().n64(0).n64(0))?;
        Ok(Entry::parse_attributes(&answer[16..]))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, Errno> {
        let flags = flags.cast_unsigned();
        let answer = self.call(Op::Open, node, args().n32(flags).n32(0))?;
        assert_eq!(answer.len(), 16);
        Ok(u64_at(&answer, 0))
    }

    fn read(&mut self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let args = args().n64(handle).n64(offset).n32(size).n32(0).n64(0).n64(0);
        self.call(Op::Read, ROOT, args)
    }

    fn write(&mut self, handle: u64, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        self.write_flags(handle, offset, bytes, 0, 0)
    }

    fn write_flags(
        &mut self,
        handle: u64,
        offset: u64,
        bytes: &[u8],
        write_flags: u32,
        flags: i32,
    ) -> Result<u32, Errno> {
        let size = u32::try_from(bytes.len()).unwrap();
        let args = args().n64(handle).n64(offset).n32(size).n32(write_flags).n64(0);
        let args = args.n32(flags.cast_unsigned()).n32(0).raw(bytes);
        self.call(Op::Write, ROOT, args).map(|answer| u32_at(&answer, 0))
    }

    fn create(
        &mut self,
        parent: u64,
        name: &str,
        flags: i32,
        mode: u32,
    ) -> Result<(Entry, u64), Errno> {
        let args = args().n32(flags.cast_unsigned()).n32(mode).n32(0o22).n32(0).name(name);
        let answer = self.call(Op::Create, parent, args)?;
        assert_eq!(answer.len(), 144);
        Ok((Entry::parse(&answer[..128]), u64_at(&answer, 128)))
    }

    fn make_directory(&mut self, parent: u64, name: &str, mode: u32) -> Result<Entry, Errno> {
        let answer = self.call(Op::MkDir, parent, args().n32(mode).n32(0o22).name(name))?;
        Ok(Entry::parse(&answer))
    }

    fn make_node(&mut self, parent: u64, name: &str, mode: u32) -> Result<Entry, Errno> {
        let args = args().n32(mode).n32(0x103).n32(0o22).n32(0).name(name);
        Ok(Entry::parse(&self.call(Op::MkNod, parent, args)?))
    }

    fn sym_link(&mut self, parent: u64, name: &str, target: &str) -> Result<Entry, Errno> {
        let answer = self.call(Op::SymLink, parent, args().name(name).name(target))?;
        Ok(Entry::parse(&answer))
    }

    fn link(&mut self, node: u64, parent: u64, name: &str) -> Result<Entry, Errno> {
        let answer = self.call(Op::Link, parent, args().n64(node).name(name))?;
        Ok(Entry::parse(&answer))
    }

    fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<(), Errno> {
        let args = args().n64(to.0).n32(flags).n32(0).name(from.1).name(to.1);
        self.call(Op::Rename2, from.0, args).map(drop)
    }

    /// SETATTR of the fields that `valid` names, all of which are in `values`.
    fn set(&mut self, node: u64, valid: u32, values: &Values) -> Result<Entry, Errno> {
        let args = args().n32(valid).n32(0).n64(values.handle).n64(values.size).n64(0);
        let args = args.n64(values.atime).n64(values.mtime).n64(0).n32(5).n32(6).n32(0);
        let args = args.n32(values.mode).n32(0).n32(values.uid).n32(values.gid).n32(0);
        let answer = self.call(Op::SetAttr, node, args)?;
        Ok(Entry::parse_attributes(&answer[16..]))
    }

    fn open_directory(&mut self, node: u64) -> Result<u64, Errno> {
        let answer = self.call(Op::OpenDir, node, args().n64(0))?;
        Ok(u64_at(&answer, 0))
    }

    /// One answer to READDIR or READDIRPLUS: cookies, names, and what was looked up.
    fn list(
        &mut self,
        op: Op,
        node: u64,
        handle: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<Listed>, Errno> {
        let args = args().n64(handle).n64(offset).n32(size).n32(0).n64(0).n64(0);
        let answer = self.call(op, node, args)?;
        assert!(answer.len() <= size as usize);
        let (mut rest, mut all) = (&*answer, Vec::new());
        while !rest.is_empty() {
            let mut entry = None;
            if op == Op::ReadDirPlus {
                entry = Some(Entry::parse(&rest[..128]));
                rest = &rest[128..];
            }
            let len = u32_at(rest, 16) as usize;
            let name = String::from_utf8(rest[24..24 + len].to_vec()).unwrap();
            let (number, cookie, kind) = (u64_at(rest, 0), u64_at(rest, 8), u32_at(rest, 20));
            all.push(Listed { name, number, cookie, kind, entry });
            rest = &rest[(24 + len).next_multiple_of(8)..];
        }
        Ok(all)
    }

    /// All of a directory, in answers of `size` bytes.
    fn list_all(&mut self, op: Op, node: u64, size: u32) -> Vec<Listed> {
        let handle = self.open_directory(node).unwrap();
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |last| last.cookie);
            let some = self.list(op, node, handle, offset, size).unwrap();
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        self.call(Op::ReleaseDir, node, args().n64(handle).n64(0).n64(0)).unwrap();
        all
    }

    fn forget(&mut self, node: u64, count: u64) {
        let request = request(Op::Forget as u32, node, (0, 0), &args().n64(count).0);
        assert!(self.raw(&request).is_empty());
    }
}

#[derive(Clone, Debug)]
struct Listed {
    name: String,
    number: u64,
    cookie: u64,
    kind: u32,
    entry: Option<Entry>,
}

/// Values for SETATTR.
#[derive(Default)]
struct Values {
    handle: u64,
    size: u64,
    atime: u64,
    mtime: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// How many descriptors below this directory the process has open; tests run in threads of one process,
/// so those of others must not be counted.
fn descriptors_below(dir: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.starts_with(dir)).count()
}

/// All that can be told of what is below a directory.
fn state(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content =
                if meta.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
            let ids = (meta.ino(), meta.uid(), meta.gid(), meta.mode(), meta.nlink());
            let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            all.push(format!("{path:?} {ids:?} {times:?} {content:?}"));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    all.sort();
    all
}

fn write_file(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
