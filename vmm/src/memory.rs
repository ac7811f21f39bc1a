//! Guest memory: the only file that maps it, and so the only one here with `mmap`'s `unsafe`.
//!
//! A guest's memory is anonymous: pages exist once they are touched. It is private to its process, in
//! large pages where the host has them ([`allocate`]), or shared with another process that executes the
//! guest ([`share`]).
//!
//! Mappings are never undone: the process is the machine, and the memory goes when it ends.
#![allow(unsafe_code, reason = "mapping memory cannot be made safe by types")]

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::os::fd::OwnedFd;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

/// The memory of a guest, as every device sees it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Host addresses that have the guest's alignment to this let both sides use large pages.
const HUGE: usize = 2 << 20;

/// Makes memory of these ranges: guest address and length, both multiples of the page size.
///
/// # Errors
/// When the host refuses the address space, or ranges overlap.
pub fn allocate(ranges: &[(u64, u64)]) -> io::Result<GuestMemory> {
    let regions = ranges.iter().map(|&(start, len)| region(start, len));
    let regions = regions.collect::<io::Result<Vec<_>>>()?;
    GuestMemory::from_regions(regions).map_err(io::Error::other)
}

/// Makes memory of these ranges in a file without a name, for another process to map as well: each range
/// follows the one before it there. The file keeps its size, whoever has it.
///
/// # Errors
/// When the host refuses the memory or the address space, or ranges overlap.
pub fn share(ranges: &[(u64, u64)]) -> io::Result<(GuestMemory, OwnedFd)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("sbx-guest", flags)?;
    let size = ranges.iter().map(|(_, len)| len).sum();
    rustix::fs::ftruncate(&file, size)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mut offset = 0;
    let regions = ranges.iter().map(|&(start, len)| {
        let region = shared_region(start, len, &file, offset);
        offset += len;
        region
    });
    let regions = regions.collect::<io::Result<Vec<_>>>()?;
    Ok((GuestMemory::from_regions(regions).map_err(io::Error::other)?, file))
}

fn region(start: u64, len: u64) -> io::Result<GuestRegionMmap<()>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let reserved = len.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: without FIXED the kernel chooses a place that nothing else has; nothing points into it
    // yet.
    let base = unsafe {
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), reserved, ProtFlags::empty(), flags)
    }?;
    let aligned = base.map_addr(|base| base.next_multiple_of(HUGE));
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the range lies within the reservation made above, which nothing else uses.
    unsafe { rustix::mm::mprotect(aligned, len, prot_of(prot)) }?;
    mapped(start, aligned.cast(), len, libc::MAP_PRIVATE)
}

fn shared_region(
    start: u64,
    len: u64,
    file: &OwnedFd,
    offset: u64,
) -> io::Result<GuestRegionMmap<()>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without FIXED the kernel chooses a place that nothing else has. The file was just made and
    // sealed to be no shorter than this, so that all of the mapping can be touched.
    let base = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, offset)
    }?;
    mapped(start, base.cast(), len, libc::MAP_SHARED)
}

/// A region of memory that is mapped readable and writable for good.
fn mapped(start: u64, base: *mut u8, len: usize, flags: i32) -> io::Result<GuestRegionMmap<()>> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: both callers have just mapped the range so, and nothing here ever unmaps it.
    let mapping = unsafe { MmapRegion::build_raw(base, len, prot, flags) };
    let mapping = mapping.map_err(io::Error::other)?;
    GuestRegionMmap::new(mapping, GuestAddress(start))
        .ok_or_else(|| io::Error::other("guest memory ends behind the address space"))
}

fn prot_of(prot: ProtFlags) -> rustix::mm::MprotectFlags {
    rustix::mm::MprotectFlags::from_bits_retain(prot.bits())
}

/// Has the host use large pages for what is touched from now on, where it has them.
pub fn use_huge_pages(mem: &GuestMemory) {
    for region in mem.iter() {
        let len = usize::try_from(region.len()).unwrap_or_default();
        // SAFETY: advice on how to back memory, which neither moves nor changes it.
        let _ = unsafe { rustix::mm::madvise(region.as_ptr().cast(), len, Advice::LinuxHugepage) };
    }
}

/// Gives the pages of a range back to the host; the guest finds zeros there. Only whole pages are.
///
/// # Errors
/// When the range is not in guest memory.
pub fn discard(mem: &GuestMemory, address: u64, len: usize) -> io::Result<()> {
    let host = host_range(mem, address, len)?;
    // SAFETY: the range was found to be guest memory, which stays mapped; that its content turns to
    // zeros is what the guest asked for, and devices take any content.
    unsafe { rustix::mm::madvise(host.cast(), len, Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Where the host has a range of guest memory, all of which must be in one region.
fn host_range(mem: &GuestMemory, address: u64, len: usize) -> io::Result<*mut u8> {
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, "not in guest memory");
    let region = mem.find_region(GuestAddress(address)).ok_or_else(outside)?;
    let start = address - region.start_addr().0;
    let end = start.checked_add(len as u64).ok_or_else(outside)?;
    if end > region.len() {
        return Err(outside());
    }
    region.get_host_address(vm_memory::MemoryRegionAddress(start)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn what_is_given_back_is_zero() {
        let mem = allocate(&[(0, 1 << 20), (4 << 30, 1 << 20)]).unwrap();
        let at = |address| mem.read_obj::<u8>(GuestAddress(address)).unwrap();
        for address in [4096, (4 << 30) + 4095, 4 << 30] {
            mem.write_obj(9u8, GuestAddress(address)).unwrap();
        }
        discard(&mem, 4 << 30, 4096).unwrap();
        assert_eq!([at(4096), at((4 << 30) + 4095), at(4 << 30)], [9, 0, 0]);
    }

    #[test]
    fn what_is_shared_is_in_the_file_and_stays_there() {
        let (mem, file) = share(&[(0, 1 << 20), (4 << 30, 1 << 20)]).unwrap();
        mem.write_obj(7u8, GuestAddress(4095)).unwrap();
        mem.write_obj(8u8, GuestAddress((4 << 30) + 1)).unwrap();
        let file = std::fs::File::from(file);
        let at = |offset| {
            let mut byte = [0];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, offset).unwrap();
            byte[0]
        };
        assert_eq!([at(4095), at((1 << 20) + 1)], [7, 8]);
        assert!(file.set_len(4096).is_err() && file.set_len(4 << 20).is_err());
    }

    #[test]
    fn nothing_outside_is_touched() {
        let mem = allocate(&[(0, 1 << 20)]).unwrap();
        assert!(discard(&mem, 1 << 20, 4096).is_err());
        assert!(discard(&mem, (1 << 20) - 4096, 8192).is_err());
        assert!(discard(&mem, 4096, usize::MAX).is_err());
    }
}
