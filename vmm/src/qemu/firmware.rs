//! The firmware of an emulated machine: from a processor's reset to the kernel's entry, and nothing else.
//!
//! Where KVM is told which registers a processor starts with, QEMU starts it as hardware does: in real mode,
//! sixteen bytes below 4 GiB. The kernel is in memory by then. The few instructions here bring the processor
//! into the state that the kernel's entry protocol asks for (see `kvm/regs.rs`, which sets the same), and
//! jump.
//!
//! There are no services for a kernel to call and no tables here: those of ACPI are in memory already.

use std::fs::File;
use std::io::{self, Seek, Write};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::boot::{Entry, Protocol, layout};

/// QEMU takes images of a multiple of this. It is also how much of it is seen below 1 MiB.
const SIZE: usize = 64 << 10;
/// The image's address: it ends with the 32-bit address space.
const ADDRESS: u32 = 0u32.wrapping_sub(SIZE as u32);
/// Where in it a processor starts.
const RESET: usize = SIZE - 16;
/// Where in it everything else is.
const CODE: usize = SIZE - 512;

/// Selectors of the descriptors below, the first being the null one. They are the same as those that a
/// kernel is promised.
const CODE_SELECTOR: u8 = 0x10;
const DATA_SELECTOR: u8 = 0x18;
/// Flat segments of 4 GiB (Intel SDM volume 3, 3.4.5): code, data, and 64-bit code.
const DESCRIPTORS: [u64; 5] =
    [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff];
const LONG_SELECTOR: u8 = 0x20;
/// The end of two words of stack: a page that is nobody's, below [`layout::PAGE_TABLES`].
const STACK: u32 = layout::PAGE_TABLES as u32;

