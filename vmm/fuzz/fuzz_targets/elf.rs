//! A file as a kernel: told what it is, and if it is an ELF image, put into the memory of a guest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbx_fuzz::file;
use sbx_vmm::boot::{self, Boot, Initrd, Way, acpi, board, image};
use sbx_vmm::memory::{self, GuestMemory};
use std::sync::OnceLock;

/// Bytes of the guest's memory.
const MEMORY: u64 = 32 << 20;

fuzz_target!(|input: &[u8]| {
    // The mapping is the same each time, and what an earlier run left there does not matter.
    static MEM: OnceLock<GuestMemory> = OnceLock::new();
    let mem = MEM
        .get_or_init(|| memory::allocate(&board::KVM.ram_ranges(MEMORY)).expect("memory for a guest"));
    let (way, content) = match input {
        [0, content @ ..] => (Way::Linux64, content),
        [1, content @ ..] => (Way::Pvh, content),
        _ => (Way::Auto, input),
    };
    let _ = image::recognise(&content[..content.len().min(image::HEAD)]);
    let kernel = file::of(content);
    let machine = acpi::Machine { board: &board::KVM, cpus: 1, transports: &[], keyboard: false };
    let initrd = Some(Initrd::Pieces(&[&[1; 5000]]));
    let boot = Boot { kernel: &kernel, way, initrd, cmdline: "console=ttyS0", machine };
    if let Ok(entry) = boot::prepare(mem, &boot) {
        assert!(entry.address < MEMORY);
    }
});
