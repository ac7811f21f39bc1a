//! The ACPI tables: what a stock kernel learns of processors, interrupts and devices from.
//!
//! The machine is a hardware-reduced one (ACPI 6.5, 4.1): no power-management timer, no SCI, no legacy
//! interrupt controller or timer that a kernel would look for or wait on. What is there:
//!
//! - RSDP and XSDT, which lead to the rest;
//! - FADT: how to reset and to switch off (the sleep registers), and that there is no VGA adapter, and
//!   on most boards no clock chip, to look for;
//! - MADT: the processors and the I/O interrupt controllers. ISA's interrupts need no overrides: each
//!   device below names its own;
//! - DSDT: one `LNRO0005` device per virtio transport, the serial port, and `_S5`. It holds data only:
//!   no methods, so that a kernel's interpreter has next to nothing to do.
//!
//! There are no power buttons, no processor objects, no NUMA, no PCI and no hot-plug.

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};

use super::board::{Board, Register};
use super::layout;

const OEM: [u8; 6] = *b"SBX   ";
const OEM_TABLE: [u8; 8] = *b"SBXVM   ";
const OEM_REVISION: u32 = 1;
/// The length of a table's header.
const HEADER: u32 = 36;
/// Where each table begins: at a multiple of this.
const ALIGNMENT: usize = 16;
/// FADT, IA-PC boot architecture flags (ACPI 6.5, table 5.10).
const HAS_KEYBOARD_CONTROLLER: u16 = 1 << 1;
const NO_VGA: u16 = 1 << 2;
const NO_MSI: u16 = 1 << 3;
const NO_CLOCK_CHIP: u16 = 1 << 5;

/// A virtio device's registers and interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The guest address of its registers.
    pub address: u32,
    /// Their length in bytes.
    pub len: u32,
    /// Its interrupt.
    pub irq: u32,
    /// Whether that is triggered by its edge; else by its level.
    pub edges: bool,
}

/// What the tables tell of.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The hardware that is always there.
    pub board: &'a Board,
    /// How many processors there are; their interrupt controllers are numbered from 0.
    pub cpus: u8,
    /// The virtio devices, in the order in which a kernel will find them.
    pub transports: &'a [Transport],
    /// Whether there is a PS/2 keyboard, by which a guest can be sent Ctrl-Alt-Del. Without one, a
    /// kernel does not look for it, which saves time. The machine can be reset either way.
    pub keyboard: bool,
}

