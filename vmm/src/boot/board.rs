//! What the hardware around a guest's processors looks like, as far as those who execute machines differ
//! in it: where the memory has its hole, and what the ACPI tables name.
//!
//! Everything else is the same on each and in [`layout`].

use super::acpi::Transport;
use super::layout;

/// A register of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// At this I/O port.
    Port(u16),
    /// At this guest address.
    Memory(u64),
}

/// An I/O interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// The guest address of its registers.
    pub address: u32,
    /// The first interrupt that is its.
    pub first: u32,
}

/// One kind of board.
#[derive(Debug)]
pub struct Board {
    /// The most memory below 4 GiB, in bytes; the rest is at [`layout::HIGH`].
    pub low_memory: u64,
    /// The guest address of the first virtio device's registers.
    pub transports: u32,
    /// How much address space each has, in bytes.
    pub transport_size: u32,
    /// The first virtio device's interrupt; the others' follow.
    pub first_irq: u32,
    /// Whether their interrupts are edges; else they are levels.
    pub edges: bool,
    /// The I/O interrupt controllers.
    pub io_apics: &'static [IoApic],
    /// What resets the machine when [`Self::reset_value`] is written to it.
    pub reset: Register,
    /// See [`Self::reset`].
    pub reset_value: u8,
    /// ACPI's sleep control and sleep status registers (ACPI 6.5, 4.8.3.7).
    pub sleep: [Register; 2],
    /// Whether there is a clock chip (MC146818) that tells a kernel the time.
    pub clock_chip: bool,
    /// What the kernel is told of this board in words.
    pub cmdline: &'static str,
}

/// sbx's own devices, around KVM's processors. Its clock is KVM's.
pub static KVM: Board = Board {
    low_memory: layout::MMIO,
    transports: layout::MMIO as u32,
    transport_size: 0x1000,
    first_irq: 5,
    edges: true,
    io_apics: &[IoApic { address: layout::IO_APIC, first: 0 }],
    reset: Register::Port(layout::KEYBOARD_COMMAND),
    reset_value: layout::RESET,
    sleep: [Register::Port(layout::SLEEP_CONTROL), Register::Port(layout::SLEEP_STATUS)],
    clock_chip: false,
    cmdline: "reboot=k",
};

/// QEMU's `microvm` with a second I/O interrupt controller (its include/hw/i386/microvm.h and
/// hw/acpi/generic_event_device.h). The first place on its virtio bus stays empty: QEMU takes the first pin
/// of any I/O interrupt controller for ISA's timer, and raises another. Emulated processors speculate nothing
/// that had to be mitigated.
pub static MICROVM: Board = Board {
    low_memory: 0xc000_0000,
    transports: 0xfeb0_0200,
    transport_size: 0x200,
    first_irq: 25,
    edges: false,
    io_apics: &[
        IoApic { address: layout::IO_APIC, first: 0 },
        IoApic { address: layout::IO_APIC + 0x1_0000, first: 24 },
    ],
    reset: Register::Memory(0xfea0_0202),
    reset_value: 0x42,
    sleep: [Register::Memory(0xfea0_0200), Register::Memory(0xfea0_0201)],
    clock_chip: true,
    cmdline: "reboot=a mitigations=off",
};

impl Board {
    /// The ranges of guest memory, as start and length, that `bytes` of memory make. Part of a page at
    /// the end is left out.
    pub fn ram_ranges(&self, bytes: u64) -> Vec<(u64, u64)> {
        let bytes = bytes / layout::PAGE * layout::PAGE;
        let low = bytes.min(self.low_memory);
        let mut ranges = vec![(0, low)];
        if bytes > low {
            ranges.push((layout::HIGH, bytes - low));
        }
        ranges
    }

    /// Where virtio device `index` is, if there can be one of that index.
    pub fn transport(&self, index: usize) -> Option<Transport> {
        let index = u32::try_from(index).ok().filter(|i| (*i as usize) < layout::MAX_TRANSPORTS)?;
        let (address, irq) =
            (self.transports + index * self.transport_size, self.first_irq + index);
        Some(Transport { address, len: self.transport_size, irq, edges: self.edges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_room_for_devices() {
        assert_eq!(KVM.ram_ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(KVM.ram_ranges((1 << 20) + 5), [(0, 1 << 20)]);
        for board in [&KVM, &MICROVM] {
            let low = board.low_memory;
            assert_eq!(board.ram_ranges(low), [(0, low)]);
            assert_eq!(board.ram_ranges(4 << 30), [(0, low), (layout::HIGH, (4 << 30) - low)]);
        }
    }

    #[test]
    fn no_transport_reaches_the_interrupt_controllers() {
        for board in [&KVM, &MICROVM] {
            assert_eq!(board.transport(0).unwrap().address, board.transports);
            let last = board.transport(layout::MAX_TRANSPORTS - 1).unwrap();
            assert!(last.address + last.len <= layout::IO_APIC);
            assert_eq!(board.transport(layout::MAX_TRANSPORTS), None);
        }
    }
}
