//! A guest may know more files than the server may have descriptors.

use super::*;
use std::os::unix::fs::symlink;

/// Descriptors that the guests here are granted.
const FEW: usize = 20;

fn few(fill: impl FnOnce(&Path)) -> Guest {
    Guest::with(Options { descriptors: FEW, nodes: 300, ..options(Access::ReadWrite) }, fill)
}

/// With files `0` to `99`, each holding its name, and some directories.
fn filled() -> Guest {
    few(|dir| {
        for at in 0..100 {
            write_file(&dir.join(at.to_string()), at.to_string().as_bytes());
        }
        fs::create_dir_all(dir.join("d/e/f")).unwrap();
        write_file(&dir.join("d/e/f/deep"), b"deep");
    })
}

/// Has the guest look up so many other files that it holds descriptors of those alone.
fn crowd(guest: &mut Guest) {
    for at in 0..60 {
        guest.look_up(ROOT, &at.to_string()).unwrap();
    }
    assert!(guest.server.nodes.descriptors() <= FEW);
    assert!(descriptors_below(guest.dir.path()) <= FEW);
}

fn content(guest: &mut Guest, node: u64) -> Result<Vec<u8>, Errno> {
    let handle = guest.open(node, libc::O_RDONLY)?;
    let content = guest.read(handle, 0, 99);
    guest.call(Op::Release, node, args().n64(handle).n64(0).n64(0)).unwrap();
    content
}

#[test]
fn all_that_is_known_stays_usable() {
    let mut guest = filled();
    let deep = guest.walk("d/e/f/deep");
    let nodes: Vec<u64> = (0..100).map(|at| guest.walk(&at.to_string())).collect();
    for _ in 0..2 {
        for (at, node) in nodes.iter().enumerate() {
            assert_eq!(content(&mut guest, *node).unwrap(), at.to_string().as_bytes());
            assert!(guest.server.nodes.descriptors() <= FEW);
        }
        assert_eq!(content(&mut guest, deep).unwrap(), b"deep");
    }
    assert_eq!(guest.walk("7"), nodes[7]);
    guest.server.reset();
    assert_eq!(descriptors_below(guest.dir.path()), 1);
}

#[test]
fn what_the_guest_moved_is_found_where_it_moved_it() {
    let mut guest = filled();
    let (one, other, dir) = (guest.walk("98"), guest.walk("99"), guest.walk("d"));
    let deep = guest.walk("d/e/f/deep");
    crowd(&mut guest);
    guest.rename((ROOT, "98"), (dir, "moved"), 0).unwrap();
    crowd(&mut guest);
    assert_eq!(content(&mut guest, one).unwrap(), b"98");
    guest.rename((dir, "moved"), (ROOT, "99"), 2).unwrap();
    crowd(&mut guest);
    assert_eq!(content(&mut guest, one).unwrap(), b"98");
    assert_eq!(content(&mut guest, other).unwrap(), b"99");
    guest.rename((ROOT, "d"), (ROOT, "elsewhere"), 0).unwrap();
    crowd(&mut guest);
    assert_eq!(content(&mut guest, deep).unwrap(), b"deep");
    assert_eq!(content(&mut guest, other).unwrap(), b"99");
}

#[test]
fn what_has_no_name_left_keeps_its_descriptor() {
    let mut guest = filled();
    let (removed, replaced) = (guest.walk("98"), guest.walk("99"));
    crowd(&mut guest);
    guest.call(Op::Unlink, ROOT, args().name("98")).unwrap();
    guest.rename((ROOT, "97"), (ROOT, "99"), 0).unwrap();
    crowd(&mut guest);
    assert_eq!(content(&mut guest, removed).unwrap(), b"98");
    assert_eq!(content(&mut guest, replaced).unwrap(), b"99");
    // What is open keeps it, too, whatever the host does.
    let open = guest.walk("96");
    let handle = guest.open(open, libc::O_RDONLY).unwrap();
    fs::remove_file(guest.path("96")).unwrap();
    crowd(&mut guest);
    assert_eq!(guest.attributes(open).unwrap().links, 0);
    assert_eq!(guest.read(handle, 0, 9).unwrap(), b"96");
}

