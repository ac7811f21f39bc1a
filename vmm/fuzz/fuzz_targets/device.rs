//! One device, chosen by the input, and a guest that does anything to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbx_fuzz::devices::DEVICES;
use sbx_fuzz::guest::{Action, Guest};

fuzz_target!(|input: (u8, Vec<Action>)| {
    let (device, actions) = input;
    let guest = Guest::new(DEVICES[usize::from(device) % DEVICES.len()]());
    // What a proper driver would begin with; the fuzzer may undo it.
    guest.act(&Action::Negotiate(u64::MAX));
    (0..8).for_each(|index| guest.act(&Action::SetUp(index)));
    guest.act(&Action::Ready);
    actions.iter().for_each(|action| guest.act(action));
});
