//! The devices, one a file.