#[test]
fn what_the_host_replaced_is_not_taken_for_what_was_there() {
    let mut guest = filled();
    let outside = tempfile::tempdir().unwrap();
    write_file(&outside.path().join("deep"), b"secret");
    write_file(&outside.path().join("98"), b"secret");
    let (file, link, gone) = (guest.walk("98"), guest.walk("99"), guest.walk("97"));
    let deep = guest.walk("d/e/f/deep");
    crowd(&mut guest);
    fs::rename(guest.path("98"), outside.path().join("kept")).unwrap();
    write_file(&guest.path("98"), b"new");
    fs::remove_file(guest.path("99")).unwrap();
    symlink(outside.path().join("98"), guest.path("99")).unwrap();
    fs::remove_file(guest.path("97")).unwrap();
    fs::rename(guest.path("d/e/f"), guest.path("d/e/old")).unwrap();
    symlink(outside.path(), guest.path("d/e/f")).unwrap();
    for node in [file, link, gone, deep] {
        assert_eq!(guest.attributes(node).unwrap_err(), Errno::STALE);
        assert_eq!(content(&mut guest, node).unwrap_err(), Errno::STALE);
    }
    // Looked up anew, it is what is there now.
    let new = guest.walk("98");
    assert_ne!(new, file);
    assert_eq!(content(&mut guest, new).unwrap(), b"new");
    assert_eq!(guest.walk("d/e/old/deep"), deep);
    assert_eq!(content(&mut guest, deep).unwrap(), b"deep");
}

#[test]
fn directories_that_seem_to_be_in_each_other_are_not_walked_forever() {
    let mut guest = filled();
    let (d, e) = (guest.walk("d"), guest.walk("d/e"));
    // The host turns d/e into e/d, and the guest sees only the second half of it.
    fs::rename(guest.path("d/e"), guest.path("e")).unwrap();
    fs::rename(guest.path("d"), guest.path("e/d")).unwrap();
    assert_eq!(guest.look_up(e, "d").unwrap().node, d);
    crowd(&mut guest);
    assert_eq!(guest.attributes(d).unwrap_err(), Errno::STALE);
    assert_eq!(guest.walk("e/d"), d);
    guest.attributes(d).unwrap();
}

#[test]
fn open_files_are_bounded() {
    let mut guest = filled();
    let mut open = Vec::new();
    let full = loop {
        let name = (open.len() % 100).to_string();
        match guest.look_up(ROOT, &name).and_then(|entry| guest.open(entry.node, libc::O_RDONLY)) {
            Ok(handle) => open.push(handle),
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, Errno::NFILE);
    assert!(open.len() >= FEW / 2 - 1, "{}", open.len());
    assert!(descriptors_below(guest.dir.path()) <= FEW);
    for op in [Op::Release, Op::ReleaseDir] {
        let handle = open.pop().unwrap();
        guest.call(op, ROOT, args().n64(handle).n64(0).n64(0)).unwrap();
        assert_eq!(guest.read(handle, 0, 1).unwrap_err(), Errno::BADF);
    }
    let node = guest.walk("50");
    assert_eq!(content(&mut guest, node).unwrap(), b"50");
}

#[test]
fn nodes_are_bounded() {
    let mut guest = few(|dir| {
        for at in 0..310 {
            write_file(&dir.join(at.to_string()), b"");
        }
    });
    let mut nodes = Vec::new();
    let full = loop {
        match guest.look_up(ROOT, &nodes.len().to_string()) {
            Ok(entry) => nodes.push(entry.node),
            Err(errno) => break errno,
        }
    };
    // The root is one.
    assert_eq!((full, nodes.len()), (Errno::NFILE, 299));
    assert_eq!(guest.make_directory(ROOT, "new", 0o700).unwrap_err(), Errno::NFILE);
    assert_eq!(guest.create(ROOT, "new", libc::O_RDWR, 0o600).unwrap_err(), Errno::NFILE);
    assert!(!guest.path("new").exists());
    assert_eq!(guest.look_up(ROOT, "3").unwrap().node, nodes[3]);
    guest.forget(nodes[250], 1);
    guest.look_up(ROOT, "305").unwrap();
}
