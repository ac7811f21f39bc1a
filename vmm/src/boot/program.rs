//! Tells Linux programs apart by the first bytes of their ELF file.
//!
//! A program and a kernel can both be ELF executables of one processor; what tells them apart is where
//! they are linked to. Linux' own image lives in the upper half of the address space, which no program
//! can have.
//!
//! Only looks: whether a program would run is its kernel's to say.

use super::elf::{self, Header};

/// What a Linux program needs to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Nothing but a kernel.
    Static,
    /// A root file system with this program, which loads it and its libraries.
    Dynamic {
        /// The path that the program names; empty if it stands far into the file.
        interpreter: String,
    },
}

/// The longest path of an interpreter that is shown.
const INTERPRETER_MAX: usize = 256;
/// The DT_FLAGS_1 bit of position-independent programs.
const DF_1_PIE: u64 = 0x0800_0000;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
/// How many entries of a dynamic section are looked at.
const DYNAMIC_MAX: usize = 256;

/// What the x86-64 ELF file, which is no kernel, with this header and these first bytes is.
/// `None` for a library. `dynamic` are the bytes of its dynamic section, where they are known.
pub(super) fn kind(header: &Header, head: &[u8], dynamic: Option<&[u8]>) -> Option<Program> {
    if let Some(interpreter) = header.programs.iter().find(|p| p.kind == elf::PT_INTERP) {
        let interpreter = path(head, interpreter.file_offset, interpreter.file_size);
        return Some(Program::Dynamic { interpreter });
    }
    let has_dynamic = header.programs.iter().any(|p| p.kind == elf::PT_DYNAMIC);
    let library = header.entry == 0
        || (header.kind == elf::ET_DYN && has_dynamic && dynamic.is_some_and(|d| !is_program(d)));
    (!library).then_some(Program::Static)
}

/// Whether a dynamic section is that of a program rather than of a library.
fn is_program(dynamic: &[u8]) -> bool {
    let entries = dynamic.as_chunks::<8>().0.as_chunks::<2>().0;
    let mut entries = entries.iter().take(DYNAMIC_MAX);
    entries.any(|[tag, value]| {
        u64::from_le_bytes(*tag) == DT_FLAGS_1 && u64::from_le_bytes(*value) & DF_1_PIE != 0
    })
}

/// The path at this offset, as far as it is known.
fn path(head: &[u8], offset: u64, len: u64) -> String {
    let known = usize::try_from(offset).ok().and_then(|offset| head.get(offset..));
    let known = known.unwrap_or_default();
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(INTERPRETER_MAX).min(known.len());
    let path = known[..len].split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(path).escape_debug().to_string()
}
