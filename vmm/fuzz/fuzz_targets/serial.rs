//! The serial port: any access by the guest, any input from the host, and the log of what it writes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sbx_vmm::bus::BusDevice;
use sbx_vmm::device::console_log::{ConsoleLog, LINE, LINES};
use sbx_vmm::device::serial::Serial;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

#[derive(Arbitrary, Debug)]
enum Action {
    Read(u8, u8),
    Write(u8, Vec<u8>),
    Output(Vec<u8>),
    Input(Vec<u8>),
}

/// No FIFO of this kind has more.
const FIFO: usize = 64;

fuzz_target!(|actions: Vec<Action>| {
    let log = Arc::new(Mutex::new(ConsoleLog::default()));
    let out = log.clone();
    let out = Box::new(move |bytes: &[u8]| out.lock().expect("the log").write(bytes));
    let irq = EventFd::new(EFD_NONBLOCK).expect("an event");
    let serial = Serial::new(irq, out).expect("a port");
    for action in &actions {
        match action {
            Action::Read(offset, len) => {
                serial.read(u64::from(*offset), &mut [0; 255][..usize::from(*len)]);
            }
            Action::Write(offset, bytes) => serial.write(u64::from(*offset), bytes),
            Action::Output(bytes) => bytes.iter().for_each(|byte| serial.write(0, &[*byte])),
            Action::Input(bytes) => assert!(serial.input(bytes) <= bytes.len().min(FIFO)),
        }
    }
    let log = log.lock().expect("the log");
    assert!(log.lines().len() <= LINES + 1);
    assert!(log.lines().iter().all(|line| line.len() <= 3 * LINE));
    let _ = log.panic();
});
