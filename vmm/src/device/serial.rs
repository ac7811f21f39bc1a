//! The first serial port of a PC, a 16550A: the kernel's console.
//!
//! Output leaves one byte at a time, as the guest writes it. Input waits in the port's FIFO; what does
//! not fit is the caller's to keep until [`Serial::room`] tells that the guest has taken what there was.
//! So is all that comes before the guest listens: a driver that looks for the port, or opens it, throws
//! away what it finds there.
//!
//! Not here: baud rates, modem lines that change, the FIFO's control register, and input for a guest that
//! polls with its interrupts off. The registers are those of the crate vm-superio.

use rustix::event::{EventfdFlags, eventfd};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::Trigger;
use vm_superio::serial::{Serial as Uart, SerialEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::boot::layout::{SERIAL, SERIAL_IRQ};
use crate::bus::BusDevice;

/// The port's addresses, COM1.
pub const PORTS: Range<u64> = SERIAL as u64..SERIAL as u64 + 8;
/// Its interrupt.
pub const IRQ: u32 = SERIAL_IRQ;

/// What takes the guest's output. An error of its own is its own to keep: the guest cannot help.
pub type Output = Box<dyn FnMut(&[u8]) + Send>;

/// The port.
pub struct Serial {
    uart: Mutex<Uart<Interrupt, Room, Sink>>,
    room: Arc<OwnedFd>,
}

/// A full counter signals too.
fn signal(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        // A full counter interrupts too.
        let _ = self.0.write(1);
        Ok(())
    }
}

struct Room(Arc<OwnedFd>);

impl SerialEvents for Room {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        signal(&self.0);
    }
}

struct Sink(Output);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Serial {
    /// A port whose output goes to `out`; `irq` is signalled once for each interrupt.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new(irq: EventFd, out: Output) -> io::Result<Self> {
        let room = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let events = Room(room.clone());
        let uart = Uart::with_events(Interrupt(irq), events, Sink(out));
        Ok(Self { uart: Mutex::new(uart), room })
    }

    /// Gives input to the guest; returns how many bytes there was room for.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut uart = self.lock();
        if !listens(&mut uart) {
            return 0;
        }
        // The only error that there is says that the FIFO is full.
        uart.enqueue_raw_bytes(bytes).unwrap_or_default()
    }

    /// Signalled when the guest has emptied the FIFO, and when it begins to listen.
    pub fn room(&self) -> BorrowedFd<'_> {
        self.room.as_fd()
    }

    /// Takes note of the signal, before input is given again.
    pub fn look_for_room(&self) {
        let _ = rustix::io::read(&self.room, &mut [0; 8]);
    }

    fn lock(&self) -> MutexGuard<'_, Uart<Interrupt, Room, Sink>> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The interrupt enable register, and its bit for received data.
const IER: u8 = 1;
const RECEIVED: u8 = 1;
/// The line control register, and its bit that has other registers in the place of this and the data's.
const LCR: u8 = 3;
const DIVISOR: u8 = 1 << 7;
/// The modem control register, and its bits for a terminal that is ready, for interrupts that are let through
/// to the processor, and for loopback.
const MCR: u8 = 4;
const READY: u8 = 1;
const LET_THROUGH: u8 = 1 << 3;
const LOOPBACK: u8 = 1 << 4;

