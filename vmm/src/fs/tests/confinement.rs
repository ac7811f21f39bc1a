//! A guest that speaks FUSE itself stays inside what is shared with it.

use super::*;
use std::os::unix::fs::symlink;

/// A share with a secret beside it, and ways there: (all, share).
fn beside_a_secret() -> (tempfile::TempDir, PathBuf) {
    let all = tempfile::tempdir().unwrap();
    let share = all.path().join("share");
    fs::create_dir_all(share.join("dir/inner")).unwrap();
    write_file(&share.join("dir/inner/file"), b"inside");
    fs::create_dir(all.path().join("outside")).unwrap();
    write_file(&all.path().join("outside/secret"), b"secret");
    symlink("../outside", share.join("out")).unwrap();
    symlink(all.path().join("outside/secret"), share.join("absolute")).unwrap();
    symlink("../outside/secret", share.join("relative")).unwrap();
    symlink("/proc/self/fd", share.join("magic")).unwrap();
    (all, share)
}

fn guest_of(share: &Path) -> Guest {
    let server = Server::new(open_dir(share), options(Access::ReadWrite)).unwrap();
    Guest { server, dir: tempfile::tempdir().unwrap(), room: 1 << 20 }
}

#[test]
fn names_are_single_steps() {
    let (all, share) = beside_a_secret();
    let mut guest = guest_of(&share);
    let before = state(all.path());
    let dir = guest.walk("dir");
    let file = guest.walk("dir/inner/file");
    let long = "x".repeat(256);
    for name in [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "../outside",
        "dir/inner",
        "dir/",
        "./dir",
        "..\0",
        &long,
    ] {
        for at in [ROOT, dir] {
            let refused = |result: Result<(), Errno>| {
                let expected = if name == long { Errno::NAMETOOLONG } else { Errno::INVAL };
                assert_eq!(result.unwrap_err(), expected, "{name:?}");
            };
            refused(guest.look_up(at, name).map(drop));
            refused(guest.create(at, name, libc::O_RDWR, 0o600).map(drop));
            refused(guest.make_directory(at, name, 0o700).map(drop));
            refused(guest.make_node(at, name, 0o600).map(drop));
            refused(guest.sym_link(at, name, "x").map(drop));
            refused(guest.link(file, at, name).map(drop));
            refused(guest.rename((at, name), (at, "new"), 0));
            refused(guest.rename((at, "dir"), (at, name), 0));
            for op in [Op::Unlink, Op::RmDir] {
                refused(guest.call(op, at, args().name(name)).map(drop));
            }
        }
    }
    // A name without its end.
    assert_eq!(guest.call(Op::Lookup, ROOT, args().raw(b"dir")).unwrap_err(), Errno::INVAL);
    assert_eq!(guest.call(Op::Lookup, ROOT, args()).unwrap_err(), Errno::INVAL);
    assert_eq!(state(all.path()), before);
}

#[test]
fn links_lead_nowhere() {
    let (all, share) = beside_a_secret();
    let mut guest = guest_of(&share);
    let before = state(&all.path().join("outside"));
    for name in ["out", "absolute", "relative", "magic"] {
        let link = guest.walk(name);
        assert_eq!(guest.look_up(link, "secret").unwrap_err(), Errno::NOTDIR);
        assert_eq!(guest.open(link, libc::O_RDONLY).unwrap_err(), Errno::LOOP);
        assert_eq!(guest.open(link, libc::O_WRONLY | libc::O_TRUNC).unwrap_err(), Errno::LOOP);
        assert_eq!(guest.open_directory(link).unwrap_err(), Errno::LOOP);
        assert_eq!(guest.create(ROOT, name, libc::O_RDWR, 0o600).unwrap_err(), Errno::LOOP);
        assert_eq!(guest.create(link, "new", libc::O_RDWR, 0o600).unwrap_err(), Errno::NOTDIR);
        assert_eq!(guest.make_directory(link, "new", 0o700).unwrap_err(), Errno::NOTDIR);
        guest.set(link, 1, &Values { mode: 0o777, ..Values::default() }).unwrap_err();
        guest.set(link, 1 << 3, &Values::default()).unwrap_err();
        if is_root() {
            // The link's own owner, and nothing else.
            guest.set(link, 1 << 1, &Values { uid: 5, ..Values::default() }).unwrap();
        }
        guest.set(link, 1 << 4, &Values { atime: 1, ..Values::default() }).unwrap();
    }
    assert_eq!(state(&all.path().join("outside")), before);
}