/// Makes the image that enters a kernel so.
///
/// # Errors
/// When the host has no memory or no descriptors.
pub(super) fn image(entry: &Entry) -> io::Result<File> {
    let memory = memfd_create("sbx-firmware", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(&bytes(entry))?;
    file.rewind()?;
    Ok(file)
}

fn bytes(entry: &Entry) -> Vec<u8> {
    // What is not meant to be run stops the processor.
    let mut image = vec![0xf4; SIZE];
    let mut code = Vec::new();
    // 16-bit code, the segment's base being the image's address.
    code.push(0xfa); // cli
    code.extend([0x66, 0x2e, 0x0f, 0x01, 0x16]); // lgdt cs:[pointer], 32 bits wide
    let pointer = code.len();
    code.extend([0; 2]);
    code.extend([0x0f, 0x20, 0xc0]); // mov eax, cr0
    code.extend([0x66, 0x25, 0xff, 0xff, 0xff, 0x9f]); // and eax, ~(CD | NW): with caches
    code.extend([0x66, 0x83, 0xc8, 0x01]); // or eax, PE: protected mode
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    code.extend([0x66, 0xea]); // jmp CODE_SELECTOR:next
    let next = code.len() + 6;
    code.extend(linear(next).to_le_bytes());
    code.extend([CODE_SELECTOR, 0]);
    // 32-bit code.
    code.extend([0xb8, DATA_SELECTOR, 0, 0, 0]); // mov eax, DATA_SELECTOR
    for segment in [0xd8, 0xc0, 0xe0, 0xe8, 0xd0] {
        code.extend([0x8e, segment]); // mov ds|es|fs|gs|ss, ax
    }
    match entry.protocol {
        Protocol::Pvh { start_info } => enter_pvh(&mut code, entry.address, start_info),
        Protocol::Linux64 { zero_page, page_table, gdt, gdt_limit } => {
            enter_long_mode(&mut code, page_table);
            enter_linux(&mut code, entry.address, zero_page, (gdt, gdt_limit));
        }
    }
    // The descriptors and the pointer to them, behind the code.
    code.resize(code.len().next_multiple_of(8), 0xf4);
    let descriptors = code.len();
    code.extend(DESCRIPTORS.iter().flat_map(|descriptor| descriptor.to_le_bytes()));
    let here = code.len();
    code.extend((DESCRIPTORS.len() as u16 * 8 - 1).to_le_bytes());
    code.extend(linear(descriptors).to_le_bytes());
    code[pointer..pointer + 2].copy_from_slice(&((CODE + here) as u16).to_le_bytes());

    image[CODE..CODE + code.len()].copy_from_slice(&code);
    // jmp CODE, relative to the instruction's end.
    let distance = (CODE as i64 - (RESET as i64 + 3)) as i16;
    image[RESET] = 0xe9;
    image[RESET + 1..RESET + 3].copy_from_slice(&distance.to_le_bytes());
    image
}

/// The address of a place in the code.
fn linear(place: usize) -> u32 {
    ADDRESS + (CODE + place) as u32
}

/// The start info in EBX, and all else as it is.
fn enter_pvh(code: &mut Vec<u8>, entry: u64, start_info: u64) {
    code.push(0xbb); // mov ebx, start_info
    code.extend((start_info as u32).to_le_bytes());
    code.push(0xb8); // mov eax, entry
    code.extend((entry as u32).to_le_bytes());
    code.extend([0xff, 0xe0]); // jmp eax
}

/// Long mode, with these page tables.
fn enter_long_mode(code: &mut Vec<u8>, page_table: u64) {
    code.extend([0xb8, 0x20, 0, 0, 0, 0x0f, 0x22, 0xe0]); // mov cr4, PAE
    code.push(0xb8); // mov cr3, page_table
    code.extend((page_table as u32).to_le_bytes());
    code.extend([0x0f, 0x22, 0xd8]);
    code.extend([0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32]); // rdmsr EFER
    code.extend([0x0d, 0x00, 0x01, 0, 0, 0x0f, 0x30]); // or eax, LME; wrmsr
    code.extend([0x0f, 0x20, 0xc0]); // mov eax, cr0
    code.extend([0x0d, 0, 0, 0, 0x80]); // or eax, PG
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    code.push(0xea); // jmp LONG_SELECTOR:next
    let next = code.len() + 6;
    code.extend(linear(next).to_le_bytes());
    code.extend([LONG_SELECTOR, 0]);
}

/// The zero page in RSI and the kernel's descriptors loaded, by a far return to its code segment.
fn enter_linux(code: &mut Vec<u8>, entry: u64, zero_page: u64, (gdt, limit): (u64, u16)) {
    code.extend([0x48, 0xbe]); // mov rsi, zero_page
    code.extend(zero_page.to_le_bytes());
    code.extend([0x0f, 0x01, 0x15]); // lgdt [rip + distance]
    let distance = code.len();
    code.extend([0; 4]);
    code.extend([0x48, 0xb8]); // mov rax, entry
    code.extend(entry.to_le_bytes());
    code.push(0xbc); // mov esp, STACK
    code.extend(STACK.to_le_bytes());
    code.extend([0x6a, CODE_SELECTOR, 0x50, 0x48, 0xcb]); // push CODE_SELECTOR; push rax; retfq
    let over = (code.len() - distance - 4) as u32;
    code[distance..distance + 4].copy_from_slice(&over.to_le_bytes());
    code.extend(limit.to_le_bytes());
    code.extend(gdt.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU and the processor take for granted. That it works is for the guests to show.
    #[test]
    fn the_image_has_its_form() {
        let pvh = Protocol::Pvh { start_info: 0x6000 };
        let linux =
            Protocol::Linux64 { zero_page: 0x7000, page_table: 0x9000, gdt: 0x500, gdt_limit: 31 };
        for protocol in [pvh, linux] {
            let image = bytes(&Entry { address: 0x100_0000, protocol });
            assert_eq!(image.len(), SIZE);
            let distance = i16::from_le_bytes([image[RESET + 1], image[RESET + 2]]);
            assert_eq!((image[RESET], RESET as i64 + 3 + i64::from(distance)), (0xe9, CODE as i64));
            assert_eq!(image[CODE], 0xfa);
            assert!(image[CODE + 300..RESET].iter().all(|byte| *byte == 0xf4), "it fits well");
        }
    }
}
