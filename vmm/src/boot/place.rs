//! Copies content into guest memory before the guest runs. Files are not mapped there: one that shrinks
//! would kill whoever touches it, and small pages cost a guest more than the copy does (ARCHITECTURE.md).
//!
//! Overwrites nothing but the bytes it is told to, so two things may share a page.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, ReadVolatile};

use crate::memory::GuestMemory;

/// Puts `bytes` at `address`.
///
/// # Errors
/// When they do not fit there.
pub(super) fn bytes(mem: &GuestMemory, address: u64, bytes: &[u8]) -> io::Result<()> {
    mem.write_slice(bytes, GuestAddress(address)).map_err(io::Error::other)
}

/// Copies `len` bytes of `file` from `offset` on to `address`, straight into guest memory.
///
/// # Errors
/// When they do not fit there, or the file does not have or give them.
pub(super) fn file(
    mem: &GuestMemory,
    address: u64,
    mut file: &File,
    offset: u64,
    len: u64,
) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::Start(offset))?;
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut slice = mem.get_slice(GuestAddress(address), len).map_err(io::Error::other)?;
    // Network file systems give less at a time than they are asked for; this goes on asking.
    file.read_exact_volatile(&mut slice).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use std::io::Write;

    /// Every way a piece of a file can lie to the pages gives the same bytes, and spares those around.
    #[test]
    fn pieces_arrive_whole_and_alone() {
        let content: Vec<u8> = (0..5 * 4096u32).map(|i| (i % 251) as u8 + 1).collect();
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&content).unwrap();
        let cases =
            [(0, 0, 8192), (0, 0, 5000), (100, 100, 12000), (100, 50, 12000), (4000, 4000, 50)];
        for (to, offset, len) in cases {
            let mem = memory::allocate(&[(0, 1 << 20)]).unwrap();
            bytes(&mem, 0x1000, &[255; 0x8000]).unwrap();
            file(&mem, 0x2000 + to, &from, offset, len).unwrap();
            let mut seen = vec![0; 0x8000];
            mem.read_slice(&mut seen, GuestAddress(0x1000)).unwrap();
            let (start, len) = (0x1000 + to as usize, len as usize);
            assert!(seen[..start].iter().chain(&seen[start + len..]).all(|b| *b == 255));
            assert_eq!(seen[start..start + len], content[offset as usize..][..len]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mem = memory::allocate(&[(0, 1 << 20)]).unwrap();
        let from = tempfile::tempfile().unwrap();
        from.set_len(3 << 20).unwrap();
        for (address, offset, len) in [
            (0, 0, 2 << 20),
            (u64::MAX - 10, 0, 4096),
            (0x2000, 0, 4 << 20),
            (100, 2, 2 << 20),
            (0, 3 << 20, 1),
        ] {
            assert!(
                file(&mem, address, &from, offset, len).is_err(),
                "{address:x} {offset:x} {len:x}"
            );
        }
    }
}
