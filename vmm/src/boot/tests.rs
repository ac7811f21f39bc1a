use super::*;
use crate::memory;
use sample::{ENTRY, PVH};
use std::io::Write;
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const MACHINE: acpi::Machine<'_> =
    acpi::Machine { board: &board::KVM, cpus: 1, transports: &[], keyboard: false };

fn boot(kernel: &File) -> Boot<'_> {
    Boot { kernel, way: Way::Auto, initrd: None, cmdline: "console=ttyS0", machine: MACHINE }
}

fn ram(bytes: u64) -> GuestMemory {
    memory::allocate(&board::KVM.ram_ranges(bytes)).unwrap()
}

fn read(mem: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mem.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

#[test]
fn a_kernel_is_prepared_for_either_entry() {
    let kernel = sample::file(&sample::kernel(Some(PVH)));
    let pvh = Protocol::Pvh { start_info: layout::START_INFO };
    for (way, address) in [(Way::Auto, PVH), (Way::Pvh, PVH), (Way::Linux64, ENTRY)] {
        let mem = ram(32 * MIB);
        let entry = prepare(&mem, &Boot { way, ..boot(&kernel) }).unwrap();
        assert_eq!(entry.address, address);
        assert_eq!(entry.protocol == pvh, way != Way::Linux64);
        assert_eq!(read(&mem, layout::CMDLINE, 14), b"console=ttyS0\0");
        assert_eq!(read(&mem, layout::ACPI, 8), b"RSD PTR ");
        assert_ne!(read(&mem, ENTRY, 8), [0; 8]);
    }
}

#[test]
fn a_kernel_without_pvh_is_entered_in_long_mode() {
    let kernel = sample::file(&sample::kernel(None));
    let entry = prepare(&ram(32 * MIB), &boot(&kernel)).unwrap();
    assert_eq!(entry.address, ENTRY);
    assert!(matches!(entry.protocol, Protocol::Linux64 { gdt_limit: 47, .. }));
    let refused = prepare(&ram(32 * MIB), &Boot { way: Way::Pvh, ..boot(&kernel) });
    assert!(matches!(refused, Err(BootError::NoPvh)));
}

#[test]
fn an_initrd_comes_in_pieces_or_as_a_file() {
    let kernel = sample::file(&sample::kernel(Some(PVH)));
    let content = [[1; 5000].as_slice(), &[2; 3000], &[3; 1]].concat();
    let pieces = [&content[..5000], &content[5000..8000], &content[8000..]];
    let file = sample::file(&content);
    for initrd in [Initrd::Pieces(&pieces), Initrd::File(&file)] {
        let mem = ram(32 * MIB);
        prepare(&mem, &Boot { initrd: Some(initrd), ..boot(&kernel) }).unwrap();
        assert!(read(&mem, 32 * MIB - 8192, 8001) == content);
        let module = read(&mem, layout::MODULES, 16);
        assert_eq!(module, [32 * MIB - 8192, 8001].map(u64::to_le_bytes).concat());
    }
    let mem = ram(32 * MIB);
    prepare(&mem, &Boot { initrd: Some(Initrd::Pieces(&[])), ..boot(&kernel) }).unwrap();
    assert_eq!(read(&mem, layout::MODULES, 16), [0; 16]);
}

#[test]
fn what_does_not_fit_says_how_much_memory_it_takes() {
    let kernel = sample::file(&sample::kernel(Some(PVH)));
    let sentence = |mem: u64, boot: &Boot<'_>| prepare(&ram(mem), boot).unwrap_err().to_string();
    // The kernel ends a little above 17 MiB.
    let error = sentence(17 * MIB, &boot(&kernel));
    assert!(
        error.contains("kernel") && error.contains("--memory must be at least 18 MiB"),
        "{error}"
    );
    let initrd = tempfile::tempfile().unwrap();
    initrd.set_len(10 * MIB).unwrap();
    let with = Boot { initrd: Some(Initrd::File(&initrd)), ..boot(&kernel) };
    let error = sentence(27 * MIB, &with);
    assert!(error.contains("at least 28 MiB"), "{error}");
    prepare(&ram(28 * MIB), &with).unwrap();
    initrd.set_len(5 << 30).unwrap();
    assert!(matches!(prepare(&ram(28 * MIB), &with), Err(BootError::InitrdTooLarge(5120))));
    assert!(sentence(0x1000, &boot(&kernel)).contains("18 MiB"));
}

#[test]
fn a_kernel_must_leave_the_first_mebibyte_alone() {
    let part = [sample::LOAD, 0, sample::KERNEL_HALF, 0xf_f000, 0x2000, 0x2000, 0x1000];
    let kernel = sample::file(&sample::elf(2, 0xf_f000, &[part], 0x2000));
    assert!(matches!(prepare(&ram(32 * MIB), &boot(&kernel)), Err(BootError::Place(0xf_f000))));
}

#[test]
fn command_lines_are_checked() {
    let kernel = sample::file(&sample::kernel(Some(PVH)));
    let longest = "x".repeat(layout::CMDLINE_MAX);
    let mem = ram(32 * MIB);
    prepare(&mem, &Boot { cmdline: &longest, ..boot(&kernel) }).unwrap();
    let longer = "x".repeat(layout::CMDLINE_MAX + 1);
    let refused = prepare(&mem, &Boot { cmdline: &longer, ..boot(&kernel) });
    assert!(matches!(refused, Err(BootError::CmdlineTooLong(2048))));
    let refused = prepare(&mem, &Boot { cmdline: "a\0b", ..boot(&kernel) });
    assert!(matches!(refused, Err(BootError::CmdlineNul)));
}

#[test]
fn what_is_no_kernel_is_refused_as_such() {
    let mut file = tempfile::tempfile().unwrap();
    assert!(matches!(prepare(&ram(MIB), &boot(&file)), Err(BootError::Image(ImageError::Empty))));
    file.write_all(b"#!/bin/sh\n").unwrap();
    let error = prepare(&ram(MIB), &boot(&file)).unwrap_err().to_string();
    assert!(error.contains("a script"), "{error}");
}
