//! Small images made for the tests, whole and then damaged by them.

use std::fs::File;
use std::io::Write;

/// A program header: type, offset, virtual and physical address, size in file and memory, alignment.
pub(super) type Part = [u64; 7];

pub(super) const LOAD: u64 = 1;
pub(super) const DYNAMIC: u64 = 2;
pub(super) const INTERP: u64 = 3;
pub(super) const NOTE: u64 = 4;
/// Where Linux' image begins in its virtual addresses.
pub(super) const KERNEL_HALF: u64 = 0xffff_ffff_8000_0000;
/// The address of the sample kernel's first segment, which is also its 64-bit entry.
pub(super) const ENTRY: u64 = 0x100_0000;
/// The sample kernel's PVH entry.
pub(super) const PVH: u64 = ENTRY + 0x123;

/// A file with this content.
pub(super) fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// An x86-64 ELF file of this type, entry and parts, with content up to `len`.
pub(super) fn elf(kind: u16, entry: u64, parts: &[Part], len: usize) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(kind.to_le_bytes());
    elf.extend(62u16.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    elf.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    elf.extend([64, 56, parts.len() as u16, 64, 0, 0].map(u16::to_le_bytes).concat());
    for [kind, offset, virt, phys, file_size, memory_size, alignment] in parts {
        elf.extend((*kind as u32).to_le_bytes());
        elf.extend(7u32.to_le_bytes());
        let fields = [offset, virt, phys, file_size, memory_size, alignment];
        elf.extend(fields.map(|field| field.to_le_bytes()).concat());
    }
    let from = elf.len();
    elf.extend((from..len).map(|i| (i % 251) as u8));
    elf
}

/// A Xen note that names the PVH entry.
pub(super) fn pvh_note(entry: u64) -> Vec<u8> {
    let mut note = [4u32, 8, 18].map(u32::to_le_bytes).concat();
    note.extend(b"Xen\0");
    note.extend(entry.to_le_bytes());
    note
}

/// A kernel of two segments with a bss, and after them a note of the PVH entry if it is to have one.
pub(super) fn kernel(pvh: Option<u64>) -> Vec<u8> {
    const NOTES: usize = 0x5000;
    let mut parts = vec![
        [LOAD, 0x1000, KERNEL_HALF + ENTRY, ENTRY, 0x2345, 0x2345, 0x1000],
        [LOAD, 0x4010, KERNEL_HALF + ENTRY + 0x10_0010, ENTRY + 0x10_0010, 0x800, 0x9000, 0x1000],
    ];
    if pvh.is_some() {
        parts.push([NOTE, NOTES as u64, 0, 0, 24 + 16, 24 + 16, 4]);
    }
    let mut kernel = elf(2, ENTRY, &parts, NOTES);
    if let Some(entry) = pvh {
        // One of another kind comes first.
        kernel.extend([4u32, 0, 3].map(u32::to_le_bytes).concat());
        kernel.extend(b"GNU\0");
        kernel.extend(pvh_note(entry));
    }
    kernel
}

/// A bzImage with this payload, of the protocol of Linux 6.
pub(super) fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 3 * 512;
    const OFFSET: u32 = 100;
    let mut image = vec![0; SETUP + OFFSET as usize];
    image[..2].copy_from_slice(b"MZ");
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x202, b"HdrS\x0f\x02");
    put(0x236, &0x7fu16.to_le_bytes());
    put(0x248, &OFFSET.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image
}

/// `content` in LZ4's legacy format, in blocks of this size, as a kernel's build packs it.
pub(super) fn lz4(content: &[u8], block: usize) -> Vec<u8> {
    let mut packed = 0x184c_2102u32.to_le_bytes().to_vec();
    for block in content.chunks(block) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed.extend((content.len() as u32).to_le_bytes());
    packed
}