#[test]
fn what_the_host_moves_away_leads_nowhere() {
    let (all, share) = beside_a_secret();
    let mut guest = guest_of(&share);
    let (dir, inner) = (guest.walk("dir"), guest.walk("dir/inner"));
    fs::rename(share.join("dir"), all.path().join("outside/moved")).unwrap();
    // What the guest had, it has, where it is now.
    let node = guest.look_up(inner, "file").unwrap().node;
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(handle, 0, 99).unwrap(), b"inside");
    // And nothing beside or above it.
    for node in [dir, inner] {
        for name in ["..", "secret", "../secret"] {
            assert!(guest.look_up(node, name).is_err());
        }
    }
    assert_eq!(guest.look_up(ROOT, "dir").unwrap_err(), Errno::NOENT);
}

#[test]
fn what_the_host_replaces_by_a_link_leads_nowhere() {
    let (all, share) = beside_a_secret();
    let mut guest = guest_of(&share);
    let file = guest.walk("dir/inner/file");
    fs::rename(share.join("dir/inner"), share.join("dir/old")).unwrap();
    symlink(all.path().join("outside"), share.join("dir/inner")).unwrap();
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(handle, 0, 99).unwrap(), b"inside");
    let link = guest.walk("dir/inner");
    assert_eq!(guest.look_up(link, "secret").unwrap_err(), Errno::NOTDIR);
}

#[test]
fn racing_renames_lead_nowhere() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    let (all, share) = beside_a_secret();
    symlink("../outside/secret", share.join("dir/inner/secret")).unwrap();
    let mut guest = guest_of(&share);
    // One moment a directory of the share's, the next a link to the directory outside.
    let (one, other) = (share.join("dir"), share.join("out"));
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                std::thread::yield_now();
            }
        });
        for _ in 0..200_000 {
            if inside > 50 && refused > 50 {
                break;
            }
            let entry = guest.look_up(ROOT, "dir").unwrap();
            match guest.look_up(entry.node, "secret") {
                Ok(secret) => panic!("found {secret:?}"),
                Err(Errno::NOENT) => inside += 1,
                Err(errno) => {
                    assert_eq!(errno, Errno::NOTDIR);
                    refused += 1;
                }
            }
            guest.forget(entry.node, 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(inside > 0 && refused > 0, "the renames and the look-ups never met");
    drop(all);
}

#[test]
fn only_regular_files_and_directories_are_opened() {
    let mut guest = Guest::new(Access::ReadWrite);
    guest.make_node(ROOT, "pipe", 0o010_666).unwrap();
    guest.make_node(ROOT, "socket", 0o140_666).unwrap();
    let mut names = vec!["pipe", "socket"];
    if is_root() {
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, 0o666.into());
        let zero = rustix::fs::makedev(1, 5);
        let root = open_dir(guest.dir.path());
        // Not everywhere root may do so.
        if rustix::fs::mknodat(root, "device", kind, mode, zero).is_ok() {
            names.push("device");
        }
    }
    for name in names {
        let node = guest.walk(name);
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
            assert_eq!(guest.open(node, flags).unwrap_err(), Errno::ACCESS, "{name}");
            assert_eq!(guest.create(ROOT, name, flags, 0o600).unwrap_err(), Errno::ACCESS);
        }
        assert_eq!(guest.open_directory(node).unwrap_err(), Errno::ACCESS);
        assert_eq!(guest.set(node, 1 << 3, &Values::default()).unwrap_err(), Errno::INVAL);
    }
}
