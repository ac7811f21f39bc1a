//! All that makes a kernel start: what it is, where it goes, and what it is told of the machine.
//!
//! Nothing here touches KVM; the processor is set to an [`Entry`] by `kvm/`.

pub mod initramfs;
pub mod modules;
pub mod pack;
pub mod version;

/// Where and how a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The guest address of the first instruction.
    pub address: u64,
    /// The state it expects.
    pub protocol: Protocol,
}

/// The two ways to enter a Linux kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux' 64-bit protocol. All are guest addresses.
    Linux64 {
        /// `struct boot_params`.
        zero_page: u64,
        /// The topmost page table.
        page_table: u64,
        /// The segment descriptors.
        gdt: u64,
        /// Their length in bytes, less one.
        gdt_limit: u16,
    },
    /// PVH.
    Pvh {
        /// The guest address of `struct hvm_start_info`.
        start_info: u64,
    },
}
