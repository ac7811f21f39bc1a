//! Tells what a file is that is to be run as a kernel, and if it cannot be, says what it is instead.
//!
//! Looks at contents only, never at names, and at the first [`HEAD`] bytes wherever they are enough.
//! Does not say whether a kernel has the drivers that it needs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::bzimage::{self, Payload};
use super::elf::{self, Header, Kernel};
use super::program::{self, Program};

/// How many bytes of a file [`recognise`] wants to see, if there are as many.
pub const HEAD: usize = 4096;
/// The largest kernel that is unpacked, in bytes. Distributions' are a tenth of it.
pub const KERNEL_MAX: u64 = 512 << 20;

/// Why a file cannot be run as a kernel. Each is one sentence about the file, without its name.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It has no content.
    #[error("the file is empty; name a Linux kernel, such as /boot/vmlinuz")]
    Empty,
    /// It is something else that could be told.
    #[error("it is {what}, not a Linux kernel; {instead}")]
    Other {
        /// What it is, with its article.
        what: &'static str,
        /// The next step.
        instead: &'static str,
    },
    /// It is a Linux program.
    #[error(
        "it is a Linux program, not a kernel; run it as the workload, or name a kernel, such as /boot/vmlinuz"
    )]
    Program(Program),
    /// It is something that could not be told.
    #[error("it is not a Linux kernel; name one for x86-64, such as /boot/vmlinuz")]
    Unknown,
    /// It is for another processor.
    #[error(
        "it is for {0}; a virtual machine has this host's processor, so a kernel for x86-64 is needed"
    )]
    Architecture(&'static str),
    /// Its end is missing.
    #[error("the kernel's image is cut short; copy or download it again")]
    Truncated,
    /// It is from before Linux 2.6.26.
    #[error("the kernel's boot protocol is {}.{:02}, and at least 2.08 is needed; take Linux 2.6.26 or later", .0 >> 8, .0 & 0xff)]
    TooOld(u16),
    /// It is a kernel for 32-bit processors.
    #[error("it is a kernel for 32-bit x86; take one built for x86-64 (CONFIG_64BIT)")]
    Only32Bit,
    /// It is packed in a way that is not known here.
    #[error(
        "the kernel inside the image is packed with {0}; take one built with CONFIG_KERNEL_LZ4, GZIP, XZ or ZSTD, or its vmlinux"
    )]
    Format(&'static str),
    /// Unpacking it failed.
    #[error("the kernel inside the image is damaged ({0}); copy or download it again")]
    Corrupt(String),
    /// It is larger than is let in.
    #[error("the kernel is larger than {} MiB when unpacked; take a smaller one", KERNEL_MAX >> 20)]
    TooLarge,
    /// It is an ELF file that makes no sense as a kernel.
    #[error(
        "it is not a usable kernel: {0}; take the vmlinux or bzImage of a Linux build for x86-64"
    )]
    Elf(&'static str),
    /// The host cannot read it.
    #[error("the kernel cannot be read: {0}")]
    Read(io::Error),
    /// The host cannot store what was unpacked.
    #[error("the unpacked kernel cannot be stored: {0}")]
    Write(io::Error),
}

impl ImageError {
    /// It is something else, and a kernel has to be named.
    pub(super) fn not(what: &'static str) -> Self {
        Self::Other { what, instead: "name one for x86-64, such as /boot/vmlinuz" }
    }

    fn packed(what: &'static str, instead: &'static str) -> Self {
        Self::Other { what, instead }
    }
}

/// What a file looks like by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looks {
    /// A Linux kernel as distributions ship it.
    BzImage,
    /// A Linux kernel's ELF image.
    Vmlinux,
    /// A Linux program for x86-64.
    Program(Program),
}

/// Tells what a file is by its first [`HEAD`] bytes, or all if it has fewer. Two things [`open`] tells
/// better, which can read on: a library with an entry looks like a static program here, and a kernel
/// other than Linux may have its PVH note elsewhere.
///
/// # Errors
/// When it is neither a kernel nor a program for this kind of machine; the error says what it is.
pub fn recognise(head: &[u8]) -> Result<Looks, ImageError> {
    look(head, None).map(|(looks, _)| looks)
}

