//! Reads a Linux kernel's ELF image, `vmlinux`, and puts it into guest memory.
//!
//! The image is copied, not mapped copy on write, though guests would share what they do not change of a
//! mapped one: a copy lies in large pages, so that a guest faults once for two megabytes of it, where it
//! faults for every page of a mapping that it touches, and for most a second time to write there. What the
//! image does not fill is left as the zeros that guest memory begins with.
//!
//! The file is not trusted: all counts are capped, and nothing outside it or outside the guest's low
//! memory is touched. Kernels are put where they are linked to; there is no relocation and so no
//! randomization of their place. Symbols and sections are not looked at.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::image::{self, Image, ImageError};
use super::{layout, place};
use crate::memory::GuestMemory;

pub(super) const ET_EXEC: u16 = 2;
pub(super) const ET_DYN: u16 = 3;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const PT_INTERP: u32 = 3;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const EM_X86_64: u16 = 62;
/// The size of a 64-bit file's header, and of one program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// The most program headers a file may have: kernels have five, programs about a dozen.
const PROGRAM_HEADERS_MAX: usize = 64;
/// The most bytes of notes that are searched for the PVH entry: kernels have under a kilobyte.
const NOTES_MAX: u64 = 64 << 10;
/// The type of Xen's note that holds the PVH entry (Xen's public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// The start of the half of the address space that no program has.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;

/// A part of the image in memory. All is in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it begins.
    pub file_offset: u64,
    /// How much of it is in the file.
    pub file_size: u64,
    /// How much of memory it takes; what is not in the file is zero.
    pub memory_size: u64,
    /// Where in guest memory it begins.
    pub address: u64,
}

impl Segment {
    /// Its guest addresses. The end was seen not to overflow.
    fn range(&self) -> Range<u64> {
        self.address..self.address + self.memory_size
    }
}

/// A kernel that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its parts by address, without overlap, of which there is one at least.
    pub segments: Vec<Segment>,
    /// The guest address of its 64-bit entry.
    pub entry: u64,
    /// The guest address of its PVH entry, if it has one.
    pub pvh: Option<u64>,
}

impl Kernel {
    /// The guest addresses from its first to its last byte.
    pub fn range(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, |s| s.address);
        let end = self.segments.last().map_or(0, |s| s.range().end);
        start..end
    }
}

/// One program header.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramHeader {
    pub(super) kind: u32,
    pub(super) file_offset: u64,
    pub(super) file_size: u64,
    virtual_address: u64,
    address: u64,
    memory_size: u64,
    alignment: u64,
}

/// What an x86-64 executable's or library's header says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) entry: u64,
    pub(super) programs: Vec<ProgramHeader>,
}

impl Header {
    /// Reads the header of an ELF file from its first bytes, which include its program headers.
    pub(super) fn parse(head: &[u8]) -> Result<Self, ImageError> {
        machine(head)?;
        let kind = u16_at(head, 16).ok_or(ImageError::Truncated)?;
        match kind {
            ET_EXEC | ET_DYN => {}
            1 => return Err(ImageError::not("an object file or kernel module")),
            4 => return Err(ImageError::not("a core dump")),
            _ => return Err(ImageError::Elf("it is neither an executable nor a library")),
        }
        let entry = u64_at(head, 24).ok_or(ImageError::Truncated)?;
        let table = u64_at(head, 32).ok_or(ImageError::Truncated)?;
        let size = usize::from(u16_at(head, 54).ok_or(ImageError::Truncated)?);
        let count = usize::from(u16_at(head, 56).ok_or(ImageError::Truncated)?);
        if size != PROGRAM_HEADER || count == 0 || count > PROGRAM_HEADERS_MAX {
            return Err(ImageError::Elf("it has no usable table of program headers"));
        }
        let start = usize::try_from(table).unwrap_or(usize::MAX);
        let end = start.saturating_add(count * PROGRAM_HEADER);
        if start < HEADER || end > image::HEAD {
            return Err(ImageError::Elf("its program headers are not at its start"));
        }
        let table = head.get(start..end).ok_or(ImageError::Truncated)?;
        let programs = table.chunks_exact(PROGRAM_HEADER).filter_map(program_header).collect();
        Ok(Self { kind, entry, programs })
    }

    /// Whether this is a kernel by where it is linked to.
    pub(super) fn is_in_upper_half(&self) -> bool {
        self.loaded().any(|p| p.virtual_address >= UPPER_HALF)
    }

    pub(super) fn loaded(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.programs.iter().filter(|p| p.kind == PT_LOAD && p.memory_size > 0)
    }

