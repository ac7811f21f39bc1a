//! The devices, one a file.

pub mod block;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod net;
pub mod rate;
pub mod rng;
pub mod tap;
