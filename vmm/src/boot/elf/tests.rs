use super::*;
use crate::boot::sample::{self, ENTRY, KERNEL_HALF, LOAD, NOTE, PVH, Part};
use crate::memory;
use vm_memory::{Bytes, GuestAddress};

fn parse(image: &[u8]) -> Result<Kernel, ImageError> {
    super::parse(&sample::file(image))
}

/// A kernel of these parts.
fn parts(parts: &[Part]) -> Result<Kernel, ImageError> {
    parse(&sample::elf(ET_EXEC, ENTRY, parts, 0x3000))
}

#[test]
fn a_kernel_is_read() {
    let kernel = parse(&sample::kernel(Some(PVH))).unwrap();
    assert_eq!((kernel.entry, kernel.pvh), (ENTRY, Some(PVH)));
    assert_eq!(kernel.range(), ENTRY..ENTRY + 0x10_9010);
    let second = Segment {
        file_offset: 0x4010,
        file_size: 0x800,
        memory_size: 0x9000,
        address: ENTRY + 0x10_0010,
    };
    assert_eq!(kernel.segments[1], second);
    assert_eq!(parse(&sample::kernel(None)).unwrap().pvh, None);
}

#[test]
fn a_pvh_entry_may_have_32_bits() {
    let mut image = sample::elf(
        ET_EXEC,
        ENTRY,
        &[[LOAD, 0, 0, ENTRY, 99, 99, 1], [NOTE, 0x400, 0, 0, 20, 20, 4]],
        0x400,
    );
    image.extend([4u32, 4, 18].map(u32::to_le_bytes).concat());
    image.extend(b"Xen\0");
    image.extend((ENTRY as u32 + 5).to_le_bytes());
    assert_eq!(parse(&image).unwrap().pvh, Some(ENTRY + 5));
}

#[test]
fn a_virtual_entry_becomes_a_physical_one() {
    let part = [LOAD, 0x1000, KERNEL_HALF + ENTRY, ENTRY, 0x100, 0x100, 0x1000];
    let image = sample::elf(ET_EXEC, KERNEL_HALF + ENTRY + 8, &[part], 0x2000);
    assert_eq!(parse(&image).unwrap().entry, ENTRY + 8);
}

#[test]
fn it_is_loaded_where_it_says() {
    let image = sample::kernel(Some(PVH));
    let file = sample::file(&image);
    let kernel = super::parse(&file).unwrap();
    let mem = memory::allocate(&[(0, 32 << 20)]).unwrap();
    assert_eq!(load(&mem, &file, &kernel).unwrap(), kernel.range());
    let mut seen = vec![0; 32 << 20];
    mem.read_slice(&mut seen, GuestAddress(0)).unwrap();
    let mut expected = vec![0; 32 << 20];
    for (offset, size, address) in [(0x1000, 0x2345, ENTRY), (0x4010, 0x800, ENTRY + 0x10_0010)] {
        expected[address as usize..][..size].copy_from_slice(&image[offset..][..size]);
    }
    assert!(seen == expected);
}

#[test]
fn what_is_not_sound_is_refused() {
    let good = [LOAD, 0x1000, KERNEL_HALF, ENTRY, 0x100, 0x200, 0x1000];
    assert!(parts(&[good]).is_ok());
    let change = |changes: &[(usize, u64)]| {
        let mut part = good;
        for (field, value) in changes {
            part[*field] = *value;
        }
        parts(&[part]).unwrap_err()
    };
    let elf = |e: ImageError| matches!(e, ImageError::Elf(_));
    // The file is 0x3000 bytes long.
    assert!(matches!(change(&[(1, 0x2f01)]), ImageError::Truncated));
    assert!(matches!(change(&[(1, u64::MAX)]), ImageError::Truncated));
    assert!(elf(change(&[(4, 0x201)])), "more in the file than in memory");
    assert!(elf(change(&[(5, u64::MAX)])), "memory ends behind the address space");
    assert!(elf(change(&[(3, ENTRY + 1)])), "the entry is outside");
    assert!(elf(change(&[(0, NOTE)])), "nothing to load");
    let overlap = [LOAD, 0x1000, KERNEL_HALF, ENTRY + 0x1ff, 0x100, 0x100, 0x1000];
    assert!(elf(parts(&[overlap, good]).unwrap_err()));
    let outside = sample::kernel(Some(ENTRY - 1));
    assert!(elf(parse(&outside).unwrap_err()), "the PVH entry is outside");
    let many = vec![good; PROGRAM_HEADERS_MAX + 1];
    assert!(elf(parts(&many).unwrap_err()));
}

#[test]
fn hostile_notes_end_the_search() {
    for hostile in
        [[u32::MAX, 8, 18, 0], [4, u32::MAX, 18, 0], [u32::MAX, u32::MAX, 18, 0], [0, 0, 0, 0]]
    {
        let mut notes = hostile.map(u32::to_le_bytes).concat();
        notes.extend(sample::pvh_note(1)[..23].to_vec());
        assert_eq!(pvh_note(&notes, 4), None);
        assert_eq!(pvh_note(&notes, 8), None);
    }
}

/// Whatever is cut or changed, there is an answer, and what is accepted can be loaded without touching
/// anything else than guest memory.
#[test]
fn damage_is_survived() {
    let image = sample::kernel(Some(PVH));
    for end in (0..image.len()).step_by(61) {
        assert!(parse(&image[..end]).is_err(), "{end}");
    }
    let mem = memory::allocate(&[(0, 32 << 20)]).unwrap();
    for at in (0..64 + 3 * 56).chain(0x5000..image.len()) {
        for change in [0x01, 0x80, 0xff] {
            let mut image = image.clone();
            image[at] ^= change;
            let file = sample::file(&image);
            if let Ok(kernel) = super::parse(&file) {
                assert!(kernel.segments.iter().any(|s| s.range().contains(&kernel.entry)));
                // An address outside guest memory is an error here and is refused earlier.
                let fits = kernel.range().end <= 32 << 20;
                assert!(load(&mem, &file, &kernel).is_ok() || !fits);
            }
        }
    }
}