/// A kernel's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A packed one, which [`bzimage::extract`] unpacks to a file that is then a [`Self::Vmlinux`].
    BzImage(Payload),
    /// One that can be loaded as it is.
    Vmlinux(Kernel),
}

/// Reads what is needed of a kernel's image.
///
/// # Errors
/// When it is none, or not a complete one; the error says what it is instead.
pub fn open(file: &File) -> Result<Image, ImageError> {
    let head = head(file)?;
    match look(&head, Some(file))? {
        (Looks::BzImage, _) => Ok(Image::BzImage(bzimage::payload(&head, file)?)),
        (Looks::Vmlinux, Some(header)) => Ok(Image::Vmlinux(elf::kernel(&header, file)?)),
        (Looks::Vmlinux, None) => Err(ImageError::Unknown),
        (Looks::Program(program), _) => Err(ImageError::Program(program)),
    }
}

/// The first bytes of a file.
pub(crate) fn head(file: &File) -> Result<Vec<u8>, ImageError> {
    let mut head = vec![0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ImageError::Read(e)),
        }
    }
    head.truncate(len);
    Ok(head)
}

/// Tells what a file is; with the file at hand, more of it is read where its head leaves doubts.
fn look(head: &[u8], file: Option<&File>) -> Result<(Looks, Option<Header>), ImageError> {
    if head.is_empty() {
        return Err(ImageError::Empty);
    }
    if bzimage::is_one(head) {
        return Ok((Looks::BzImage, None));
    }
    if head.starts_with(b"\x7fELF") {
        let header = Header::parse(head)?;
        let looks = look_at_elf(&header, head, file)?;
        return Ok((looks, Some(header)));
    }
    Err(something_else(head))
}

fn look_at_elf(header: &Header, head: &[u8], file: Option<&File>) -> Result<Looks, ImageError> {
    let read = |offset, len| match file {
        Some(file) => elf::read_at(file, offset, len),
        None => Ok(known_part(head, offset, len)),
    };
    if header.kind == elf::ET_EXEC && (header.is_in_upper_half() || header.pvh(&read)?.is_some()) {
        return Ok(Looks::Vmlinux);
    }
    if header.loaded().next().is_none() {
        return Err(ImageError::Elf("it has nothing to load"));
    }
    let dynamic = file.and_then(|file| header.dynamic(file));
    let library = || ImageError::not("an ELF library");
    let program = program::kind(header, head, dynamic.as_deref()).ok_or_else(library)?;
    Ok(Looks::Program(program))
}

/// The part of a file's head that this range has in common with it.
fn known_part(head: &[u8], offset: u64, len: u64) -> Vec<u8> {
    let to_index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(head.len());
    head[to_index(offset)..to_index(offset.saturating_add(len))].to_vec()
}

/// What a file is that is neither a bzImage nor ELF.
fn something_else(head: &[u8]) -> ImageError {
    let unpack = "if it is a packed kernel, unpack it first";
    match head {
        _ if head.get(56..60) == Some(b"ARM\x64") => ImageError::Architecture("AArch64 (arm64)"),
        _ if head.get(56..60) == Some(b"RSC\x05") => ImageError::Architecture("RISC-V"),
        [b'M', b'Z', ..] => ImageError::not("a Windows or EFI program"),
        [0x1f, 0x8b, ..] => ImageError::packed("a gzip file", unpack),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ImageError::packed("an xz file", unpack),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ImageError::packed("a zstd file", unpack),
        [b'B', b'Z', b'h', ..] => ImageError::packed("a bzip2 file", unpack),
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => {
            ImageError::packed("an initial file system", "name it with --initrd, and a kernel here")
        }
        [0, b'a', b's', b'm', ..] => {
            ImageError::packed("a WebAssembly program", "run it without --vm")
        }
        [b'#', b'!', ..] => ImageError::not("a script"),
        _ => ImageError::Unknown,
    }
}

#[cfg(test)]
mod tests;
