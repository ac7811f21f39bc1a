//! A read-only share is not changed in any way, whatever the guest sends.

use super::*;
use std::os::unix::fs::symlink;

fn filled(access: Access) -> Guest {
    Guest::with(options(access), |dir| {
        write_file(&dir.join("file"), b"content");
        fs::create_dir(dir.join("dir")).unwrap();
        symlink("file", dir.join("link")).unwrap();
    })
}

/// Each operation with arguments by which it would succeed on a writable share.
fn changes(file: u64, dir: u64, handle: u64) -> Vec<(Op, u64, Bytes)> {
    let mut changes = Vec::new();
    for valid in [1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5 | 1 << 8, 1 << 3 | 1 << 6] {
        let set = args().n32(valid).n32(0).n64(handle).raw(&[0; 72]);
        changes.push((Op::SetAttr, file, set));
    }
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC, libc::O_CREAT, libc::O_TMPFILE, 3] {
        changes.push((Op::Open, file, args().n32(flags.cast_unsigned()).n32(0)));
    }
    let create = |flags: i32, name| args().n32(flags.cast_unsigned()).n32(0o600).n64(0).name(name);
    let write = args().n64(handle).n64(0).n32(1).n32(0).n64(0).n64(0).raw(b"x");
    changes.extend([
        (Op::SymLink, ROOT, args().name("new").name("target")),
        (Op::MkNod, ROOT, args().n32(0o100_600).n32(0).n64(0).name("new")),
        (Op::MkDir, ROOT, args().n32(0o700).n32(0).name("new")),
        (Op::Unlink, ROOT, args().name("file")),
        (Op::RmDir, ROOT, args().name("dir")),
        (Op::Rename, ROOT, args().n64(dir).name("file").name("file")),
        (Op::Rename2, ROOT, args().n64(ROOT).n64(2).name("file").name("dir")),
        (Op::Link, ROOT, args().n64(file).name("new")),
        (Op::Write, file, write),
        (Op::Create, ROOT, create(libc::O_RDONLY, "file")),
        (Op::Create, ROOT, create(libc::O_WRONLY, "new")),
        (Op::FAllocate, file, args().n64(handle).n64(0).n64(4096).n64(0)),
    ]);
    changes
}

#[test]
fn every_change_is_refused() {
    for access in [Access::ReadOnly, Access::Root] {
        let mut guest = filled(access);
        let before = state(guest.dir.path());
        let (file, dir) = (guest.walk("file"), guest.walk("dir"));
        let handle = guest.open(file, libc::O_RDONLY).unwrap();
        for (op, node, args) in changes(file, dir, handle) {
            assert_eq!(guest.call(op, node, args).unwrap_err(), Errno::ROFS, "{op:?}");
        }
        assert_eq!(state(guest.dir.path()), before);
        assert_eq!(guest.read(handle, 0, 99).unwrap(), b"content");
    }
}

/// That the changes above are changes, so that their refusal means something.
#[test]
fn the_same_is_done_on_a_writable_share() {
    let asked: Vec<Op> = changes(0, 0, 0).into_iter().map(|change| change.0).collect();
    for op in Op::ALL {
        assert_eq!(op.modifies() || *op == Op::Open, asked.contains(op), "{op:?}");
    }
    for at in 0..asked.len() {
        let mut guest = filled(Access::ReadWrite);
        let (file, dir) = (guest.walk("file"), guest.walk("dir"));
        let handle = guest.open(file, libc::O_RDWR).unwrap();
        let (op, node, args) = changes(file, dir, handle).swap_remove(at);
        let before = state(guest.dir.path());
        // Flags that only a read-only share looks at, and a file system that allocates nothing.
        // And only root's files have other owners.
        let unowned = !is_root() && matches!(at, 1 | 2);
        let odd = op == Op::Open || op == Op::FAllocate || unowned;
        let done = guest.call(op, node, args);
        assert!(odd || done.is_ok(), "{at} {op:?} {done:?}");
        let quiet =
            odd || done.is_ok_and(|_| op == Op::Create && state(guest.dir.path()) == before);
        assert!(quiet || state(guest.dir.path()) != before, "{at} {op:?}");
    }
}

#[test]
fn files_are_only_ever_open_for_reading() {
    let mut guest = filled(Access::ReadOnly);
    let file = guest.walk("file");
    guest.open(file, libc::O_RDONLY | libc::O_APPEND | libc::O_NOATIME).unwrap();
    guest.open_directory(ROOT).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{name}"));
        if link.is_ok_and(|link| link.starts_with(guest.dir.path())) {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY, "{info}");
            seen += 1;
        }
    }
    assert_eq!(seen, 4, "the root, the file, and both opened");
}
