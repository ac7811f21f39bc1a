//! A queue whose rings, descriptors and indirect tables lie anywhere in memory of the input's bytes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sbx_fuzz::guest::{Action, Guest};
use sbx_fuzz::probe::Probe;

#[derive(Arbitrary, Debug)]
struct Input {
    features: u64,
    size: u8,
    descriptors: u8,
    available: u8,
    used: u8,
    rounds: u8,
    memory: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let guest = Guest::new(Box::new(Probe));
    guest.negotiate(input.features);
    guest.poke(0, &input.memory);
    let [descriptors, available, used] =
        [input.descriptors, input.available, input.used].map(|place| u16::from(place) * 16);
    guest.set_up(0, 1 << (input.size % 9), descriptors, available, used);
    guest.act(&Action::Ready);
    for _ in 0..input.rounds % 4 + 1 {
        guest.act(&Action::Queue(0));
    }
});
