//! What the host and the guest's init say to each other.
#![forbid(unsafe_code)]
