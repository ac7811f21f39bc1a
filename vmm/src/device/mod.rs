//! The devices, one a file.

pub mod balloon;
pub mod block;
pub mod console;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod net;
pub mod rate;
pub mod rng;
pub mod tap;
