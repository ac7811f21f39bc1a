//! Where everything is in a guest's physical address space.
//!
//! ```text
//!          0  the processor's, unused
//!     0x0500  segment descriptors                         GDT
//!     0x6000  PVH's start info, modules, memory map       START_INFO, MODULES, MEMORY_MAP
//!     0x7000  the 64-bit protocol's zero page             ZERO_PAGE
//!     0x9000  six page tables, to 0xf000                  PAGE_TABLES
//!  0x02_0000  the command line, to 0x03_0000              CMDLINE
//!  0x09_fc00  end of the low memory that a kernel may use LOW_END
//!  0x0e_0000  ACPI tables, to 0x0f_0000                   ACPI, ACPI_END
//!  0x0f_0000  firmware, where a board has some
//!  0x10_0000  the kernel, where its image says, and above KERNEL_MIN
//!        ...  the initial file system, at the very end of the low memory
//! 0xd000_0000 the end of low memory at the latest, and virtio devices  MMIO
//! 0xfec0_0000 the I/O interrupt controller                IO_APIC
//! 0xfee0_0000 the processors' interrupt controllers       LOCAL_APIC
//! 0x1_0000_0000 the rest of the memory                    HIGH
//! ```
//!
//! What is below 1 MiB is read by a kernel once, before it uses that memory for other things; the ACPI
//! tables stay.
//!
//! This is x86-64's map only, and there is no room for PCI in it. Where hardware is differs from board to
//! board in part ([`super::board`]).

/// The size of a page, in bytes.
pub const PAGE: u64 = 4096;

/// The segment descriptors.
pub const GDT: u64 = 0x500;
/// PVH: `struct hvm_start_info`.
pub const START_INFO: u64 = 0x6000;
/// PVH: the list of modules, of which there is one at most.
pub const MODULES: u64 = 0x6080;
/// PVH: the map of the memory.
pub const MEMORY_MAP: u64 = 0x6100;
/// The 64-bit protocol's `struct boot_params`.
pub const ZERO_PAGE: u64 = 0x7000;
/// The topmost page table, with the others behind it.
pub const PAGE_TABLES: u64 = 0x9000;
/// The command line, ended by a zero byte.
pub const CMDLINE: u64 = 0x2_0000;
/// The longest command line, in bytes and without its end: what x86 Linux keeps of it (its
/// `COMMAND_LINE_SIZE` is 2048, and so says the `cmdline_size` of every setup header). More would be
/// cut off without a word.
pub const CMDLINE_MAX: usize = 2047;
/// Where usable memory below 640 KiB ends; firmware would have its data behind it.
pub const LOW_END: u64 = 0x9_fc00;
/// The ACPI tables; the first is the RSDP.
pub const ACPI: u64 = 0xe_0000;
/// The end of the room for ACPI tables.
pub const ACPI_END: u64 = 0xf_0000;
/// No kernel may be below this.
pub const KERNEL_MIN: u64 = 0x10_0000;

/// No low memory is from here on; on KVM's board, the first virtio device's registers.
pub const MMIO: u64 = 0xd000_0000;
/// The most virtio devices a machine can have.
pub const MAX_TRANSPORTS: usize = 512;
/// The I/O interrupt controller's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Each processor's own interrupt controller.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Where the memory that found no place below [`MMIO`] begins.
pub const HIGH: u64 = 1 << 32;

/// I/O port: the first serial port's eight registers.
pub const SERIAL: u16 = 0x3f8;
/// The serial port's interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// I/O port: the keyboard controller's data.
pub const KEYBOARD_DATA: u16 = 0x60;
/// I/O port: the keyboard controller's status and command; what resets the machine.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// The keyboard's interrupt.
pub const KEYBOARD_IRQ: u32 = 1;
/// What resets the machine when written to [`KEYBOARD_COMMAND`].
pub const RESET: u8 = 0xfe;
/// I/O port: ACPI's sleep control register, one byte (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL: u16 = 0x600;
/// I/O port: ACPI's sleep status register, one byte.
pub const SLEEP_STATUS: u16 = 0x601;
/// The type of sleep that is power-off, as the DSDT's `_S5` names it.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// What is written to [`SLEEP_CONTROL`] to switch the machine off: the type in bits 2 to 4, and bit 5,
/// which enters it.
pub const POWER_OFF: u8 = SLEEP_TYPE_OFF << 2 | 1 << 5;
