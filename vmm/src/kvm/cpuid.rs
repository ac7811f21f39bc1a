//! What a guest's processors say of themselves: what KVM supports, and the places of the processors.
//!
//! Topology is flat: one package, a core for each processor, no threads (Intel SDM volume 2 CPUID,
//! AMD APM volume 3 appendix E). Nothing is hidden and no model is made up: the guest may use all that
//! this host can give.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::KvmError;

/// Leaf 1, ECX: the LAPIC's timer takes deadlines. KVM does not list it, since it needs its LAPIC.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: EBX tells how many processors the package has.
const HTT: u32 = 1 << 28;

/// The answers of processor `id` of `count`.
pub(super) fn of(kvm: &Kvm, id: u8, count: u8) -> Result<CpuId, KvmError> {
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(KvmError::of("tell the processor's features"))?;
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    for entry in cpuid.as_mut_slice() {
        place(entry, id, count, deadline);
    }
    Ok(cpuid)
}

fn place(entry: &mut kvm_cpuid_entry2, id: u8, count: u8, deadline: bool) {
    let (id, count) = (u32::from(id), u32::from(count));
    // How many bits of an APIC id tell cores apart.
    let bits = count.next_power_of_two().trailing_zeros();
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0xffff | id << 24 | (count.next_power_of_two() & 0xff) << 16;
            entry.ecx |= HYPERVISOR;
            if deadline {
                entry.ecx |= TSC_DEADLINE;
            }
            entry.edx = if count > 1 { entry.edx | HTT } else { entry.edx & !HTT };
        }
        // Caches: who shares one, and cores of the package.
        0x4 => {
            let shared = if (entry.eax >> 5) & 7 >= 3 { (1 << bits) - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14 | ((1 << bits) - 1) << 26;
        }
        0xb | 0x1f => {
            let (shift, processors, level) = match entry.index {
                0 => (0, 1, 1),
                1 => (bits, count, 2),
                _ => (0, 0, 0),
            };
            (entry.eax, entry.ebx, entry.edx) = (shift, processors, id);
            entry.ecx = entry.index & 0xff | level << 8;
        }
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | bits << 12 | (count - 1),
        0x8000_001d => {
            let shared = if (entry.eax >> 5) & 7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14;
        }
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(function: u32, index: u32, id: u8, count: u8) -> kvm_cpuid_entry2 {
        let mut entry = kvm_cpuid_entry2 { function, index, ..Default::default() };
        place(&mut entry, id, count, true);
        entry
    }

    #[test]
    fn each_processor_has_its_place() {
        let one = placed(1, 0, 2, 3);
        assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff), (2, 4));
        assert_ne!(one.edx & HTT, 0);
        assert_eq!(placed(1, 0, 0, 1).edx & HTT, 0);
        let core = placed(0xb, 1, 2, 3);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (2, 3, 0x201, 2));
        assert_eq!(placed(0x8000_0008, 0, 0, 4).ecx, 2 << 12 | 3);
    }

    #[test]
    fn as_many_as_there_can_be() {
        for function in [1, 4, 0xb, 0x8000_0008, 0x8000_001d, 0x8000_001e] {
            placed(function, 0, 254, 255);
        }
    }
}
