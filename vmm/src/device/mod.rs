//! The devices, one a file.

#[cfg(test)]
mod hostile;
pub mod rng;
