//! [`sbx_core::Limits`] applied to an operating-system process, and the process itself.
//!
//! Every backend's sandbox is a child process of sbx ([`process`]): it can be killed whatever its
//! engine is doing, the kernel counts what it uses, and what it leaves behind goes with it.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod cache;
pub mod cgroup;
pub mod frame;
pub mod landlock;
pub mod process;
pub mod program;
pub mod signals;
pub mod terminal;
pub mod usage;
pub mod volumes;
pub mod workload;

pub use cgroup::Cgroup;
pub use process::{Process, ProcessLimits};
