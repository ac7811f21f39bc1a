//! What a guest writes is there, and whose it is.

use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Who owns what the guest made: the guest's user, if this process may give files away.
fn assert_mine(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let expected = if is_root() { (UID, GID) } else { own };
    assert_eq!((meta.uid(), meta.gid()), expected, "{path:?}");
}

#[test]
fn files_are_made_written_and_removed() {
    let mut guest = Guest::new(Access::ReadWrite);
    let (entry, handle) = guest.create(ROOT, "new", libc::O_RDWR, 0o666).unwrap();
    assert_eq!(entry.mode, 0o100_666, "no umask but the guest's");
    assert_eq!(mode(&guest.path("new")), 0o100_666);
    assert_mine(&guest.path("new"));
    assert_eq!(guest.write(handle, 3, b"content").unwrap(), 7);
    assert_eq!(guest.read(handle, 0, 99).unwrap(), b"\0\0\0content");
    assert_eq!(fs::read(guest.path("new")).unwrap(), b"\0\0\0content");
    assert_eq!(guest.attributes(entry.node).unwrap().size, 10);
    for op in [Op::FSync, Op::FSyncDir] {
        for flags in [0, 1] {
            guest.call(op, entry.node, args().n64(handle).n32(flags).n32(0)).unwrap();
        }
    }
    guest.call(Op::Unlink, ROOT, args().name("new")).unwrap();
    assert!(!guest.path("new").exists());
    // It is still open.
    assert_eq!(guest.read(handle, 3, 3).unwrap(), b"con");
    assert_eq!(guest.attributes(entry.node).unwrap().links, 0);
    assert_eq!(guest.call(Op::Unlink, ROOT, args().name("new")).unwrap_err(), Errno::NOENT);
}

#[test]
fn large_writes_arrive_whole() {
    let mut guest = Guest::new(Access::ReadWrite);
    let (_, handle) = guest.create(ROOT, "big", libc::O_RDWR, 0o600).unwrap();
    let big: Vec<u8> = (0..1u32 << 20).map(|i| (i % 253) as u8).collect();
    assert_eq!(guest.write(handle, 5, &big).unwrap(), 1 << 20);
    assert_eq!(fs::read(guest.path("big")).unwrap()[5..], big);
    let too_big = vec![0; (1 << 20) + 1];
    assert_eq!(guest.write(handle, 0, &too_big).unwrap_err(), Errno::INVAL);
    assert_eq!(fs::read(guest.path("big")).unwrap()[5..], big);
}

