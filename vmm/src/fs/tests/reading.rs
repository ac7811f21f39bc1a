//! What a guest reads is what is there.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn filled(access: Access) -> Guest {
    Guest::with(options(access), |dir| {
        write_file(&dir.join("file"), b"some content");
        fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir_all(dir.join("dir/inner")).unwrap();
        write_file(&dir.join("dir/inner/deep"), b"deep");
        symlink("dir/inner/../nowhere", dir.join("link")).unwrap();
    })
}

fn init(guest: &mut Guest, major: u32, minor: u32, flags: u32) -> Result<Vec<u8>, Errno> {
    guest.call(Op::Init, 0, args().n32(major).n32(minor).n32(131_072).n32(flags))
}

#[test]
fn versions_and_features_are_agreed_upon() {
    let mut guest = filled(Access::ReadWrite);
    let answer = init(&mut guest, 7, 45, u32::MAX).unwrap();
    assert_eq!(answer.len(), 64);
    assert_eq!((u32_at(&answer, 0), u32_at(&answer, 4)), (7, 31));
    assert_eq!(u32_at(&answer, 8), 131_072);
    let features = u32_at(&answer, 12);
    let (locks, export, flocks, write_back) = (1 << 1, 1 << 4, 1 << 10, 1 << 16);
    assert_eq!(features & (locks | export | flocks | write_back), 0, "{features:#x}");
    assert_ne!(features & (1 << 22), 0, "MAX_PAGES");
    assert_eq!(u32_at(&answer, 20), 1 << 20);
    assert_eq!(u16::from_le_bytes([answer[28], answer[29]]), 256);
    // Only what the guest knows.
    assert_eq!(u32_at(&init(&mut guest, 7, 31, 1 << 22).unwrap(), 12), 1 << 22);
    assert_eq!(init(&mut guest, 7, 30, 0).unwrap_err(), Errno::PROTO);
    assert_eq!(init(&mut guest, 6, 99, 0).unwrap_err(), Errno::PROTO);
    let answer = init(&mut guest, 8, 0, u32::MAX).unwrap();
    assert_eq!((u32_at(&answer, 0), u32_at(&answer, 12)), (7, 0));
}

#[test]
fn a_new_start_knows_nothing_of_the_last() {
    let mut guest = filled(Access::ReadWrite);
    let node = guest.walk("dir/inner/deep");
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    init(&mut guest, 7, 31, 0).unwrap();
    assert_eq!(guest.attributes(node).unwrap_err(), Errno::STALE);
    assert_eq!(guest.read(handle, 0, 9).unwrap_err(), Errno::BADF);
    let again = guest.walk("dir/inner/deep");
    assert_ne!(again, node);
    assert!(guest.call(Op::Destroy, 0, args()).unwrap().is_empty());
    assert_eq!(guest.attributes(again).unwrap_err(), Errno::STALE);
    assert_eq!(descriptors_below(guest.dir.path()), 1, "the root's");
}

#[test]
fn files_are_looked_up_with_their_attributes() {
    let mut guest = filled(Access::ReadOnly);
    let host = fs::metadata(guest.path("file")).unwrap();
    let entry = guest.look_up(ROOT, "file").unwrap();
    assert_eq!((entry.size, entry.mode, entry.links), (12, 0o100_640, 1));
    assert_eq!((entry.number, entry.valid), (host.ino(), 1));
    assert_eq!(guest.look_up(ROOT, "file").unwrap().node, entry.node);
    let attributes = guest.attributes(entry.node).unwrap();
    assert_eq!((attributes.number, attributes.size), (host.ino(), 12));
    if is_root() {
        assert_eq!((entry.uid, entry.gid), (host.uid(), host.gid()));
    } else {
        assert_eq!((entry.uid, entry.gid), (0, 0));
    }
    assert_eq!(guest.look_up(ROOT, "missing").unwrap_err(), Errno::NOENT);
    assert_eq!(guest.look_up(entry.node, "x").unwrap_err(), Errno::NOTDIR);
    assert_eq!(guest.look_up(12345, "x").unwrap_err(), Errno::STALE);
    let root = guest.attributes(ROOT).unwrap();
    assert_eq!(root.number, fs::metadata(guest.dir.path()).unwrap().ino());
}

