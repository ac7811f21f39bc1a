//! The devices, one a file.

pub mod balloon;
pub mod boot_timer;
pub mod console_log;
pub mod i8042;
pub mod power;
pub mod serial;
pub mod block;
pub mod console;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod net;
pub mod rate;
pub mod rng;
pub mod tap;
pub mod vsock;
pub mod fs;
