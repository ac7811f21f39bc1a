use super::*;
use crate::boot::sample::{self, DYNAMIC, ENTRY, INTERP, KERNEL_HALF, LOAD, NOTE, PVH};

const TEXT: sample::Part = [LOAD, 0, 0x40_0000, 0x40_0000, 0x1000, 0x1000, 0x1000];

fn error(head: &[u8]) -> String {
    let error = recognise(head).unwrap_err().to_string();
    assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
    error
}

#[test]
fn kernels_are_told_from_programs() {
    let kernel = sample::kernel(Some(PVH));
    assert_eq!(recognise(&kernel[..HEAD]).unwrap(), Looks::Vmlinux);
    let packed = sample::bzimage(&sample::lz4(&kernel, 5000));
    assert_eq!(recognise(&packed[..0x250]).unwrap(), Looks::BzImage);
    let program = sample::elf(2, 0x40_1000, &[TEXT], 0x2000);
    assert_eq!(recognise(&program).unwrap(), Looks::Program(Program::Static));
    assert!(matches!(open(&sample::file(&kernel)), Ok(Image::Vmlinux(_))));
    assert!(matches!(open(&sample::file(&packed)), Ok(Image::BzImage(_))));
    let refused = open(&sample::file(&program));
    assert!(matches!(refused, Err(ImageError::Program(Program::Static))));
}

/// A kernel other than Linux may be linked to where it is loaded; its PVH note tells.
#[test]
fn a_pvh_note_makes_a_kernel() {
    let parts =
        [[LOAD, 0x1000, ENTRY, ENTRY, 0x100, 0x100, 0x1000], [NOTE, 0x800, 0, 0, 24, 24, 4]];
    let mut image = sample::elf(2, ENTRY, &parts, 0x2000);
    image[0x800..0x818].copy_from_slice(&sample::pvh_note(ENTRY));
    assert_eq!(recognise(&image).unwrap(), Looks::Vmlinux);
    // Behind the head, only the whole file shows it.
    let parts = [parts[0], [NOTE, 0x1800, 0, 0, 24, 24, 4]];
    let mut image = sample::elf(2, ENTRY, &parts, 0x2000);
    image[0x1800..0x1818].copy_from_slice(&sample::pvh_note(ENTRY));
    assert!(matches!(open(&sample::file(&image)), Ok(Image::Vmlinux(_))));
}

#[test]
fn programs_are_told_apart() {
    let parts = [[INTERP, 0x300, 0, 0, 20, 20, 1], TEXT];
    let mut dynamic = sample::elf(3, 0x1000, &parts, 0x2000);
    dynamic[0x300..0x314].copy_from_slice(b"/lib/ld\n-linux.so.2\0");
    let interpreter = "/lib/ld\\n-linux.so.2".to_owned();
    let looks = Looks::Program(Program::Dynamic { interpreter });
    assert_eq!(recognise(&dynamic).unwrap(), looks);

    // A static program that is position-independent looks like a library but for one flag.
    let parts = [TEXT, [DYNAMIC, 0x1800, 0, 0, 32, 32, 8]];
    let mut image = sample::elf(3, 0x1000, &parts, 0x2000);
    let flags = [14u64, 1, 0x6fff_fffb, 0x0800_0001].map(u64::to_le_bytes).concat();
    image[0x1800..0x1820].copy_from_slice(&flags);
    let program = open(&sample::file(&image));
    assert!(matches!(program, Err(ImageError::Program(Program::Static))));
    image[0x181f - 4] = 0;
    let library = open(&sample::file(&image)).unwrap_err().to_string();
    assert!(library.contains("an ELF library"), "{library}");
    assert!(error(&sample::elf(3, 0, &parts, 0x2000)).contains("an ELF library"));
}

#[test]
fn everything_else_is_named() {
    let mut arm = vec![0; 64];
    arm[..2].copy_from_slice(b"MZ");
    assert!(error(&arm).contains("a Windows or EFI program"));
    arm[56..60].copy_from_slice(b"ARM\x64");
    assert!(error(&arm).contains("AArch64"));
    for (head, what) in [
        (&b""[..], "empty"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"070701", "--initrd"),
        (b"\0asm\x01\0\0\0", "a WebAssembly program"),
        (b"#!/bin/sh\n", "a script"),
        (b"hello", "not a Linux kernel"),
        (b"\x7fELF", "cut short"),
    ] {
        assert!(error(head).contains(what), "{}", error(head));
    }
}

#[test]
fn other_machines_are_named() {
    let mut image = sample::elf(2, ENTRY, &[TEXT], 0x1000);
    for (machine, name) in [(183, "AArch64"), (243, "RISC-V"), (3, "i386"), (40, "ARM")] {
        image[18] = machine;
        assert!(error(&image).contains(name), "{}", error(&image));
    }
    // Big-endian.
    (image[5], image[18], image[19]) = (2, 0, 22);
    assert!(error(&image).contains("s390"));
    // 32 bits wide on this machine.
    (image[4], image[5], image[18], image[19]) = (1, 1, 62, 0);
    assert!(error(&image).contains("x32"));
    image[4] = 2;
    image[16] = 1;
    assert!(error(&image).contains("kernel module"));
}

#[test]
fn every_head_has_an_answer() {
    let kernel = sample::kernel(Some(PVH));
    let part = [LOAD, 0, KERNEL_HALF, ENTRY, 9, 9, 1];
    let program = sample::elf(3, 9, &[[INTERP, u64::MAX, 0, 0, u64::MAX, 0, 0], part], 0x1000);
    let packed = sample::bzimage(&sample::lz4(&kernel, 5000));
    let heads = [&kernel[..HEAD], &program, &packed];
    for head in heads {
        for end in 0..head.len().min(1000) {
            let _ = recognise(&head[..end]);
        }
        for at in 0..head.len().min(1000) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut head = head.to_vec();
                head[at] = value;
                let _ = recognise(&head);
            }
        }
    }
    assert!(matches!(recognise(&program), Ok(Looks::Program(Program::Dynamic { .. }))));
}
