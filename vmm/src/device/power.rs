//! How a guest turns itself off: the sleep control and status registers of hardware-reduced ACPI (ACPI
//! 6.5, section 4.8.3.7), which the FADT names.
//!
//! The only sleep is S5, soft off. Not here: the fixed hardware of a full ACPI (no PM1 blocks, no power
//! button), and sleeping with memory kept.

use std::sync::Arc;

use crate::boot::layout::POWER_OFF;
use crate::bus::BusDevice;
use crate::end::{Cause, End};

/// Bytes of address space: the control register, then the status register.
pub const SIZE: u64 = 2;

const CONTROL: u64 = 0;
/// What counts in the control register: the sleep's type, and go.
const MASK: u8 = 0b111 << 2 | 1 << 5;

/// The registers.
pub struct Power {
    end: Arc<End>,
}

impl Power {
    /// Registers that end the machine.
    pub fn new(end: Arc<End>) -> Self {
        Self { end }
    }
}

impl BusDevice for Power {
    /// The guest never woke up, and wants to go nowhere.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (CONTROL, &[value]) = (offset, data)
            && value & MASK == POWER_OFF
        {
            self.end.set(Cause::PowerOff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_soft_off_ends_the_machine() {
        let end = Arc::new(End::new().unwrap());
        let power = Power::new(end.clone());
        let others = (0..=u8::MAX).filter(|value| value & 0b11_1100 != POWER_OFF);
        others.for_each(|value| power.write(CONTROL, &[value]));
        power.write(1, &[POWER_OFF]);
        power.write(CONTROL, &[]);
        power.write(CONTROL, &[POWER_OFF, 0]);
        assert_eq!(end.cause(), None);
        let mut data = [0xff; 2];
        power.read(0, &mut data);
        assert_eq!(data, [0, 0]);
        // Other bits are reserved, and ignored.
        power.write(CONTROL, &[POWER_OFF | 0xc3]);
        assert_eq!(end.cause(), Some(&Cause::PowerOff));
        assert!(rustix::io::read(end.file(), &mut [0; 8]).is_ok());
    }
}
