//! Unpacks the kernel inside a bzImage, the form in which distributions ship kernels.
//!
//! A bzImage is a setup header, a program that unpacks the kernel inside the guest, and the packed
//! kernel, an ELF file. The header tells where the last is (Linux' Documentation/arch/x86/boot.rst,
//! `payload_offset`, from protocol 2.08), so the host unpacks it, once for all guests, and each guest is
//! spared the work.
//!
//! The output is a `vmlinux` with, for most kernels, a table of relocations behind it that the ELF file
//! does not speak of and nothing here uses. It is not parsed here. What is unpacked is bounded by
//! [`KERNEL_MAX`], and the memory taken by `WINDOW_MAX`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use super::image::{ImageError, KERNEL_MAX};

/// The most memory that a format's window may take, in bytes. xz and zstd kernels are made with up to
/// 128 MiB.
const WINDOW_MAX: u64 = 192 << 20;
/// The oldest protocol that has the payload's place: 2.08.
const PROTOCOL_MIN: u16 = 0x0208;
/// The protocol that has `xloadflags`: 2.12.
const PROTOCOL_XLOADFLAGS: u16 = 0x020c;
/// `xloadflags`: there is a 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// The end of the part of the header that is used here.
const HEADER_END: usize = 0x250;
/// What begins an LZ4 file of the legacy format, which the kernel's build uses.
const LZ4_LEGACY: u32 = 0x184c_2102;
/// What a block of that format holds at most when unpacked, and when packed.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_PACKED_BLOCK: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;
/// How much is passed on at a time.
const CHUNK: usize = 128 << 10;

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

/// Where in a bzImage the kernel is, and how it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    offset: u64,
    len: u64,
    format: Format,
    /// The kernel's size, which the build puts into the payload's last four bytes.
    unpacked: u32,
}

impl Payload {
    /// The kernel's size when unpacked, in bytes, as the image says.
    pub fn unpacked_size(&self) -> u64 {
        self.unpacked.into()
    }
}

/// Whether a file with these first bytes is a bzImage, of whatever age.
pub(super) fn is_one(head: &[u8]) -> bool {
    head.get(0x202..0x206) == Some(b"HdrS") && u16_at(head, 0x1fe) == Some(0xaa55)
}

/// Finds the payload of a bzImage that begins with `head`.
pub(super) fn payload(head: &[u8], file: &File) -> Result<Payload, ImageError> {
    let version = u16_at(head, 0x206).ok_or(ImageError::Truncated)?;
    if version < PROTOCOL_MIN {
        return Err(ImageError::TooOld(version));
    }
    if head.len() < HEADER_END {
        return Err(ImageError::Truncated);
    }
    let flags = u16_at(head, 0x236).unwrap_or_default();
    if version >= PROTOCOL_XLOADFLAGS && flags & XLF_KERNEL_64 == 0 {
        return Err(ImageError::Only32Bit);
    }
    // No sectors means four, for historical reasons.
    let sectors = match head.get(0x1f1).copied().unwrap_or_default() {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let field = |offset| u32_at(head, offset).map(u64::from).ok_or(ImageError::Truncated);
    let (offset, len) = ((sectors + 1) * 512 + field(0x248)?, field(0x24c)?);
    let size = file.metadata().map_err(ImageError::Read)?.len();
    if offset + len > size {
        return Err(ImageError::Truncated);
    }
    let (mut magic, mut unpacked) = ([0; 6], [0; 4]);
    if len < (magic.len() + unpacked.len()) as u64 {
        return Err(ImageError::Format("no packed kernel in it"));
    }
    file.read_exact_at(&mut magic, offset).map_err(ImageError::Read)?;
    file.read_exact_at(&mut unpacked, offset + len - 4).map_err(ImageError::Read)?;
    let unpacked = u32::from_le_bytes(unpacked);
    let format = format(magic)?;
    if u64::from(unpacked) > KERNEL_MAX {
        return Err(ImageError::TooLarge);
    }
    Ok(Payload { offset, len, format, unpacked })
}

/// The format that begins with `magic`.
fn format(magic: [u8; 6]) -> Result<Format, ImageError> {
    match magic {
        [0x1f, 0x8b, ..] => Ok(Format::Gzip),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Ok(Format::Xz),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Zstd),
        [a, b, c, d, ..] if u32::from_le_bytes([a, b, c, d]) == LZ4_LEGACY => Ok(Format::Lz4),
        [b'B', b'Z', b'h', ..] => Err(ImageError::Format("bzip2")),
        [0x5d, 0, 0, ..] => Err(ImageError::Format("LZMA")),
        [0x89, b'L', b'Z', b'O', ..] => Err(ImageError::Format("LZO")),
        [0x7f, b'E', b'L', b'F', ..] => Err(ImageError::Format("nothing")),
        _ => Err(ImageError::Format("an unknown method")),
    }
}