/// Whether a driver has opened the port. One that looks for it enables interrupts for a moment too, on a
/// port that the kernel's console has made ready already; but it lets none through.
fn listens(uart: &mut Uart<Interrupt, Room, Sink>) -> bool {
    uart.read(LCR) & DIVISOR == 0
        && uart.read(IER) & RECEIVED != 0
        && uart.read(MCR) & (READY | LET_THROUGH | LOOPBACK) == READY | LET_THROUGH
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // Registers are a byte wide; a wider access is nobody's.
        data.fill(0xff);
        if let ([byte], Ok(register)) = (data, u8::try_from(offset)) {
            *byte = self.lock().read(register);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (&[byte], Ok(register)) = (data, u8::try_from(offset)) {
            let mut uart = self.lock();
            // Neither the interrupt nor the output fail.
            let _ = uart.write(register, byte);
            if matches!(register, IER | LCR | MCR) && listens(&mut uart) {
                signal(&self.room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const DATA: u64 = 0;
    const INTERRUPTS: u64 = IER as u64;
    const MODEM: u64 = MCR as u64;
    const LINE_STATUS: u64 = 5;
    /// More than any FIFO of this kind has.
    const MUCH: [u8; 256] = [b'x'; 256];

    fn port() -> (Serial, EventFd, Arc<Mutex<Vec<u8>>>) {
        let irq = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = written.clone();
        let out = Box::new(move |bytes: &[u8]| out.lock().unwrap().extend_from_slice(bytes));
        (Serial::new(irq.try_clone().unwrap(), out).unwrap(), irq, written)
    }

    fn read(serial: &Serial, register: u64) -> u8 {
        let mut data = [0];
        serial.read(register, &mut data);
        data[0]
    }

    #[test]
    fn output_leaves_in_order() {
        let (serial, irq, written) = port();
        b"hello\n".iter().for_each(|byte| serial.write(DATA, &[*byte]));
        assert_eq!(*written.lock().unwrap(), b"hello\n");
        assert!(irq.read().is_err());
        serial.write(INTERRUPTS, &[2]);
        assert!(irq.read().is_ok());
    }

    #[test]
    fn input_waits_for_room() {
        let (serial, irq, _) = port();
        serial.write(INTERRUPTS, &[RECEIVED]);
        serial.write(MODEM, &[READY | LET_THROUGH]);
        serial.look_for_room();
        let _ = irq.read();
        let taken = serial.input(&MUCH);
        assert!((1..MUCH.len()).contains(&taken));
        assert!(irq.read().is_ok());
        assert_eq!(serial.input(&MUCH), 0);
        for _ in 0..taken {
            assert!(rustix::io::read(serial.room(), &mut [0; 8]).is_err());
            assert_eq!(read(&serial, LINE_STATUS) & 1, 1);
            assert_eq!(read(&serial, DATA), b'x');
        }
        assert!(rustix::io::read(serial.room(), &mut [0; 8]).is_ok());
        assert_eq!(read(&serial, LINE_STATUS) & 1, 0);
        assert_eq!(serial.input(&MUCH), taken);
    }

    /// As Linux does it: the console writes, the registers are tried out, and the port is opened with a
    /// divisor.
    #[test]
    fn input_waits_for_a_driver_that_listens() {
        let (serial, _, _) = port();
        let waits = || {
            assert_eq!(serial.input(b"x"), 0);
            assert!(rustix::io::read(serial.room(), &mut [0; 8]).is_err());
        };
        for (register, value) in [
            (MCR, READY),
            (IER, 0x0f),
            (IER, 0),
            (MCR, LOOPBACK | 0x0a),
            (MCR, LET_THROUGH),
            (IER, RECEIVED),
            (LCR, DIVISOR | 3),
            (MCR, READY | LET_THROUGH),
        ] {
            serial.write(u64::from(register), &[value]);
            waits();
        }
        serial.write(u64::from(LCR), &[3]);
        assert!(rustix::io::read(serial.room(), &mut [0; 8]).is_ok());
        assert_eq!(serial.input(b"x"), 1);
        serial.write(INTERRUPTS, &[0]);
        waits();
    }

    #[test]
    fn loopback_takes_no_input_and_its_end_is_told() {
        let (serial, _, written) = port();
        serial.write(INTERRUPTS, &[RECEIVED]);
        serial.write(MODEM, &[LOOPBACK | READY | LET_THROUGH]);
        assert_eq!(serial.input(b"x"), 0);
        // The guest tests the port, without end: nothing leaves, and nothing grows.
        (0..1000).for_each(|_| serial.write(DATA, b"t"));
        assert!(written.lock().unwrap().is_empty());
        serial.write(MODEM, &[READY | LET_THROUGH]);
        assert!(rustix::io::read(serial.room(), &mut [0; 8]).is_ok());
    }

    #[test]
    fn accesses_of_other_widths_are_nobodys() {
        let (serial, _, written) = port();
        for len in [0, 2, 4, 8] {
            let mut data = vec![0; len];
            serial.read(LINE_STATUS, &mut data);
            assert_eq!(data, vec![0xff; len]);
            serial.write(DATA, &data);
        }
        serial.write(0x1_0000, b"x");
        assert!(written.lock().unwrap().is_empty());
    }
}
