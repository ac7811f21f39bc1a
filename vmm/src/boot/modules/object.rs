//! One module's file: decompressed, and asked what it needs.
//!
//! Of the object only the section `.modinfo` is looked at: texts `KEY=VALUE`, each with a NUL behind it,
//! that the kernel's build puts there. Whether its code is sound is for the guest's kernel to find.

use super::Error;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_REL};
use elf::endian::LittleEndian;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

/// What an xz file may have its decoder allocate, in KiB. The kernel's own takes at most this much.
const XZ_MEMORY_KIB: u32 = 64 << 10;

/// What zstd may have its decoder allocate, in bytes. The kernel's own takes at most this much.
const ZSTD_WINDOW: u64 = 128 << 20;

/// What a module wants loaded before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// It does not load without these: `depends=`.
    pub(super) depends: Vec<String>,
    /// It may not work without these, if there are any: `softdep=pre:`. These are often aliases.
    pub(super) before: Vec<String>,
}

/// Reads a module, decompressed. None if it has more than `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let failed = |cause| Error::Read { path: path.to_owned(), cause };
    let broken = |why: String| Error::Broken { path: path.to_owned(), why };
    // To open a pipe would be to wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(broken("it is not a file".to_owned()));
    }
    let file = BufReader::new(File::open(path).map_err(failed)?);
    let mut content = Vec::new();
    let ending = path.extension().unwrap_or_default();
    let reading = match ending.as_encoded_bytes() {
        b"gz" => fill(&mut content, limit, flate2::bufread::MultiGzDecoder::new(file)),
        b"xz" => {
            let decoder = lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB);
            fill(&mut content, limit, decoder)
        }
        b"zst" => {
            use ruzstd::decoding::StreamingDecoder;
            let decoder = StreamingDecoder::new_with_max_window_size(file, ZSTD_WINDOW);
            let decoder = decoder.map_err(|cause| broken(cause.to_string()))?;
            fill(&mut content, limit, decoder)
        }
        _ => return Ok(fill(&mut content, limit, file).map_err(failed)?.then_some(content)),
    };
    Ok(reading.map_err(|cause| broken(cause.to_string()))?.then_some(content))
}

/// Whether all was within the limit.
fn fill(content: &mut Vec<u8>, limit: usize, from: impl Read) -> io::Result<bool> {
    from.take(limit as u64 + 1).read_to_end(content)?;
    Ok(content.len() <= limit)
}

/// What a module needs, or what is wrong with it.
pub(super) fn needs(content: &[u8]) -> Result<Needs, &'static str> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(content)
        .map_err(|_| "it is not an ELF object, or only a part of one")?;
    if elf.ehdr.e_type != ET_REL || elf.ehdr.e_machine != EM_X86_64 {
        return Err("it is not a module for x86-64");
    }
    let header =
        elf.section_header_by_name(".modinfo").map_err(|_| "its sections cannot be read")?;
    let header = header.ok_or("it does not describe itself as a module")?;
    let (info, _) = elf.section_data(&header).map_err(|_| "its description is cut off")?;
    let mut needs = Needs::default();
    for entry in info.split(|byte| *byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        match entry.split_once('=') {
            Some(("depends", names)) => needs.depends.extend(
                names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned),
            ),
            Some(("softdep", order)) => needs.before.extend(before(order)),
            _ => {}
        }
    }
    Ok(needs)
}

/// The names behind `pre:` in `pre: a b post: c`.
fn before(order: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut pre = false;
    for word in order.split_ascii_whitespace() {
        match word {
            "pre:" => pre = true,
            "post:" => pre = false,
            name if pre => names.push(name.to_owned()),
            _ => {}
        }
    }
    names
}