#[test]
fn two_names_of_a_file_are_one_node() {
    let mut guest = filled(Access::ReadOnly);
    fs::hard_link(guest.path("file"), guest.path("dir/again")).unwrap();
    let (one, other) = (guest.walk("file"), guest.walk("dir/again"));
    assert_eq!(one, other);
    assert_eq!(guest.attributes(one).unwrap().links, 2);
}

#[test]
fn a_root_file_system_may_be_kept_by_the_guest() {
    let mut guest = filled(Access::Root);
    assert_eq!(guest.look_up(ROOT, "file").unwrap().valid, 3600);
    // That there is none, too.
    let missing = guest.look_up(ROOT, "missing").unwrap();
    assert_eq!((missing.node, missing.valid, missing.mode), (0, 3600, 0));
}

#[test]
fn contents_are_read() {
    let mut guest = filled(Access::ReadOnly);
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(guest.path("big"), &big).unwrap();
    let node = guest.walk("file");
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(handle, 0, 4096).unwrap(), b"some content");
    assert_eq!(guest.read(handle, 5, 3).unwrap(), b"con");
    assert_eq!(guest.read(handle, 12, 3).unwrap(), b"");
    assert_eq!(guest.read(handle, u64::MAX, 3).unwrap_err(), Errno::INVAL);
    assert_eq!(guest.read(handle, i64::MAX as u64, 3).unwrap_err(), Errno::INVAL);
    guest.call(Op::Release, node, args().n64(handle).n64(0).n64(0)).unwrap();
    assert_eq!(guest.read(handle, 0, 1).unwrap_err(), Errno::BADF);
    let node = guest.walk("big");
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    // Never more than the server says it gives at once, nor than there is room for.
    assert_eq!(guest.read(handle, 1000, u32::MAX).unwrap(), &big[1000..1000 + (1 << 20)]);
    assert_eq!(guest.read(handle, 2_900_000, 1 << 20).unwrap(), &big[2_900_000..]);
    guest.room = 16 + 777;
    assert_eq!(guest.read(handle, 9, 1 << 20).unwrap(), &big[9..9 + 777]);
}

#[test]
fn links_are_read_and_not_followed() {
    let mut guest = filled(Access::ReadOnly);
    let entry = guest.look_up(ROOT, "link").unwrap();
    assert_eq!(entry.mode & 0o170_000, 0o120_000);
    assert_eq!(guest.call(Op::ReadLink, entry.node, args()).unwrap(), b"dir/inner/../nowhere");
    assert_eq!(guest.open(entry.node, libc::O_RDONLY).unwrap_err(), Errno::LOOP);
    let node = guest.walk("file");
    assert_eq!(guest.call(Op::ReadLink, node, args()).unwrap_err(), Errno::INVAL);
}

#[test]
fn a_directory_is_listed() {
    let mut guest = filled(Access::ReadOnly);
    let mut all = guest.list_all(Op::ReadDir, ROOT, 4096);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let seen: Vec<_> = all.iter().map(|e| (&*e.name, e.kind)).collect();
    assert_eq!(seen, [(".", 4), ("..", 4), ("dir", 4), ("file", 8), ("link", 10)]);
    // Zero is a number that readers skip; that of the directory above is nothing to know.
    let above = fs::metadata(guest.path("..")).unwrap().ino();
    assert!(all.iter().all(|e| e.number != 0 && e.number != above));
    let file = guest.walk("file");
    assert_eq!(guest.open_directory(file).unwrap_err(), Errno::NOTDIR);
    let directory = guest.walk("dir");
    assert_eq!(guest.open(directory, libc::O_RDONLY).unwrap_err(), Errno::ISDIR);
    let handle = guest.open_directory(directory).unwrap();
    assert_eq!(guest.read(handle, 0, 1).unwrap_err(), Errno::ISDIR);
    assert_eq!(guest.list(Op::ReadDir, directory, handle, 0, 8).unwrap_err(), Errno::INVAL);
    assert_eq!(
        guest.list(Op::ReadDir, directory, handle, u64::MAX, 4096).unwrap_err(),
        Errno::INVAL
    );
}

#[test]
fn a_listing_looks_up_what_it_lists() {
    let mut guest = filled(Access::ReadOnly);
    let all = guest.list_all(Op::ReadDirPlus, ROOT, 4096);
    for listed in &all {
        let entry = listed.entry.unwrap();
        if listed.name.starts_with('.') {
            assert_eq!(entry.node, 0);
        } else {
            assert_eq!(guest.look_up(ROOT, &listed.name).unwrap().node, entry.node);
            guest.forget(entry.node, 1);
            guest.attributes(entry.node).unwrap();
            guest.forget(entry.node, 1);
            assert_eq!(guest.attributes(entry.node).unwrap_err(), Errno::STALE);
        }
    }
    assert_eq!(all.len(), 5);
}

