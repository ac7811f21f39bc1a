//! The devices, one a file.

pub mod block;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod rate;
pub mod rng;
mod segments;
