//! What sbx promises whatever holds the workload: one file a promise, run on every backend.
//!
//! Each file says at its top what is promised, and tries both sides of it: a program that behaves is
//! left alone, and one that does not finds no way around. A promise is a function of a [`Backend`];
//! [`on_every_backend!`] makes a test of it for each, so that a new backend is one more line here.
//! What only one form of a workload can try stands beside them as a plain test.
//!
//! No test asserts how long something takes: the harness ends a run that hangs, and that is all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod cpu_time;
mod cpus;
mod disk;
mod environment;
mod exit_status;
mod fds;
mod fuel;
mod memory;
mod output;
mod pids;
mod signals;
mod stdio;
mod timeout;
mod volumes;

use std::path::PathBuf;
use support::Sbx;

/// What can hold a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The WebAssembly backend with a core module.
    Module,
    /// The WebAssembly backend with a component.
    Component,
}

impl Backend {
    /// The file of a guest that this backend runs.
    pub(crate) fn guest(self, name: &str) -> PathBuf {
        match self {
            Self::Module => support::guest(name),
            Self::Component => support::component(name),
        }
    }

    /// A run of a guest.
    pub(crate) fn run(self, name: &str) -> Sbx {
        Sbx::run(self.guest(name))
    }
}

/// Makes a test of each promise, a function of a [`Backend`], on each backend.
macro_rules! on_every_backend {
    ($($promise:ident),* $(,)?) => {
        mod module {
            $(#[test] fn $promise() { super::$promise(crate::Backend::Module); })*
        }
        mod component {
            $(#[test] fn $promise() { super::$promise(crate::Backend::Component); })*
        }
    };
}
pub(crate) use on_every_backend;
