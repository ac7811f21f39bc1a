//! KVM: the machine's hardware. All `ioctl`s that are `unsafe` are here.
//!
//! [`open`] finds out whether this host's KVM can run a guest, [`Vm`] is one guest's address space and
//! interrupt controllers, and [`vcpu`] its processors, and `machine.rs` builds a whole machine of them.

mod cpuid;
mod machine;
mod regs;
pub mod vcpu;

pub use vcpu::Vcpu;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use std::io;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::GuestMemory;

/// The only version of the interface that was ever stable (KVM_GET_API_VERSION).
const API_VERSION: i32 = 12;

/// Three pages that Intel's KVM needs for itself (KVM_SET_TSS_ADDR), below the end of the 32-bit space.
const TSS: usize = 0xfffb_d000;

/// What a machine needs of KVM beyond its first version.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "interrupt controllers"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::Irqfd, "irqfd"),
    (Cap::UserMemory, "memory slots"),
    (Cap::SetTssAddr, "a place for the TSS"),
    (Cap::ExtCpuid, "CPUID"),
];

/// Why a guest cannot run here, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no /dev/kvm.
    #[error(
        "this host has no /dev/kvm: load the module kvm_intel or kvm_amd (as root), turn \
         virtualization on in the firmware, or on a virtual machine have nested virtualization enabled"
    )]
    Absent,
    /// /dev/kvm is not for this user.
    #[error(
        "/dev/kvm is not open to this user: add the user to its group, usually with \
         'usermod -aG kvm USER', and log in again"
    )]
    NotPermitted,
    /// The processor's virtualization is not there, whatever /dev/kvm says.
    #[error(
        "KVM on this host is not backed by hardware (the processor offers neither VMX nor SVM), and \
         would emulate a guest's kernel thousands of times too slowly; run microVMs on a host that \
         has them"
    )]
    NotHardware,
    /// KVM cannot do something.
    #[error("KVM on this host lacks {0}; a newer kernel is needed")]
    Lacks(&'static str),
    /// An operation failed.
    #[error("KVM refused to {what}: {cause}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
}

impl KvmError {
    /// For the error of an operation described by `what`.
    pub(crate) fn of(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |e| Self::Failed { what, cause: e.into() }
    }
}

/// Whether the processor has what KVM needs to run a guest's kernel natively: VMX or SVM. A
/// paravirtual KVM has neither, and answers every other question as a real one does.
pub fn is_hardware_backed() -> bool {
    use core::arch::x86_64::__cpuid;
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    let extended = __cpuid(0x8000_0000).eax >= 0x8000_0001;
    __cpuid(1).ecx & VMX != 0 || (extended && __cpuid(0x8000_0001).ecx & SVM != 0)
}

/// Opens KVM, if it can run guests here.
///
/// # Errors
/// What is missing, and how to mend it.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = open_any()?;
    if is_hardware_backed() { Ok(kvm) } else { Err(KvmError::NotHardware) }
}

/// Opens KVM, be it backed by hardware or not.
///
/// # Errors
/// What is missing, and how to mend it.
pub fn open_any() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::Absent,
        libc::EACCES | libc::EPERM => KvmError::NotPermitted,
        _ => KvmError::of("open /dev/kvm")(e),
    })?;
    if kvm.get_api_version() != API_VERSION {
        return Err(KvmError::Lacks("the stable interface (version 12)"));
    }
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::Lacks(name)),
        None => Ok(kvm),
    }
}

/// One guest: its memory and interrupt controllers.
pub struct Vm {
    fd: VmFd,
}

impl Vm {
    /// Makes a guest that has `mem`, and the interrupt controllers and timer of a PC in the kernel.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn new(kvm: &Kvm, mem: &GuestMemory) -> Result<Self, KvmError> {
        let fd = kvm.create_vm().map_err(KvmError::of("make a guest"))?;
        let vm = Self { fd };
        vm.map(mem)?;
        vm.fd.set_tss_address(TSS).map_err(KvmError::of("place the TSS"))?;
        vm.fd.create_irq_chip().map_err(KvmError::of("make interrupt controllers"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.fd.create_pit2(pit).map_err(KvmError::of("make a timer"))?;
        Ok(vm)
    }

    #[allow(unsafe_code, reason = "the kernel is told addresses of this process")]
    fn map(&self, mem: &GuestMemory) -> Result<(), KvmError> {
        for (slot, region) in (0..).zip(mem.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: guest memory stays mapped for the life of this process (memory.rs), and the
            // guest ends with it.
            unsafe { self.fd.set_user_memory_region(region) }
                .map_err(KvmError::of("map guest memory"))?;
        }
        Ok(())
    }

    /// Has `event` raise interrupt `irq` of the guest.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn irqfd(&self, event: &EventFd, irq: u32) -> Result<(), KvmError> {
        self.fd.register_irqfd(event, irq).map_err(KvmError::of("connect an interrupt"))
    }

    /// Has a 4-byte write of `value` to the guest's address signal `event`, without leaving the kernel.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn ioeventfd(&self, event: &EventFd, address: u64, value: u32) -> Result<(), KvmError> {
        let address = IoEventAddress::Mmio(address);
        self.fd.register_ioevent(event, &address, value).map_err(KvmError::of("connect a queue"))
    }

    /// Makes processor `id` of `count`; see [`Vcpu`].
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn vcpu(&self, kvm: &Kvm, id: u8, count: u8) -> Result<Vcpu, KvmError> {
        let fd = self.fd.create_vcpu(u64::from(id)).map_err(KvmError::of("make a processor"))?;
        Vcpu::new(kvm, fd, id, count)
    }
}
