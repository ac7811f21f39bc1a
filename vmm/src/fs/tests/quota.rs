//! `--disk` is counted as for every volume.

use super::*;
use sbx_core::quota::ENTRY;

/// A guest that may add this many bytes.
fn limited(bytes: u64) -> Guest {
    let quota = Quota::new(Some(bytes));
    Guest::with(Options { quota, ..options(Access::ReadWrite) }, |dir| {
        write_file(&dir.join("file"), b"content");
    })
}

/// What is left.
fn left(guest: &Guest) -> u64 {
    let quota = &guest.server.options.quota;
    let left = (0..64).rev().map(|bit| 1u64 << bit).filter(|bytes| quota.take(*bytes).is_ok());
    let left = left.sum();
    quota.give_back(left);
    left
}

#[test]
fn bytes_written_are_counted() {
    let mut guest = limited(10);
    let node = guest.walk("file");
    let handle = guest.open(node, libc::O_RDWR).unwrap();
    assert_eq!(guest.write(handle, 0, b"123456").unwrap(), 6);
    assert_eq!(guest.write(handle, 0, b"12345").unwrap_err(), Errno::NOSPC);
    assert_eq!(guest.write(handle, 0, b"1234").unwrap(), 4);
    assert_eq!(guest.write(handle, 0, b"1").unwrap_err(), Errno::NOSPC);
    assert_eq!(fs::read(guest.path("file")).unwrap(), b"123456t");
}

#[test]
fn what_is_not_written_is_not_counted() {
    let mut guest = limited(10);
    let node = guest.walk("file");
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.write(handle, 0, b"12345").unwrap_err(), Errno::BADF);
    assert_eq!(guest.write(99, 0, b"12345").unwrap_err(), Errno::BADF);
    let handle = guest.open(node, libc::O_RDWR).unwrap();
    // Contents that are announced and not there.
    let lie = args().n64(handle).n64(0).n32(9).n32(0).n64(0).n64(0).raw(b"12");
    assert_eq!(guest.call(Op::Write, node, lie).unwrap_err(), Errno::INVAL);
    assert_eq!(left(&guest), 10);
    // Nor is a file's length.
    guest.set(node, 1 << 3, &Values { size: 1 << 40, ..Values::default() }).unwrap();
    assert_eq!(left(&guest), 10);
}

#[test]
fn entries_are_counted() {
    let mut guest = limited(5 * ENTRY);
    let file = guest.walk("file");
    guest.create(ROOT, "file", libc::O_RDWR, 0o600).unwrap();
    assert_eq!(guest.make_directory(ROOT, "file", 0o700).unwrap_err(), Errno::EXIST);
    assert_eq!(guest.link(file, ROOT, "file").unwrap_err(), Errno::EXIST);
    assert_eq!(left(&guest), 5 * ENTRY);
    guest.create(ROOT, "1", libc::O_RDWR, 0o600).unwrap();
    guest.make_directory(ROOT, "2", 0o700).unwrap();
    guest.sym_link(ROOT, "3", "x").unwrap();
    guest.link(file, ROOT, "4").unwrap();
    guest.make_node(ROOT, "5", 0o600).unwrap();
    assert_eq!(left(&guest), 0);
    assert_eq!(guest.create(ROOT, "6", libc::O_RDWR, 0o600).unwrap_err(), Errno::NOSPC);
    assert_eq!(guest.make_directory(ROOT, "6", 0o700).unwrap_err(), Errno::NOSPC);
    assert_eq!(guest.sym_link(ROOT, "6", "x").unwrap_err(), Errno::NOSPC);
    assert_eq!(guest.link(file, ROOT, "6").unwrap_err(), Errno::NOSPC);
    assert_eq!(guest.make_node(ROOT, "6", 0o600).unwrap_err(), Errno::NOSPC);
    assert!(!guest.path("6").exists());
}

#[test]
fn blocks_given_to_a_file_are_counted() {
    let mut guest = limited(100_000);
    let node = guest.walk("file");
    let handle = guest.open(node, libc::O_RDWR).unwrap();
    let mut allocate = |mode, offset, len| {
        let args = args().n64(handle).n64(offset).n64(len).n32(mode).n32(0);
        guest.call(Op::FAllocate, node, args).map(drop)
    };
    assert_eq!(allocate(0, 0, 1 << 60).unwrap_err(), Errno::NOSPC);
    assert_eq!(allocate(0, 0, u64::MAX).unwrap_err(), Errno::INVAL);
    assert_eq!(allocate(0, 0, 0).unwrap_err(), Errno::INVAL);
    // What moves the rest of a file, and what this host does not know.
    for mode in [8, 0x20, 0x40, u32::MAX] {
        assert_eq!(allocate(mode, 0, 4096).unwrap_err(), Errno::OPNOTSUPP);
    }
    allocate(0, 0, 60_000).unwrap();
    assert_eq!(allocate(1, 0, 60_000).unwrap_err(), Errno::NOSPC);
    assert_eq!(left(&guest), 40_000);
    assert_eq!(fs::metadata(guest.path("file")).unwrap().len(), 60_000);
}

#[test]
fn shares_count_together() {
    let quota = Quota::new(Some(10));
    let mut guests = [(); 2].map(|()| {
        let options = Options { quota: quota.clone(), ..options(Access::ReadWrite) };
        Guest::with(options, |dir| write_file(&dir.join("file"), b""))
    });
    for (guest, expected) in guests.iter_mut().zip([Ok(6), Err(Errno::NOSPC)]) {
        let node = guest.walk("file");
        let handle = guest.open(node, libc::O_RDWR).unwrap();
        assert_eq!(guest.write(handle, 0, b"123456"), expected);
    }
}
