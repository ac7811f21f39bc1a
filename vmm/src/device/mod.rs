//! The devices, one a file.

pub mod boot_timer;
pub mod console_log;
pub mod i8042;
pub mod power;
pub mod serial;
pub mod block;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod rate;
pub mod rng;
mod segments;
pub mod vsock;
