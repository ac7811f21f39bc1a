//! All that makes a kernel start: what it is, where it goes, and what it is told of the machine.
//!
//! [`image`] tells what a file is, [`bzimage`] unpacks it, [`elf`] loads it, [`acpi`] and `params` say
//! what the machine has, and [`layout`] and [`board`] say where everything lies. [`prepare`] does it all for one
//! start.
//!
//! Nothing here touches KVM or QEMU; how a processor comes to an [`Entry`] is for those who execute it. Kernels are unpacked by the
//! caller, who keeps the result for the next start.

pub mod acpi;
pub mod board;
pub mod bzimage;
pub mod elf;
pub mod image;
pub mod layout;
mod params;
mod place;
pub mod program;
#[cfg(test)]
mod sample;

use std::fs::File;
use std::io;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::memory::GuestMemory;
use image::ImageError;
use layout::PAGE;

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

/// Which of its entries a kernel is entered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// PVH if the kernel has that entry, or else the 64-bit one.
    #[default]
    Auto,
    /// The 64-bit entry, which every kernel has.
    Linux64,
    /// The PVH entry.
    Pvh,
}

/// An initial file system: a cpio archive, packed or not.
#[derive(Clone, Copy, Debug)]
pub enum Initrd<'a> {
    /// Made of pieces, one behind the other.
    Pieces(&'a [&'a [u8]]),
    /// A file.
    File(&'a File),
}

impl Initrd<'_> {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::Pieces(pieces) => Ok(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }

    fn write(&self, mem: &GuestMemory, mut address: u64, len: u64) -> io::Result<()> {
        match self {
            Self::File(file) => return place::file(mem, address, file, 0, len),
            Self::Pieces(pieces) => {
                for piece in *pieces {
                    place::bytes(mem, address, piece)?;
                    address += piece.len() as u64;
                }
            }
        }
        Ok(())
    }
}

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The kernel's ELF image.
    pub kernel: &'a File,
    /// Which of its entries to take.
    pub way: Way,
    /// Its initial file system.
    pub initrd: Option<Initrd<'a>>,
    /// Its command line, of at most [`layout::CMDLINE_MAX`] bytes.
    pub cmdline: &'a str,
    /// What the ACPI tables tell of.
    pub machine: acpi::Machine<'a>,
}

/// Why a start cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel's image is not a usable one.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The entry asked for is missing.
    #[error("the kernel has no PVH entry; take one built with CONFIG_PVH, or its 64-bit entry")]
    NoPvh,
    /// The kernel wants to be where other things have to be.
    #[error(
        "the kernel is linked to address {0:#x}, where it cannot be loaded; take one linked to 16 MiB, as by default (CONFIG_PHYSICAL_START)"
    )]
    Place(u64),
    /// The guest's memory is too small.
    #[error("the {what} does not fit in the guest's memory; --memory must be at least {mib} MiB")]
    Memory {
        /// What does not fit.
        what: &'static str,
        /// The memory that holds it, in MiB. A running system needs more.
        mib: u64,
    },
    /// There is no place for this large an initial file system, whatever the memory.
    #[error(
        "the initial file system is {0} MiB large, and no kernel can have that much; put the files on a disk"
    )]
    InitrdTooLarge(u64),
    /// The initial file system cannot be read.
    #[error("the initial file system cannot be read: {0}")]
    Initrd(io::Error),
    /// The command line is too long.
    #[error("the kernel's command line is {0} bytes long, and Linux takes {max}; shorten it", max = layout::CMDLINE_MAX)]
    CmdlineTooLong(usize),
    /// The command line would end early.
    #[error("the kernel's command line has a zero byte in it; remove it")]
    CmdlineNul,
    /// More devices than can be told of.
    #[error("the machine has {0} devices, and at most {max} are possible; share fewer directories or disks", max = layout::MAX_TRANSPORTS)]
    Devices(usize),
    /// Guest memory cannot be written.
    #[error("the guest's memory cannot be filled: {0}")]
    Write(#[source] io::Error),
}

/// What a start was found to consist of.
struct Checked {
    kernel: elf::Kernel,
    /// The address of the PVH entry, if that is taken.
    pvh: Option<u64>,
    /// Where the initial file system goes, and its length.
    initrd: Option<(u32, u32)>,
}