#[test]
fn existing_files_are_opened_as_asked() {
    let mut guest = Guest::new(Access::ReadWrite);
    write_file(&guest.path("file"), b"content");
    let exclusive = libc::O_RDWR | libc::O_EXCL;
    assert_eq!(guest.create(ROOT, "file", exclusive, 0o600).unwrap_err(), Errno::EXIST);
    let (entry, handle) = guest.create(ROOT, "file", libc::O_RDWR, 0o600).unwrap();
    assert_eq!(guest.read(handle, 0, 9).unwrap(), b"content");
    let handle = guest.open(entry.node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.write(handle, 0, b"x").unwrap_err(), Errno::BADF);
    let handle = guest.open(entry.node, libc::O_WRONLY).unwrap();
    assert_eq!(guest.read(handle, 0, 1).unwrap_err(), Errno::BADF);
    assert_eq!(guest.open(entry.node, 3).unwrap_err(), Errno::INVAL);
    guest.open(entry.node, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(fs::read(guest.path("file")).unwrap(), b"");
    guest.make_directory(ROOT, "dir", 0o755).unwrap();
    assert_eq!(guest.create(ROOT, "dir", libc::O_RDWR, 0o600).unwrap_err(), Errno::ISDIR);
}

#[test]
fn what_is_appended_goes_to_the_end() {
    let mut guest = Guest::new(Access::ReadWrite);
    let flags = libc::O_WRONLY | libc::O_APPEND;
    let (_, handle) = guest.create(ROOT, "log", flags, 0o600).unwrap();
    guest.write_flags(handle, 0, b"guest ", 0, flags).unwrap();
    // The host appends something that the guest does not know of.
    fs::OpenOptions::new()
        .append(true)
        .open(guest.path("log"))
        .unwrap()
        .write_all(b"host ")
        .unwrap();
    guest.write_flags(handle, 6, b"guest", 0, flags).unwrap();
    assert_eq!(fs::read(guest.path("log")).unwrap(), b"guest host guest");
    // What comes back from a cache has its place.
    guest.write_flags(handle, 0, b"GUEST", 1, flags).unwrap();
    assert_eq!(fs::read(guest.path("log")).unwrap(), b"GUEST host guest");
}

#[test]
fn directories_are_made_and_removed() {
    let mut guest = Guest::new(Access::ReadWrite);
    let dir = guest.make_directory(ROOT, "dir", 0o1777).unwrap();
    assert_eq!((dir.mode, mode(&guest.path("dir"))), (0o41_777, 0o41_777));
    assert_mine(&guest.path("dir"));
    guest.create(dir.node, "file", libc::O_WRONLY, 0o600).unwrap();
    assert_eq!(guest.make_directory(ROOT, "dir", 0o700).unwrap_err(), Errno::EXIST);
    assert_eq!(guest.call(Op::RmDir, ROOT, args().name("dir")).unwrap_err(), Errno::NOTEMPTY);
    assert_eq!(guest.call(Op::RmDir, dir.node, args().name("file")).unwrap_err(), Errno::NOTDIR);
    assert_eq!(guest.call(Op::Unlink, ROOT, args().name("dir")).unwrap_err(), Errno::ISDIR);
    guest.call(Op::Unlink, dir.node, args().name("file")).unwrap();
    guest.call(Op::RmDir, ROOT, args().name("dir")).unwrap();
    assert!(!guest.path("dir").exists());
}

#[test]
fn links_and_pipes_are_made_and_devices_are_not() {
    let mut guest = Guest::new(Access::ReadWrite);
    let link = guest.sym_link(ROOT, "link", "/etc/passwd").unwrap();
    assert_eq!(link.mode & 0o170_000, 0o120_000);
    assert_eq!(fs::read_link(guest.path("link")).unwrap(), Path::new("/etc/passwd"));
    assert_mine(&guest.path("link"));
    let file = guest.make_node(ROOT, "file", 0o100_644).unwrap();
    guest.make_node(ROOT, "plain", 0o644).unwrap();
    assert!(fs::metadata(guest.path("plain")).unwrap().is_file());
    guest.make_node(ROOT, "pipe", 0o010_644).unwrap();
    assert!(fs::metadata(guest.path("pipe")).unwrap().file_type().is_fifo());
    guest.make_node(ROOT, "socket", 0o140_644).unwrap();
    assert!(fs::metadata(guest.path("socket")).unwrap().file_type().is_socket());
    for kind in [0o020_000, 0o060_000] {
        assert_eq!(guest.make_node(ROOT, "device", kind | 0o666).unwrap_err(), Errno::PERM);
    }
    for kind in [0o040_000, 0o120_000, 0o170_000, 0o030_000] {
        assert_eq!(guest.make_node(ROOT, "odd", kind | 0o666).unwrap_err(), Errno::INVAL);
    }
    let again = guest.link(file.node, ROOT, "again").unwrap();
    assert_eq!((again.node, again.links), (file.node, 2));
    assert_eq!(guest.link(file.node, ROOT, "again").unwrap_err(), Errno::EXIST);
    // A link to a link is to the link itself.
    assert_eq!(guest.link(link.node, ROOT, "link2").unwrap().node, link.node);
    assert_eq!(fs::read_link(guest.path("link2")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn names_are_changed() {
    let mut guest = Guest::new(Access::ReadWrite);
    write_file(&guest.path("a"), b"a");
    write_file(&guest.path("b"), b"b");
    let dir = guest.make_directory(ROOT, "dir", 0o755).unwrap().node;
    let node = guest.walk("a");
    assert_eq!(guest.rename((ROOT, "a"), (ROOT, "b"), 1).unwrap_err(), Errno::EXIST);
    guest.rename((ROOT, "a"), (ROOT, "b"), 2).unwrap();
    assert_eq!(fs::read(guest.path("a")).unwrap(), b"b");
    guest.rename((ROOT, "b"), (dir, "c"), 1).unwrap();
    assert_eq!(guest.walk("dir/c"), node);
    guest.call(Op::Rename, dir, args().n64(ROOT).name("c").name("a")).unwrap();
    assert_eq!(fs::read(guest.path("a")).unwrap(), b"a");
    for flags in [3, 4, 8, u32::MAX] {
        assert_eq!(guest.rename((ROOT, "a"), (dir, "d"), flags).unwrap_err(), Errno::INVAL);
    }
    assert_eq!(guest.rename((ROOT, "none"), (dir, "d"), 0).unwrap_err(), Errno::NOENT);
    assert_eq!(guest.rename((ROOT, "a"), (9999, "d"), 0).unwrap_err(), Errno::STALE);
}

#[test]
fn attributes_are_set() {
    let mut guest = Guest::new(Access::ReadWrite);
    let (entry, handle) = guest.create(ROOT, "file", libc::O_RDWR, 0o600).unwrap();
    let node = entry.node;
    let values = Values {
        mode: 0o640,
        size: 100,
        atime: 12,
        mtime: (-5i64).cast_unsigned(),
        handle,
        ..Values::default()
    };
    assert_eq!(guest.set(node, 1, &values).unwrap().mode, 0o100_640);
    assert_eq!(guest.set(node, 1 << 3, &values).unwrap().size, 100);
    assert_eq!(guest.set(node, 1 << 3 | 1 << 6, &Values { size: 7, ..values }).unwrap().size, 7);
    let huge = Values { size: u64::MAX, ..Values::default() };
    assert_eq!(guest.set(node, 1 << 3, &huge).unwrap_err(), Errno::FBIG);
    let times = Values { atime: 12, mtime: (-5i64).cast_unsigned(), ..Values::default() };
    guest.set(node, 1 << 4 | 1 << 5, &times).unwrap();
    let meta = fs::metadata(guest.path("file")).unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec()), (12, 5, -5, 6));
    guest.set(node, 1 << 5 | 1 << 8, &times).unwrap();
    let meta = fs::metadata(guest.path("file")).unwrap();
    assert!(meta.mtime() > 1_000_000_000, "now");
    assert_eq!(meta.atime(), 12);
    // Of a link, not of what it points at.
    symlink("file", guest.path("link")).unwrap();
    let link = guest.walk("link");
    guest.set(link, 1 << 4, &Values { atime: 77, ..Values::default() }).unwrap();
    assert_eq!(fs::metadata(guest.path("file")).unwrap().atime(), 12);
    assert_eq!(fs::symlink_metadata(guest.path("link")).unwrap().atime(), 77);
    assert_eq!(guest.set(link, 1, &Values::default()).unwrap_err(), Errno::OPNOTSUPP);
    assert_eq!(guest.set(link, 1 << 3, &Values::default()).unwrap_err(), Errno::INVAL);
    assert_eq!(guest.set(ROOT, 1 << 3, &Values::default()).unwrap_err(), Errno::ISDIR);
}

#[test]
fn owners_are_changed_by_root_alone() {
    let mut guest = Guest::new(Access::ReadWrite);
    let (entry, _) = guest.create(ROOT, "file", libc::O_RDWR, 0o600).unwrap();
    let ids = Values { uid: 5, gid: 6, ..Values::default() };
    let nothing = Values { uid: u32::MAX, gid: u32::MAX, ..Values::default() };
    let root = Values::default();
    if is_root() {
        assert_eq!((entry.uid, entry.gid), (UID, GID));
        let set = guest.set(entry.node, 1 << 1 | 1 << 2, &ids).unwrap();
        assert_eq!((set.uid, set.gid), (5, 6));
        let set = guest.set(entry.node, 1 << 1 | 1 << 2, &nothing).unwrap();
        assert_eq!((set.uid, set.gid), (5, 6));
        let set = guest.set(entry.node, 1 << 2, &root).unwrap();
        assert_eq!((set.uid, set.gid), (5, 0));
    } else {
        assert_eq!((entry.uid, entry.gid), (0, 0));
        assert_eq!(guest.set(entry.node, 1 << 1, &ids).unwrap_err(), Errno::PERM);
        assert_eq!(guest.set(entry.node, 1 << 2, &ids).unwrap_err(), Errno::PERM);
        guest.set(entry.node, 1 << 1 | 1 << 2, &nothing).unwrap();
        guest.set(entry.node, 1 << 1 | 1 << 2, &root).unwrap();
    }
}

#[test]
fn a_directory_hands_down_its_group() {
    let mut guest = Guest::with(options(Access::ReadWrite), |dir| {
        fs::create_dir(dir.join("shared")).unwrap();
        chmod(&dir.join("shared"), 0o2777);
    });
    let group = fs::metadata(guest.path("shared")).unwrap().gid();
    let shared = guest.walk("shared");
    guest.create(shared, "file", libc::O_RDWR, 0o666).unwrap();
    guest.make_directory(shared, "dir", 0o777).unwrap();
    assert_eq!(fs::metadata(guest.path("shared/file")).unwrap().gid(), group);
    assert_eq!(fs::metadata(guest.path("shared/dir")).unwrap().gid(), group);
    assert_eq!(mode(&guest.path("shared/dir")), 0o42_777);
    assert_eq!(mode(&guest.path("shared/file")), 0o100_666);
}

#[test]
fn no_file_gains_the_rights_of_its_owner() {
    let mut guest = Guest::new(Access::ReadWrite);
    let (file, _) = guest.create(ROOT, "file", libc::O_RDWR, 0o6755).unwrap();
    assert_eq!(mode(&guest.path("file")), 0o100_755);
    guest.make_node(ROOT, "node", 0o106_755).unwrap();
    assert_eq!(mode(&guest.path("node")), 0o100_755);
    let dir = guest.make_directory(ROOT, "dir", 0o6755).unwrap();
    assert_eq!(mode(&guest.path("dir")), 0o40_755);
    for node in [file.node, dir.node] {
        guest.set(node, 1, &Values { mode: 0o6711, ..Values::default() }).unwrap();
    }
    assert_eq!(mode(&guest.path("file")), 0o100_711);
    assert_eq!(mode(&guest.path("dir")), 0o40_711);
}

#[test]
fn a_program_that_is_changed_loses_the_rights_of_its_owner() {
    for change in ["open", "truncate", "set size", "create", "chmod"] {
        let mut guest = Guest::new(Access::ReadWrite);
        let path = guest.path("program");
        write_file(&path, b"program");
        chmod(&path, 0o755 | SETUID | SETGID);
        let node = guest.walk("program");
        guest.open(node, libc::O_RDONLY).unwrap();
        assert_eq!(mode(&path), 0o106_755, "reading takes nothing");
        match change {
            "open" => {
                let handle = guest.open(node, libc::O_WRONLY).unwrap();
                guest.write(handle, 0, b"x").unwrap();
            }
            "truncate" => drop(guest.open(node, libc::O_WRONLY | libc::O_TRUNC).unwrap()),
            "set size" => drop(guest.set(node, 1 << 3, &Values::default()).unwrap()),
            "create" => {
                let (_, handle) = guest.create(ROOT, "program", libc::O_RDWR, 0o6777).unwrap();
                guest.write(handle, 0, b"x").unwrap();
            }
            _ => {
                let values = Values { mode: 0o6755, ..Values::default() };
                guest.set(node, 1, &values).unwrap();
            }
        }
        assert_eq!(mode(&path), 0o100_755, "{change}");
    }
}