    /// The PVH entry that the notes name; `read` reads a part of the file.
    pub(super) fn pvh(
        &self,
        read: &dyn Fn(u64, u64) -> Result<Vec<u8>, ImageError>,
    ) -> Result<Option<u64>, ImageError> {
        for notes in self.programs.iter().filter(|p| p.kind == PT_NOTE) {
            let content = read(notes.file_offset, notes.file_size.min(NOTES_MAX))?;
            let alignment = if notes.alignment == 8 { 8 } else { 4 };
            if let Some(entry) = pvh_note(&content, alignment) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The bytes of the dynamic section.
    pub(super) fn dynamic(&self, file: &File) -> Option<Vec<u8>> {
        let section = self.programs.iter().find(|p| p.kind == PT_DYNAMIC)?;
        read_at(file, section.file_offset, section.file_size.min(NOTES_MAX)).ok()
    }
}

/// Checks that the file is for this processor and 64-bit.
fn machine(head: &[u8]) -> Result<(), ImageError> {
    let [class, order] = [head.get(4), head.get(5)].map(|b| b.copied().unwrap_or_default());
    let machine = u16_at(head, 18).ok_or(ImageError::Truncated)?;
    let machine = if order == 2 { machine.swap_bytes() } else { machine };
    let name = match machine {
        EM_X86_64 if class == 2 && order == 1 => return Ok(()),
        EM_X86_64 => "x32",
        2 | 18 | 43 => "SPARC",
        3 => "32-bit x86 (i386)",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "s390",
        40 => "32-bit ARM",
        50 => "Itanium",
        183 => "AArch64 (arm64)",
        243 => "RISC-V",
        247 => "BPF",
        258 => "LoongArch",
        _ => "an unknown processor",
    };
    Err(ImageError::Architecture(name))
}

fn program_header(bytes: &[u8]) -> Option<ProgramHeader> {
    Some(ProgramHeader {
        kind: u32_at(bytes, 0)?,
        file_offset: u64_at(bytes, 8)?,
        virtual_address: u64_at(bytes, 16)?,
        address: u64_at(bytes, 24)?,
        file_size: u64_at(bytes, 32)?,
        memory_size: u64_at(bytes, 40)?,
        alignment: u64_at(bytes, 48)?,
    })
}

/// The PVH entry in a list of notes. A malformed note ends the list.
fn pvh_note(mut notes: &[u8], alignment: usize) -> Option<u64> {
    loop {
        let name_size = usize::try_from(u32_at(notes, 0)?).ok()?;
        let size = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let start = name_size.checked_add(12)?.checked_next_multiple_of(alignment)?;
        let content = notes.get(start..start.checked_add(size)?)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && notes.get(12..16) == Some(b"Xen\0") {
            return u64_at(content, 0).or_else(|| u32_at(content, 0).map(u64::from));
        }
        notes = notes.get(start.checked_add(size)?.checked_next_multiple_of(alignment)?..)?;
    }
}

/// Reads a kernel's image.
///
/// # Errors
/// When it is none that can be loaded; see [`ImageError`].
pub fn parse(file: &File) -> Result<Kernel, ImageError> {
    match image::open(file)? {
        Image::Vmlinux(kernel) => Ok(kernel),
        Image::BzImage(_) => Err(ImageError::Elf("it is still packed")),
    }
}

pub(super) fn kernel(header: &Header, file: &File) -> Result<Kernel, ImageError> {
    let file_size = file.metadata().map_err(ImageError::Read)?.len();
    let segments = segments(header, file_size)?;
    let within = |address: u64| segments.iter().any(|s| s.range().contains(&address));
    let entry = physical_entry(header);
    if !within(entry) {
        return Err(ImageError::Elf("its entry is outside its segments"));
    }
    let pvh = header.pvh(&|offset, len| read_at(file, offset, len))?;
    if pvh.is_some_and(|entry| !within(entry) || entry >= layout::HIGH) {
        return Err(ImageError::Elf("its PVH entry is outside its segments"));
    }
    Ok(Kernel { segments, entry, pvh })
}

/// The parts to load, by address.
fn segments(header: &Header, file_size: u64) -> Result<Vec<Segment>, ImageError> {
    let mut segments = Vec::new();
    for program in header.loaded() {
        let ProgramHeader { file_offset, file_size: size, memory_size, address, .. } = *program;
        if size > memory_size || address.checked_add(memory_size).is_none() {
            return Err(ImageError::Elf("one of its segments is larger than its memory"));
        }
        if file_offset.checked_add(size).is_none_or(|end| end > file_size) {
            return Err(ImageError::Truncated);
        }
        segments.push(Segment { file_offset, file_size: size, memory_size, address });
    }
    segments.sort_unstable_by_key(|s| s.address);
    if segments.is_empty() {
        return Err(ImageError::Elf("it has nothing to load"));
    }
    if segments.windows(2).any(|s| s[0].range().end > s[1].address) {
        return Err(ImageError::Elf("its segments overlap"));
    }
    Ok(segments)
}

/// The physical address of the entry, which Linux' images name as it is and others as a virtual one.
fn physical_entry(header: &Header) -> u64 {
    let virtual_ = |p: &&ProgramHeader| {
        header.entry.checked_sub(p.virtual_address).is_some_and(|offset| offset < p.memory_size)
    };
    let physical = |p: &ProgramHeader| {
        header.entry.checked_sub(p.address).is_some_and(|offset| offset < p.memory_size)
    };
    if header.loaded().any(physical) {
        return header.entry;
    }
    let segment = header.loaded().find(virtual_);
    segment.map_or(header.entry, |p| {
        p.address.saturating_add(header.entry.saturating_sub(p.virtual_address))
    })
}

/// Puts a kernel into guest memory, and returns the addresses that it takes up. All its segments must
/// lie between [`layout::KERNEL_MIN`] and the end of low memory, which `prepare` checks.
///
/// # Errors
/// When a segment is not in guest memory, or the file cannot be read.
pub fn load(mem: &GuestMemory, file: &File, kernel: &Kernel) -> io::Result<Range<u64>> {
    for segment in &kernel.segments {
        place::file(mem, segment.address, file, segment.file_offset, segment.file_size)?;
    }
    Ok(kernel.range())
}

/// Reads a part of the file; a part that is not there makes it a truncated one.
pub(super) fn read_at(file: &File, offset: u64, len: u64) -> Result<Vec<u8>, ImageError> {
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| ImageError::Truncated)?];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(ImageError::Truncated),
        // An offset that the kernel cannot even express is behind every end.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(ImageError::Truncated),
        Err(e) => Err(ImageError::Read(e)),
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
