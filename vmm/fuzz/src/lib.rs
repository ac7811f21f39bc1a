//! What the fuzz targets share: a guest that does to a device whatever the fuzzer says.
//!
//! `cargo +nightly fuzz run TARGET --fuzz-dir vmm/fuzz -- -max_total_time=60`, from the root of the
//! project, with TARGET one of
//!
//! - `device`: any access to the registers and memory of one of the devices in [`devices::DEVICES`];
//! - `queue`: rings, descriptors and indirect tables of nothing but the fuzzer's bytes;
//! - `serial`: the serial port and the log of its output.
//!
//! A panic, an address error, an allocation beyond libFuzzer's bound (2 GiB) or a run of more than its
//! time is a finding.

pub mod devices;
pub mod guest;
pub mod probe;
