//! The keyboard controller of a PC, as far as a guest needs one to reset itself by it: Linux with
//! `reboot=k` pulses its reset line, in a panic too.
//!
//! There is no keyboard and no mouse. What a kernel asks before it knows that (the self-test, the ports'
//! tests, the configuration byte) is answered at once, lest it wait; every byte for a device that is not
//! there is answered with "resend".

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::boot::layout::{KEYBOARD_COMMAND, KEYBOARD_DATA, RESET};
use crate::bus::BusDevice;
use crate::end::{Cause, End};

/// The addresses: of data and, at the end, of status and commands. Between them are others' (a speaker).
pub const PORTS: Range<u64> = KEYBOARD_DATA as u64..KEYBOARD_COMMAND as u64 + 1;

const DATA: u64 = 0;
const COMMAND: u64 = (KEYBOARD_COMMAND - KEYBOARD_DATA) as u64;

/// In the status: a byte waits to be read; the controller has finished its self-test. That no byte of
/// the guest's waits to be taken is always so.
const OUTPUT_FULL: u8 = 1 << 0;
const SYSTEM: u8 = 1 << 2;

/// Commands, and their answers.
const READ_CONFIG: u8 = 0x20;
const WRITE_CONFIG: u8 = 0x60;
const DISABLE_AUX: u8 = 0xa7;
const TEST_AUX: u8 = 0xa9;
const SELF_TEST: u8 = 0xaa;
const TEST_KEYBOARD: u8 = 0xab;
const WRITE_AUX: u8 = 0xd4;
const SELF_TEST_PASSED: u8 = 0x55;
const PORT_PASSED: u8 = 0;
/// Neither the clock nor the data line moves: nobody is there.
const PORT_FAILED: u8 = 0xff;
const RESEND: u8 = 0xfe;

/// In the configuration: translation, and the auxiliary port off.
const CONFIG: u8 = 1 << 6 | 1 << 5;

/// The controller.
pub struct I8042 {
    end: Arc<End>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    config: Option<u8>,
    /// What the guest has not read yet: a second answer replaces the first.
    output: Option<u8>,
    /// What the next byte of data is for.
    pending: u8,
}

impl I8042 {
    /// A controller whose reset line ends the machine.
    pub fn new(end: Arc<End>) -> Self {
        Self { end, state: Mutex::default() }
    }
}

impl State {
    fn command(&mut self, command: u8) {
        self.pending = command;
        match command {
            READ_CONFIG => self.output = Some(self.config.unwrap_or(CONFIG)),
            SELF_TEST => self.output = Some(SELF_TEST_PASSED),
            TEST_KEYBOARD => self.output = Some(PORT_PASSED),
            TEST_AUX => self.output = Some(PORT_FAILED),
            DISABLE_AUX => self.config = Some(self.config.unwrap_or(CONFIG) | CONFIG),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match std::mem::take(&mut self.pending) {
            WRITE_CONFIG => self.config = Some(value),
            WRITE_AUX => {}
            _ => self.output = Some(RESEND),
        }
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let [byte] = data else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            DATA => *byte = state.output.take().unwrap_or(0),
            COMMAND => *byte = SYSTEM | if state.output.is_some() { OUTPUT_FULL } else { 0 },
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[byte] = data else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (offset, byte) {
            (COMMAND, RESET) => self.end.set(Cause::Reset),
            (COMMAND, _) => state.command(byte),
            (DATA, _) => state.data(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> (I8042, Arc<End>) {
        let end = Arc::new(End::new().unwrap());
        (I8042::new(end.clone()), end)
    }

    fn read(device: &I8042, offset: u64) -> u8 {
        let mut data = [0];
        device.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn only_the_reset_line_ends_the_machine() {
        let (device, end) = controller();
        (0..=u8::MAX).for_each(|value| device.write(DATA, &[value]));
        (0..RESET).for_each(|value| device.write(COMMAND, &[value]));
        (1..COMMAND).for_each(|offset| device.write(offset, &[RESET]));
        device.write(COMMAND, &[RESET, RESET]);
        assert_eq!(end.cause(), None);
        device.write(COMMAND, &[RESET]);
        assert_eq!(end.cause(), Some(&Cause::Reset));
    }

    #[test]
    fn a_probe_is_answered_at_once() {
        let (device, _) = controller();
        let ask = |command: u8| {
            device.write(COMMAND, &[command]);
            assert_eq!(read(&device, COMMAND), SYSTEM | OUTPUT_FULL, "{command:#x}");
            let answer = read(&device, DATA);
            assert_eq!(read(&device, COMMAND), SYSTEM, "{command:#x}");
            answer
        };
        assert_eq!(ask(SELF_TEST), SELF_TEST_PASSED);
        assert_eq!(ask(TEST_KEYBOARD), PORT_PASSED);
        assert_eq!(ask(READ_CONFIG), CONFIG);
        device.write(COMMAND, &[WRITE_CONFIG]);
        device.write(DATA, &[0x41]);
        assert_eq!(ask(READ_CONFIG), 0x41);
        // A keyboard that is not there is asked to identify itself.
        device.write(DATA, &[0xf2]);
        assert_eq!(read(&device, COMMAND), SYSTEM | OUTPUT_FULL);
        assert_eq!(read(&device, DATA), RESEND);
    }

    #[test]
    fn the_ports_between_are_nobodys() {
        let (device, _) = controller();
        assert_eq!([1, 2, 3].map(|offset| read(&device, offset)), [0xff; 3]);
        let mut data = [0; 4];
        device.read(COMMAND, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
