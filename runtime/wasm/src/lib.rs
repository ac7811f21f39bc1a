//! The WebAssembly backend: a WASI program in a wasmtime sandbox, in a process of its own.
//!
//! How a workload comes to run:
//!
//! 1. [`program`] finds its machine code: in sbx's cache, or by having [`compile`] make it in a
//!    separate process, after [`form`] has said what the file is.
//! 2. [`preview1`] (core modules) or [`preview2`] (components) links exactly what it imports.
//! 3. [`backend`] forks a process, which instantiates and runs it there.
//!
//! What it may do is decided in few places: [`memory`] (memory and tables), [`sbx_core::quota`] (disk),
//! [`stdio`] (output), [`network`], and wasmtime-wasi's own file-system code below [`volumes`].
//!
//! Not here: threads, WASI preview 3, wasi-http and wasi-nn. This is the only crate that names
//! wasmtime.

mod backend;
pub mod compile;
mod engine;
pub mod explain;
pub mod form;
mod invoke;
mod memory;
mod network;
mod notes;
mod preview1;
mod preview2;
pub mod program;
mod seccomp;
mod stdio;
mod volumes;

pub use backend::WasmBackend;
pub use compile::{CompileLimits, Progress};

/// Whether WebAssembly code can run on this host at all.
///
/// # Errors
/// Why it cannot.
pub fn can_run() -> sbx_core::Result<()> {
    engine::runner(engine::Variant { fuel: false }).map(drop)
}
