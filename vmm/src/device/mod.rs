//! The devices, one a file.
pub mod fs;
