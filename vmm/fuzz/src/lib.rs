//! What the fuzz targets share: a guest that does to a device whatever the fuzzer says.
//!
//! `cargo +nightly fuzz run TARGET --fuzz-dir vmm/fuzz -- -max_total_time=60`, from the root of the
//! project, with TARGET one of
//!
//! - `device`: any access to the registers and memory of one of the devices in [`devices::DEVICES`];
//! - `queue`: rings, descriptors and indirect tables of nothing but the fuzzer's bytes;
//! - `fuse`: requests to the server of shared directories, well-formed as far as their header goes;
//! - `serial`: the serial port and the log of its output;
//! - `agent`: what the guest's init says to the host, messages out of order and bytes that are none;
//! - `elf`: a file as a kernel, and the preparation of its start;
//! - `bzimage`: a packed kernel, whose header is the fuzzer's as well as what it packs;
//! - `modules`: a kernel's modules, packed or not, and the version of a kernel.
//!
//! A panic, an address error, an allocation beyond libFuzzer's bound (2 GiB) or a run of more than its
//! time is a finding.

pub mod devices;
pub mod file;
pub mod guest;
pub mod probe;
pub mod shared;