/// Unpacks the kernel in `file` to `out`, and returns its size in bytes.
///
/// # Errors
/// When the payload is damaged or too large, or `out` takes no more.
pub fn extract(file: &File, payload: &Payload, out: &mut dyn Write) -> Result<u64, ImageError> {
    // gzip itself ends with the size; the kernel's build appends it to what other formats make.
    let len = if payload.format == Format::Gzip { payload.len } else { payload.len - 4 };
    let section = Section { file, offset: payload.offset, left: len };
    let mut input = BufReader::with_capacity(CHUNK, section);
    let mut out = Output { out, written: 0, expected: payload.unpacked.into() };
    match payload.format {
        Format::Gzip => pump(&mut flate2::bufread::GzDecoder::new(input), &mut out),
        Format::Xz => {
            let limit = (WINDOW_MAX >> 10) as u32;
            pump(&mut lzma_rust2::XzReader::new_mem_limit(input, false, limit), &mut out)
        }
        Format::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                &mut input, WINDOW_MAX,
            );
            pump(&mut decoder.map_err(|e| ImageError::Corrupt(e.to_string()))?, &mut out)
        }
        Format::Lz4 => lz4(&mut input, &mut out),
    }?;
    if out.written != out.expected {
        return Err(ImageError::Corrupt("it ends early".into()));
    }
    Ok(out.written)
}

/// Passes on all that a decoder gives.
fn pump(from: &mut dyn Read, out: &mut Output<'_>) -> Result<(), ImageError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => out.write(&buffer[..len])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ImageError::Corrupt(e.to_string())),
        }
    }
}

/// Unpacks LZ4's legacy format: the magic, then blocks, each behind its packed size, to the end.
fn lz4(from: &mut dyn Read, out: &mut Output<'_>) -> Result<(), ImageError> {
    let corrupt = |e: &dyn std::fmt::Display| ImageError::Corrupt(e.to_string());
    let mut packed = Vec::new();
    let mut unpacked = vec![0; LZ4_BLOCK];
    let mut size = [0; 4];
    loop {
        match from.read_exact(&mut size) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(corrupt(&e)),
        }
        let size = u32::from_le_bytes(size);
        // The files that `lz4` makes can be joined, and each begins with it.
        if size == LZ4_LEGACY {
            continue;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > LZ4_PACKED_BLOCK {
            return Err(corrupt(&"a block is too large"));
        }
        packed.resize(size, 0);
        from.read_exact(&mut packed).map_err(|e| corrupt(&e))?;
        let len = lz4_flex::block::decompress_into(&packed, &mut unpacked);
        out.write(&unpacked[..len.map_err(|e| corrupt(&e))?])?;
    }
}

/// Where the kernel goes, and no more of it than the image said.
struct Output<'a> {
    out: &'a mut dyn Write,
    written: u64,
    expected: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let written = self.written + bytes.len() as u64;
        if written > self.expected {
            return Err(ImageError::Corrupt("it is larger than it says".into()));
        }
        self.out.write_all(bytes).map_err(ImageError::Write)?;
        self.written = written;
        Ok(())
    }
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..len], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