/// Makes the tables, which belong at [`layout::ACPI`], the RSDP first. `None` if there is not enough
/// room for them, or there are more than [`layout::MAX_TRANSPORTS`] devices.
pub fn tables(machine: &Machine<'_>) -> Option<Vec<u8>> {
    if machine.transports.len() > layout::MAX_TRANSPORTS {
        return None;
    }
    let mut tables = vec![0; Rsdp::len()];
    let dsdt = append(&mut tables, dsdt(machine).as_slice());
    let fadt = append(&mut tables, &bytes(&fadt(machine, dsdt)));
    let madt = append(&mut tables, &bytes(&madt(machine)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = append(&mut tables, &bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    tables[..rsdp.len()].copy_from_slice(&rsdp);
    (tables.len() as u64 <= layout::ACPI_END - layout::ACPI).then_some(tables)
}

/// Adds a table to the others, and returns its guest address.
fn append(tables: &mut Vec<u8>, table: &[u8]) -> u64 {
    tables.resize(tables.len().next_multiple_of(ALIGNMENT), 0);
    let address = layout::ACPI + tables.len() as u64;
    tables.extend_from_slice(table);
    address
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn generic_address(register: Register) -> GAS {
    let (space, address) = match register {
        Register::Port(port) => (AddressSpace::SystemIo, port.into()),
        Register::Memory(address) => (AddressSpace::SystemMemory, address),
    };
    GAS::new(space, 8, 0, AccessSize::ByteAccess, address)
}

fn fadt(machine: &Machine<'_>, dsdt: u64) -> impl Aml {
    let keyboard = if machine.keyboard { HAS_KEYBOARD_CONTROLLER } else { 0 };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        // These two say that there are no such buttons at fixed places.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    let board = machine.board;
    let clock = if board.clock_chip { 0 } else { NO_CLOCK_CHIP };
    fadt.iapc_boot_arch = (keyboard | NO_VGA | NO_MSI | clock).into();
    fadt.reset_reg = generic_address(board.reset);
    fadt.reset_value = board.reset_value;
    let [control, status] = board.sleep;
    fadt.sleep_control_reg = generic_address(control);
    fadt.sleep_status_reg = generic_address(status);
    fadt.finalize()
}

fn madt(machine: &Machine<'_>) -> MADT {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for cpu in 0..machine.cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    for (id, io_apic) in (0..).zip(machine.board.io_apics) {
        madt.add_structure(IoApic::new(id, io_apic.address, io_apic.first));
    }
    madt
}

fn dsdt(machine: &Machine<'_>) -> Sdt {
    let mut devices = serial();
    if machine.keyboard {
        devices.extend(keyboard());
    }
    for (index, transport) in machine.transports.iter().enumerate() {
        devices.extend(virtio(index, transport));
    }
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, 2, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&aml::Scope::raw("_SB_".into(), devices));
    let off = &layout::SLEEP_TYPE_OFF;
    let off = aml::Package::new(vec![off, off, &aml::ZERO, &aml::ZERO]);
    dsdt.append_slice(&bytes(&aml::Name::new("_S5_".into(), &off)));
    dsdt
}

/// An active-high interrupt that nobody shares.
fn interrupt(irq: u32, edges: bool) -> aml::Interrupt {
    aml::Interrupt::new(true, edges, false, false, irq)
}

fn io(port: u16, len: u8) -> aml::IO {
    aml::IO::new(port, port, 1, len)
}

/// A device with its identification, number and resources.
fn device(name: &str, id: &dyn Aml, number: u16, resources: Vec<&dyn Aml>) -> Vec<u8> {
    let id = aml::Name::new("_HID".into(), id);
    let number = aml::Name::new("_UID".into(), &number);
    let resources = aml::ResourceTemplate::new(resources);
    let resources = aml::Name::new("_CRS".into(), &resources);
    bytes(&aml::Device::new(name.into(), vec![&id, &number, &resources]))
}

fn serial() -> Vec<u8> {
    let (ports, irq) = (io(layout::SERIAL, 8), interrupt(layout::SERIAL_IRQ, true));
    device("COM1", &aml::EISAName::new("PNP0501"), 0, vec![&ports, &irq])
}

fn keyboard() -> Vec<u8> {
    let (data, command) = (io(layout::KEYBOARD_DATA, 1), io(layout::KEYBOARD_COMMAND, 1));
    let irq = interrupt(layout::KEYBOARD_IRQ, true);
    device("PS2K", &aml::EISAName::new("PNP0303"), 0, vec![&data, &command, &irq])
}

/// A virtio-mmio transport, as Linux' `virtio_mmio` finds it.
fn virtio(index: usize, transport: &Transport) -> Vec<u8> {
    let registers = aml::Memory32Fixed::new(true, transport.address, transport.len);
    let irq = interrupt(transport.irq, transport.edges);
    let number = u16::try_from(index).unwrap_or(u16::MAX);
    device(&format!("V{number:03X}"), &"LNRO0005", number, vec![&registers, &irq])
}

#[cfg(test)]
mod tests {
    use super::super::board::{KVM, MICROVM};
    use super::*;

    const MACHINE: Machine<'_> = Machine {
        board: &KVM,
        cpus: 3,
        transports: &[
            Transport { address: 0xd000_0000, len: 0x1000, irq: 5, edges: true },
            Transport { address: 0xd000_1000, len: 0x1000, irq: 6, edges: true },
        ],
        keyboard: true,
    };

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(*bytes[offset..].first_chunk().unwrap())
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(*bytes[offset..].first_chunk().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
    }

    fn count(bytes: &[u8], part: &[u8]) -> usize {
        bytes.windows(part.len()).filter(|w| *w == part).count()
    }

    /// The table at a guest address, whose length and checksum are right.
    fn table(tables: &[u8], address: u64, signature: &[u8; 4]) -> Vec<u8> {
        let table = &tables[(address - layout::ACPI) as usize..];
        assert_eq!(&table[..4], signature);
        let table = &table[..u32_at(table, 4) as usize];
        assert_eq!(sum(table), 0);
        table.to_vec()
    }

    fn all(machine: &Machine<'_>) -> [Vec<u8>; 3] {
        let tables = tables(machine).unwrap();
        assert_eq!(&tables[..8], b"RSD PTR ");
        assert_eq!([sum(&tables[..20]), sum(&tables[..36])], [0, 0]);
        let xsdt = table(&tables, u64_at(&tables, 24), b"XSDT");
        assert_eq!(xsdt.len(), 36 + 2 * 8);
        let fadt = table(&tables, u64_at(&xsdt, 36), b"FACP");
        let madt = table(&tables, u64_at(&xsdt, 44), b"APIC");
        let dsdt = table(&tables, u64_at(&fadt, 140), b"DSDT");
        [fadt, madt, dsdt]
    }

    #[test]
    fn every_table_is_reached_and_sound() {
        let [fadt, madt, dsdt] = all(&MACHINE);
        assert_eq!(fadt.len(), 276);
        assert_eq!(fadt[128], layout::RESET);
        assert_eq!(u32_at(&fadt, 112) & (1 << 20), 1 << 20, "hardware-reduced");
        // Sleep control: I/O space, eight bits wide.
        assert_eq!(fadt[244..248], [1, 8, 0, 1]);
        assert_eq!(u64_at(&fadt, 248), u64::from(layout::SLEEP_CONTROL));
        assert_eq!(madt.len(), 44 + 3 * 8 + 12);
        assert_eq!(u32_at(&madt, 36), layout::LOCAL_APIC);
        assert_eq!(count(&dsdt, b"LNRO0005"), 2);
        assert_eq!(count(&dsdt, &0xd000_1000u32.to_le_bytes()), 1);
        // _S5 is a package of four, of which the first two are the type of sleep.
        assert_eq!(count(&dsdt, b"_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"), 1);
    }

    #[test]
    fn a_board_is_told_of_as_it_is() {
        let [fadt, madt, _] = all(&Machine { board: &MICROVM, ..MACHINE });
        // Sleep control and reset: memory, eight bits wide.
        assert_eq!(fadt[244..248], [0, 8, 0, 1]);
        assert_eq!(u64_at(&fadt, 248), 0xfea0_0200);
        assert_eq!((u64_at(&fadt, 120), fadt[128]), (0xfea0_0202, 0x42));
        assert_eq!(fadt[109] & (NO_CLOCK_CHIP as u8), 0);
        assert_eq!(madt.len(), 44 + 3 * 8 + 2 * 12);
        assert_eq!(u32_at(&madt, madt.len() - 4), 24, "the second's first interrupt");
    }

    #[test]
    fn a_keyboard_is_told_of_only_if_there_is_one() {
        let with = all(&MACHINE);
        let without = all(&Machine { keyboard: false, ..MACHINE });
        let keyboards = [&with, &without].map(|t| (count(&t[2], b"PS2K"), t[0][109] & 2));
        assert_eq!(keyboards, [(1, 2), (0, 0)]);
    }

    #[test]
    fn the_largest_machine_has_room_and_none_larger() {
        let transports: Vec<_> = (0..=layout::MAX_TRANSPORTS)
            .map(|i| Transport { address: 0xd000_0000 + 4096 * i as u32, ..MACHINE.transports[0] })
            .collect();
        let largest =
            Machine { board: &MICROVM, cpus: 254, transports: &transports[1..], keyboard: true };
        assert_eq!(count(&all(&largest)[2], b"LNRO0005"), layout::MAX_TRANSPORTS);
        assert!(tables(&Machine { transports: &transports, ..largest }).is_none());
    }
}
