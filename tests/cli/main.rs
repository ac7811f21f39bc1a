//! What a user of the command line sees: the sentences for every kind of bad input, what commands
//! print, the cache of compiled code, terminals, and what is left when sbx is killed.
//!
//! One file a subject. What a sandbox promises its limits to be is in `tests/conformance`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod bad_files;
mod bad_input;
mod cache;
mod compile_limits;
mod doctor;
mod explain;
mod full_disk;
mod help;
mod kept;
mod kept_crashes;
mod kept_events;
mod kept_logs;
mod kept_stats;
mod lifecycle;
mod pages;
mod policy;
mod tty;
mod vm_input;
