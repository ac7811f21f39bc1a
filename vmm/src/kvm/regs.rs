//! What a guest's first processor starts with: the state that the kernel's two entry protocols ask for.
//!
//! Linux' 64-bit entry (Documentation/arch/x86/boot.rst): long mode, flat segments with selectors 0x10
//! and 0x18, interrupts off, the zero page in RSI. PVH (Xen's docs/misc/pvh.pandoc): protected mode
//! without paging, flat segments, the start info in EBX.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::KvmError;
use crate::boot::{Entry, Protocol};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always set.
const RFLAGS: u64 = 1 << 1;

/// A flat 4 GiB segment. `kind` is the descriptor's type; 11 is accessed, readable code, 3 accessed,
/// writable data (Intel SDM volume 3, table 3-1).
fn flat(selector: u16, kind: u8, long: bool) -> kvm_segment {
    let code = kind & 8 != 0;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!(long && code)),
        s: 1,
        l: u8::from(long && code),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

fn segments(sregs: &mut kvm_sregs, long: bool) {
    sregs.cs = flat(0x10, 11, long);
    let data = flat(0x18, 3, long);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // A busy TSS, which the processor must have and nobody uses.
    sregs.tr = kvm_segment { limit: 0x67, type_: 11, s: 0, db: 0, g: 0, ..flat(0x20, 11, false) };
}

/// Sets the processor to `entry`.
pub(super) fn set(fd: &VcpuFd, entry: &Entry) -> Result<(), KvmError> {
    let failed = || KvmError::of("set a processor's registers");
    let mut sregs = fd.get_sregs().map_err(failed())?;
    let mut regs = kvm_regs { rflags: RFLAGS, rip: entry.address, ..Default::default() };
    match entry.protocol {
        Protocol::Linux64 { zero_page, page_table, gdt, gdt_limit } => {
            segments(&mut sregs, true);
            sregs.gdt.base = gdt;
            sregs.gdt.limit = gdt_limit;
            sregs.cr3 = page_table;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
            regs.rsi = zero_page;
        }
        Protocol::Pvh { start_info } => {
            segments(&mut sregs, false);
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            regs.rbx = start_info;
        }
    }
    fd.set_sregs(&sregs).map_err(failed())?;
    fd.set_regs(&regs).map_err(failed())
}
