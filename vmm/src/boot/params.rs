//! What a kernel is told of the machine when it is entered: the zero page of Linux' 64-bit protocol, or
//! PVH's start info, and the tables in memory that the processor itself starts with.
//!
//! Says where the memory, the command line, the initial file system and the ACPI tables are, and nothing
//! of devices, which the ACPI tables do.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use std::io;
use vm_memory::ByteValued;

use super::{layout, place};
use crate::memory::GuestMemory;

/// Types of memory, the same in both protocols (e820).
const USABLE: u32 = 1;
const ACPI: u32 = 3;

/// `boot_flag` and `header` of a setup header.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = u32::from_le_bytes(*b"HdrS");
/// The boot protocol that the zero page follows: 2.15.
const PROTOCOL: u16 = 0x020f;
/// `type_of_loader` of loaders without a number of their own.
const LOADER: u8 = 0xff;
/// `loadflags`: the kernel is above 1 MiB.
const LOADED_HIGH: u8 = 1;
/// What a kernel's image is aligned to by default, in bytes.
const KERNEL_ALIGNMENT: u32 = 16 << 20;

/// What begins PVH's start info.
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Its first version with a map of the memory.
const START_INFO_VERSION: u32 = 1;

/// Descriptors at selectors 0x10, 0x18 and 0x20: 64-bit code, data, and a task state. They say what
/// `kvm/regs.rs` sets the segments to.
const DESCRIPTORS: [u64; 6] =
    [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0080_8b00_0000_0067, 0];
/// The length of the descriptors in bytes, less one.
pub(super) const GDT_LIMIT: u16 = (size_of::<[u64; 6]>() - 1) as u16;

/// A page table's entry: present and writable, and for one that stands for a large page, that.
const TABLE: u64 = 0b11;
const LARGE_PAGE: u64 = TABLE | 1 << 7;
/// How many entries a page table has.
const ENTRIES: u64 = 512;
/// How many gibibytes are mapped.
const MAPPED: u64 = 4;

/// What a kernel is told.
pub(super) struct Facts<'a> {
    /// The ranges of memory, start and length, the first at 0.
    pub(super) memory: &'a [(u64, u64)],
    /// The command line's length, without its end.
    pub(super) cmdline: u32,
    /// The initial file system's address and length, if there is one.
    pub(super) initrd: Option<(u32, u32)>,
}

/// The map of the memory: start, length and type.
fn memory_map(memory: &[(u64, u64)]) -> Vec<(u64, u64, u32)> {
    let mut map =
        vec![(0, layout::LOW_END, USABLE), (layout::ACPI, layout::ACPI_END - layout::ACPI, ACPI)];
    map.extend(memory.iter().filter_map(|&(start, len)| {
        let usable = start.max(layout::KERNEL_MIN);
        let len = (start + len).checked_sub(usable).filter(|len| *len > 0)?;
        Some((usable, len, USABLE))
    }));
    map
}

/// Writes the zero page (Linux' Documentation/arch/x86/zero-page.rst).
pub(super) fn write_zero_page(mem: &GuestMemory, facts: &Facts<'_>) -> io::Result<()> {
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER;
    params.hdr.version = PROTOCOL;
    params.hdr.type_of_loader = LOADER;
    params.hdr.loadflags = LOADED_HIGH;
    params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    params.hdr.cmd_line_ptr = layout::CMDLINE as u32;
    params.hdr.cmdline_size = facts.cmdline;
    if let Some((address, len)) = facts.initrd {
        params.hdr.ramdisk_image = address;
        params.hdr.ramdisk_size = len;
    }
    params.acpi_rsdp_addr = layout::ACPI;
    let map = memory_map(facts.memory);
    let mut table = params.e820_table;
    for (entry, &(addr, size, kind)) in table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr, size, r#type: kind };
        params.e820_entries += 1;
    }
    params.e820_table = table;
    place::bytes(mem, layout::ZERO_PAGE, params.as_slice())
}

/// Writes the start info (Xen's public/arch-x86/hvm/start_info.h) and what it points to.
pub(super) fn write_start_info(mem: &GuestMemory, facts: &Facts<'_>) -> io::Result<()> {
    let mut info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: START_INFO_VERSION,
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: layout::ACPI,
        memmap_paddr: layout::MEMORY_MAP,
        ..Default::default()
    };
    if let Some((address, len)) = facts.initrd {
        info.nr_modules = 1;
        info.modlist_paddr = layout::MODULES;
        let module =
            hvm_modlist_entry { paddr: address.into(), size: len.into(), ..Default::default() };
        place::bytes(mem, layout::MODULES, module.as_slice())?;
    }
    let mut address = layout::MEMORY_MAP;
    for (addr, size, type_) in memory_map(facts.memory) {
        let entry = hvm_memmap_table_entry { addr, size, type_, reserved: 0 };
        place::bytes(mem, address, entry.as_slice())?;
        address += entry.as_slice().len() as u64;
        info.memmap_entries += 1;
    }
    place::bytes(mem, layout::START_INFO, info.as_slice())
}

