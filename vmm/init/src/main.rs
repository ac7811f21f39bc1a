//! The guest's first process (see the library), as a program without a C library.
//!
//! It does without one because that is most of what starting a program costs in a virtual machine: the
//! size that has to be unpacked and touched, and the many `cpuid` instructions of its start, each of which
//! leaves the guest.
#![no_std]
#![no_main]

extern crate alloc;

mod start;
