//! A guest's processor: made ready, then run by a thread of its own until the machine ends.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, Msrs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};

use super::{KvmError, cpuid, regs};
use crate::boot::Entry;
use crate::bus::Bus;
use crate::end::{Cause, End};

/// IA32_MISC_ENABLE, and its bit for fast string operations, which the firmware would turn on.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
/// IA32_MTRR_DEF_TYPE: memory types are on, and write-back for all that has no other.
const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);

/// Offsets of the LAPIC's registers for its two pins, and their delivery modes (Intel SDM volume 3,
/// 11.5.1): the PIC's interrupts on one, non-maskable ones on the other, as a firmware leaves them.
const LVT_LINT0: (usize, u32) = (0x350, 7 << 8);
const LVT_LINT1: (usize, u32) = (0x360, 4 << 8);

/// A processor.
pub struct Vcpu {
    fd: VcpuFd,
}

/// The address spaces that a processor reaches devices by.
#[derive(Clone, Copy)]
pub struct Buses<'a> {
    /// Port I/O.
    pub ports: &'a Bus,
    /// Memory-mapped I/O.
    pub mmio: &'a Bus,
}

impl Vcpu {
    pub(super) fn new(kvm: &Kvm, fd: VcpuFd, id: u8, count: u8) -> Result<Self, KvmError> {
        let cpuid = cpuid::of(kvm, id, count)?;
        fd.set_cpuid2(&cpuid).map_err(KvmError::of("set a processor's features"))?;
        let entry = |(index, data)| kvm_msr_entry { index, data, ..Default::default() };
        let msrs = [entry(MISC_ENABLE), entry(MTRR_DEF_TYPE)];
        let msrs = Msrs::from_entries(&msrs)
            .map_err(|_| KvmError::Lacks("room for a processor's settings"))?;
        // One that the host's processor does not have stays unset, as it is there.
        fd.set_msrs(&msrs).map_err(KvmError::of("set a processor's registers"))?;
        let mut lapic = fd.get_lapic().map_err(KvmError::of("read an interrupt controller"))?;
        for (offset, mode) in [LVT_LINT0, LVT_LINT1] {
            set_delivery_mode(&mut lapic, offset, mode);
        }
        fd.set_lapic(&lapic).map_err(KvmError::of("set an interrupt controller"))?;
        Ok(Self { fd })
    }

    /// Has the processor begin at `entry`; all others wait until it wakes them.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn start_at(&self, entry: &Entry) -> Result<(), KvmError> {
        regs::set(&self.fd, entry)?;
        let runnable = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
        self.fd.set_mp_state(runnable).map_err(KvmError::of("start a processor"))
    }

    /// Runs the processor until the machine ends; `end` has the cause then.
    pub fn run(mut self, buses: Buses<'_>, end: &End) {
        while end.cause().is_none() {
            if let Some(cause) = self.step(buses) {
                end.set(cause);
            }
        }
    }

    /// Runs until the guest needs something that KVM does not do itself, and does that.
    fn step(&mut self, buses: Buses<'_>) -> Option<Cause> {
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => buses.ports.write(u64::from(port), data),
            Ok(VcpuExit::IoIn(port, data)) => buses.ports.read(u64::from(port), data),
            Ok(VcpuExit::MmioWrite(address, data)) => buses.mmio.write(address, data),
            Ok(VcpuExit::MmioRead(address, data)) => buses.mmio.read(address, data),
            Ok(VcpuExit::Shutdown) => return Some(Cause::TripleFault),
            Ok(VcpuExit::InternalError) => return Some(Cause::Kvm(self.internal_error())),
            Ok(VcpuExit::FailEntry(reason, processor)) => {
                return Some(Cause::Kvm(format!(
                    "the processor refused to enter the guest (reason {reason:#x} on host processor \
                     {processor})"
                )));
            }
            Ok(VcpuExit::SystemEvent(kind, _)) => return Some(system_event(kind)),
            Ok(VcpuExit::Intr) => {}
            Ok(other) => return Some(Cause::Kvm(format!("an exit nobody asked for: {other:?}"))),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(e) => return Some(Cause::Kvm(format!("running the processor failed: {e}"))),
        }
        None
    }

    #[allow(unsafe_code, reason = "the kernel's answer is a union")]
    fn internal_error(&mut self) -> String {
        // SAFETY: the last exit was KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this member;
        // any bits are valid numbers.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal }.suberror;
        let rip = self.fd.get_regs().map(|regs| regs.rip).unwrap_or_default();
        match suberror {
            1 => format!("it could not emulate the guest's instruction at {rip:#x}"),
            2 => format!("two exceptions met at {rip:#x}"),
            3 => format!("an event was lost at {rip:#x}"),
            other => format!("an internal error (suberror {other}) at {rip:#x}"),
        }
    }
}

fn system_event(kind: u32) -> Cause {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Cause::PowerOff,
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => Cause::Reset,
        other => Cause::Kvm(format!("the system event {other}")),
    }
}

/// Changes bits 8 to 10 of a LAPIC register.
fn set_delivery_mode(lapic: &mut kvm_lapic_state, offset: usize, mode: u32) {
    let mut bytes = [0; 4];
    for (byte, reg) in bytes.iter_mut().zip(&lapic.regs[offset..]) {
        *byte = reg.cast_unsigned();
    }
    let value = u32::from_le_bytes(bytes) & !(7 << 8) | mode;
    for (reg, byte) in lapic.regs[offset..].iter_mut().zip(value.to_le_bytes()) {
        *reg = byte.cast_signed();
    }
}