/// Writes the segment descriptors.
pub(super) fn write_descriptors(mem: &GuestMemory) -> io::Result<()> {
    place::bytes(mem, layout::GDT, &words(DESCRIPTORS))
}

/// Writes page tables that map the first four gibibytes to themselves, in pages of 2 MiB, which every
/// 64-bit processor has. The kernel goes over to its own in its first instructions.
pub(super) fn write_page_tables(mem: &GuestMemory) -> io::Result<()> {
    let table = |index: u64| layout::PAGE_TABLES + index * layout::PAGE;
    place::bytes(mem, table(0), &words([table(1) | TABLE]))?;
    place::bytes(mem, table(1), &words((0..MAPPED).map(|i| table(2 + i) | TABLE)))?;
    // The tables of the third level lie side by side.
    let pages = (0..MAPPED * ENTRIES).map(|i| i << 21 | LARGE_PAGE);
    place::bytes(mem, table(2), &words(pages))
}

fn words(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use vm_memory::{Bytes, GuestAddress};

    const FACTS: Facts<'_> = Facts {
        memory: &[(0, 2 << 20), (1 << 32, 3 << 20)],
        cmdline: 7,
        initrd: Some((0x10_0000, 99)),
    };
    const MAP: [(u64, u64, u32); 4] = [
        (0, 0x9_fc00, 1),
        (0xe_0000, 0x1_0000, 3),
        (0x10_0000, 0x10_0000, 1),
        (1 << 32, 3 << 20, 1),
    ];

    fn memory() -> GuestMemory {
        memory::allocate(&[(0, 2 << 20)]).unwrap()
    }

    #[test]
    fn the_zero_page_is_as_linux_documents_it() {
        let mem = memory();
        write_zero_page(&mem, &FACTS).unwrap();
        let mut page = vec![0; 4096];
        mem.read_slice(&mut page, GuestAddress(layout::ZERO_PAGE)).unwrap();
        let u32_at = |offset: usize| u32::from_le_bytes(*page[offset..].first_chunk().unwrap());
        let u64_at = |offset: usize| u64::from_le_bytes(*page[offset..].first_chunk().unwrap());
        assert_eq!(page[0x1fe..0x200], [0x55, 0xaa]);
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(page[0x210], 0xff);
        assert_eq!([u32_at(0x218), u32_at(0x21c)], [0x10_0000, 99]);
        assert_eq!(u32_at(0x228), layout::CMDLINE as u32);
        assert_eq!(u64_at(0x70), layout::ACPI);
        assert_eq!(page[0x1ef], 0, "the sentinel");
        assert_eq!(page[0x1e8], 4);
        for (i, entry) in MAP.iter().enumerate() {
            let at = 0x2d0 + 20 * i;
            assert_eq!((u64_at(at), u64_at(at + 8), u32_at(at + 16)), *entry);
        }
    }

    #[test]
    fn the_start_info_leads_to_the_rest() {
        let mem = memory();
        write_start_info(&mem, &FACTS).unwrap();
        let info: hvm_start_info = mem.read_obj(GuestAddress(layout::START_INFO)).unwrap();
        assert_eq!(info.magic, 0x336e_c578);
        assert_eq!([info.cmdline_paddr, info.rsdp_paddr], [layout::CMDLINE, layout::ACPI]);
        let module: hvm_modlist_entry = mem.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((info.nr_modules, module.paddr, module.size), (1, 0x10_0000, 99));
        let map: [hvm_memmap_table_entry; 4] = std::array::from_fn(|i| {
            mem.read_obj(GuestAddress(info.memmap_paddr + 24 * i as u64)).unwrap()
        });
        assert_eq!(info.memmap_entries, 4);
        assert_eq!(map.map(|e| (e.addr, e.size, e.type_)), MAP);
    }

    /// Walks the tables as the processor does.
    #[test]
    fn the_page_tables_map_all_addresses_to_themselves() {
        let mem = memory();
        write_page_tables(&mem).unwrap();
        let read = |table: u64, index: u64| -> u64 {
            mem.read_obj(GuestAddress((table & !0xfff) + index % 512 * 8)).unwrap()
        };
        for address in [0, 0x20_0000, 0x4000_0000, 0xd000_0000, 0xffff_ffff_u64] {
            let second = read(layout::PAGE_TABLES, address >> 39);
            let third = read(second, address >> 30);
            let page = read(third, address >> 21);
            assert_eq!([second & 1, third & 1, page & 0x81], [1, 1, 0x81]);
            assert_eq!(page & !0x1f_ffff, address & !0x1f_ffff);
        }
        let end: u64 = mem.read_obj(GuestAddress(layout::PAGE_TABLES + 6 * 4096)).unwrap();
        assert_eq!(end, 0);
    }
}