fn checked(boot: &Boot<'_>, low: u64) -> Result<Checked, BootError> {
    check_cmdline(boot.cmdline)?;
    let kernel = elf::parse(boot.kernel)?;
    let pvh = match boot.way {
        Way::Auto => kernel.pvh,
        Way::Linux64 => None,
        Way::Pvh => Some(kernel.pvh.ok_or(BootError::NoPvh)?),
    };
    let initrd = plan(&kernel, boot.initrd, low)?;
    Ok(Checked { kernel, pvh, initrd })
}

/// Checks that all of it can be prepared in `memory` bytes, before there is any memory.
///
/// # Errors
/// Those of [`prepare`] that are not the host's.
pub fn check(boot: &Boot<'_>, memory: u64) -> Result<(), BootError> {
    let low = boot.machine.board.ram_ranges(memory).first().map_or(0, |(_, len)| *len);
    checked(boot, low).map(drop)
}

/// Fills the memory of a guest with all that the kernel needs to start, and says where that is entered.
/// The memory is that of [`board::Board::ram_ranges`] and still holds zeros.
///
/// # Errors
/// When the kernel is none, or something does not fit; see [`BootError`].
pub fn prepare(mem: &GuestMemory, boot: &Boot<'_>) -> Result<Entry, BootError> {
    let memory: Vec<_> = mem.iter().map(|r| (r.start_addr().0, r.len())).collect();
    let low = memory.first().filter(|r| r.0 == 0).map_or(0, |r| r.1);
    let Checked { kernel, pvh, initrd } = checked(boot, low)?;
    let devices = boot.machine.transports.len();
    let tables = acpi::tables(&boot.machine).ok_or(BootError::Devices(devices))?;

    elf::load(mem, boot.kernel, &kernel).map_err(BootError::Write)?;
    if let (Some(initrd), Some((address, len))) = (boot.initrd, initrd) {
        initrd.write(mem, address.into(), len.into()).map_err(BootError::Initrd)?;
    }
    let facts = params::Facts { memory: &memory, cmdline: boot.cmdline.len() as u32, initrd };
    let write = || -> io::Result<Protocol> {
        place::bytes(mem, layout::CMDLINE, boot.cmdline.as_bytes())?;
        place::bytes(mem, layout::CMDLINE + boot.cmdline.len() as u64, &[0])?;
        place::bytes(mem, layout::ACPI, &tables)?;
        tell(mem, &facts, pvh.is_some())
    };
    let protocol = write().map_err(BootError::Write)?;
    Ok(Entry { address: pvh.unwrap_or(kernel.entry), protocol })
}

/// Writes what the kernel is told by its protocol.
fn tell(mem: &GuestMemory, facts: &params::Facts<'_>, pvh: bool) -> io::Result<Protocol> {
    if pvh {
        params::write_start_info(mem, facts)?;
        return Ok(Protocol::Pvh { start_info: layout::START_INFO });
    }
    params::write_zero_page(mem, facts)?;
    params::write_descriptors(mem)?;
    params::write_page_tables(mem)?;
    Ok(Protocol::Linux64 {
        zero_page: layout::ZERO_PAGE,
        page_table: layout::PAGE_TABLES,
        gdt: layout::GDT,
        gdt_limit: params::GDT_LIMIT,
    })
}

fn check_cmdline(cmdline: &str) -> Result<(), BootError> {
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    if cmdline.len() > layout::CMDLINE_MAX {
        return Err(BootError::CmdlineTooLong(cmdline.len()));
    }
    Ok(())
}

/// Checks that the kernel and the initial file system fit into low memory of `low` bytes, and finds the
/// latter's place: the last pages.
fn plan(
    kernel: &elf::Kernel,
    initrd: Option<Initrd<'_>>,
    low: u64,
) -> Result<Option<(u32, u32)>, BootError> {
    let range = kernel.range();
    if range.start < layout::KERNEL_MIN || range.end > layout::MMIO {
        return Err(BootError::Place(range.start));
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if range.end > low {
        return Err(BootError::Memory { what: "kernel", mib: mib(range.end) });
    }
    let len = initrd.map_or(Ok(0), |initrd| initrd.len()).map_err(BootError::Initrd)?;
    if len == 0 {
        return Ok(None);
    }
    let room = len.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    let needed = range.end.next_multiple_of(PAGE).saturating_add(room);
    if needed > layout::MMIO {
        return Err(BootError::InitrdTooLarge(mib(len)));
    }
    if needed > low {
        return Err(BootError::Memory { what: "initial file system", mib: mib(needed) });
    }
    // Both are below layout::MMIO, and so fit.
    Ok(Some(((low - room) as u32, len as u32)))
}

#[cfg(test)]
mod tests;
