//! The devices, one a file.

pub mod balloon;
pub mod block;
pub mod boot_timer;
#[cfg(test)]
pub(crate) mod busy;
pub mod console;
pub mod console_log;
pub mod fs;
#[cfg(test)]
mod hostile;
pub mod i8042;
pub mod image;
pub mod net;
pub mod power;
pub mod rate;
pub mod rng;
mod segments;
pub mod serial;
pub mod tap;
pub mod vsock;