#[test]
fn a_large_directory_is_listed_whole() {
    let mut guest = Guest::with(Options { descriptors: 50, ..options(Access::ReadOnly) }, |dir| {
        for at in 0..3000 {
            write_file(&dir.join(format!("{at}-{}", "x".repeat(at % 200))), b"");
        }
    });
    for size in [400, 4096, 1 << 20] {
        for op in [Op::ReadDir, Op::ReadDirPlus] {
            let all = guest.list_all(op, ROOT, size);
            let names: std::collections::HashSet<_> = all.iter().map(|e| &e.name).collect();
            assert_eq!((all.len(), names.len()), (3002, 3002), "{op:?} {size}");
        }
    }
    // Names stay listed when descriptors run out, and those held are as many as were granted.
    assert!(descriptors_below(guest.dir.path()) <= 51);
}

/// Or a reader that removes what it was told would miss others, where places are counts of entries.
#[test]
fn no_more_of_a_directory_is_read_than_is_told() {
    let mut guest = Guest::with(options(Access::ReadOnly), |dir| {
        for at in 0..500 {
            write_file(&dir.join(format!("{at}{}", "x".repeat(at % 250))), b"");
        }
    });
    for op in [Op::ReadDir, Op::ReadDirPlus] {
        let handle = guest.open_directory(ROOT).unwrap();
        let mut told = 0;
        while let Some(last) = guest.list(op, ROOT, handle, told, 4096).unwrap().last() {
            told = last.cookie;
            let read = rustix::fs::tell(&guest.server.handles[&handle].fd).unwrap();
            assert_eq!(read, told, "{op:?}");
        }
        assert_ne!(told, 0);
    }
}

#[test]
fn space_is_told() {
    let mut guest = filled(Access::ReadOnly);
    let answer = guest.call(Op::StatFs, ROOT, args()).unwrap();
    assert_eq!(answer.len(), 80);
    let host = rustix::fs::statvfs(guest.dir.path()).unwrap();
    assert_eq!(u64_at(&answer, 0), host.f_blocks);
    assert_eq!(u64::from(u32_at(&answer, 40)), host.f_bsize);
}

#[test]
fn data_and_holes_are_found() {
    let mut guest = filled(Access::ReadOnly);
    let file = File::create(guest.path("sparse")).unwrap();
    file.set_len(10 << 20).unwrap();
    let node = guest.walk("sparse");
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    let mut seek =
        |whence| guest.call(Op::LSeek, node, args().n64(handle).n64(0).n32(whence).n32(0));
    assert_eq!(u64_at(&seek(4).unwrap(), 0), 0);
    assert_eq!(seek(3).unwrap_err(), Errno::NXIO);
    assert_eq!(seek(0).unwrap_err(), Errno::INVAL);
    assert_eq!(seek(77).unwrap_err(), Errno::INVAL);
}

#[test]
fn what_is_forgotten_is_closed() {
    let mut guest = filled(Access::ReadOnly);
    let base = descriptors_below(guest.dir.path());
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(guest.walk("dir/inner/deep"));
    }
    assert_eq!(nodes, [nodes[0]; 3]);
    assert_eq!(descriptors_below(guest.dir.path()), base + 3);
    guest.forget(nodes[0], 2);
    guest.attributes(nodes[0]).unwrap();
    guest.forget(nodes[0], 1);
    assert_eq!(guest.attributes(nodes[0]).unwrap_err(), Errno::STALE);
    assert_eq!(descriptors_below(guest.dir.path()), base + 2);
    let (inner, dir) = (guest.walk("dir/inner"), guest.walk("dir"));
    let batch = args().n32(3).n32(0).n64(inner).n64(99).n64(dir).n64(99).n64(ROOT).n64(u64::MAX);
    let request = request(Op::BatchForget as u32, 0, (0, 0), &batch.0);
    assert!(guest.raw(&request).is_empty());
    assert_eq!(descriptors_below(guest.dir.path()), base);
    guest.attributes(ROOT).unwrap();
}

#[test]
fn what_is_no_directory_is_not_shared() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Server::new(open_dir(file.path()), options(Access::ReadOnly)).unwrap_err();
    assert!(error.to_string().contains("only a directory"), "{error}");
}
