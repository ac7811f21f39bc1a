//! What sbx promises whatever holds the workload: one file a promise, run on every backend.
//!
//! Each file says at its top what is promised, and tries both sides of it: a program that behaves is
//! left alone, and one that does not finds no way around. A promise is a function of a [`Backend`];
//! [`on_every_backend!`] makes a test of it for each, so that a new backend is one more line here. Where
//! the promise is one and the numbers differ, the backend says what they are. What means something to one
//! kind of backend only is listed apart, with the reason; what only one form of a workload can try stands
//! beside them as a plain test.
//!
//! MicroVMs are two backends: one on KVM, one under software emulation. The tests of the former need a KVM;
//! where the host has none, the test runner runs each in the test bed's nested machine, with the harness
//! around it.
//!
//! No test asserts how long something takes: the harness ends a run that hangs, and that is all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod attached;
mod cpu_time;
mod cpus;
mod disk;
mod environment;
mod exit_status;
mod fds;
mod fuel;
mod jail;
mod kept;
mod memory;
mod output;
mod pids;
mod signals;
mod stats;
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
    /// A microVM on KVM, with the same program for Linux.
    Vm,
    /// The same under software emulation.
    Tcg,
}

impl Backend {
    /// The file of a guest that this backend runs.
    pub(crate) fn guest(self, name: &str) -> PathBuf {
        match self {
            Self::Module => support::guest(name),
            Self::Component => support::component(name),
            Self::Vm | Self::Tcg => support::native(name),
        }
    }

    /// A run of a guest.
    pub(crate) fn run(self, name: &str) -> Sbx {
        self.held(Sbx::run(self.guest(name)))
    }

    /// A run, on this backend.
    pub(crate) fn held(self, run: Sbx) -> Sbx {
        match self {
            Self::Module | Self::Component => run,
            // Not as sbx finds best: a KVM that is lost must not go unnoticed.
            Self::Vm => run.flags("--accel kvm --vm").flag("--kernel", support::kernel()),
            Self::Tcg => run.flags("--accel tcg --quiet --vm").flag("--kernel", support::kernel()),
        }
    }

    pub(crate) fn is_vm(self) -> bool {
        matches!(self, Self::Vm | Self::Tcg)
    }

    /// What a guest finds as its own name.
    pub(crate) fn called(self, name: &str) -> String {
        match self {
            Self::Module | Self::Component => format!("{name}.wasm"),
            Self::Vm | Self::Tcg => format!("/app/{name}"),
        }
    }

    /// The status that is seen of a program that fails with `code`.
    pub(crate) fn failure(self, code: i32) -> i32 {
        match self {
            Self::Module | Self::Vm | Self::Tcg => code,
            // WASI 0.2 knows success and failure, and no other numbers.
            Self::Component => 1,
        }
    }

    /// A value for `--timeout` that leaves a workload time to begin, and is over soon.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Module | Self::Component => "300ms",
            // The clock starts with the sandbox, and a machine has to boot: in a tenth of a second, and in
            // seconds where processors are emulated.
            Self::Vm if support::is_emulated() => "20s",
            Self::Vm => "2s",
            Self::Tcg => "8s",
        }
    }

    /// A value for `--timeout` that nothing reaches.
    pub(crate) fn enough(self) -> &'static str {
        match self {
            Self::Module | Self::Component => "30s",
            Self::Vm | Self::Tcg => "100s",
        }
    }

    /// How often a guest opens a file to meet what the host does at the same time.
    pub(crate) fn opens(self) -> &'static str {
        match self {
            Self::Module | Self::Component => "20000",
            // Each is a question to the host, and there are some seconds to be had.
            Self::Vm => "3000",
            // The guest's kernel believes a name for a second, and takes no longer for so many.
            Self::Tcg => "20000",
        }
    }

    /// Those of `all` that are tried: where each costs the start of a machine, the first three.
    pub(crate) fn sample<T>(self, all: &[T]) -> &[T] {
        match self {
            Self::Module | Self::Component => all,
            Self::Vm | Self::Tcg => &all[..all.len().min(3)],
        }
    }
}

/// Makes a test of each promise, a function of a [`Backend`], on each backend. Behind `wasm:` are those
/// that only a WebAssembly sandbox can give, and behind `vm:` those of a machine.
macro_rules! on_every_backend {
    ($($promise:ident),* $(,)? $(; wasm: $($wasm:ident),* $(,)?)? $(; vm: $($vm:ident),* $(,)?)?) => {
        mod module {
            $(#[test] fn $promise() { super::$promise(crate::Backend::Module); })*
            $($(#[test] fn $wasm() { super::$wasm(crate::Backend::Module); })*)?
        }
        mod component {
            $(#[test] fn $promise() { super::$promise(crate::Backend::Component); })*
            $($(#[test] fn $wasm() { super::$wasm(crate::Backend::Component); })*)?
        }
        mod vm {
            $(#[test] fn $promise() { super::$promise(crate::Backend::Vm); })*
            $($(#[test] fn $vm() { super::$vm(crate::Backend::Vm); })*)?
        }
        mod tcg {
            $(#[test] fn $promise() { super::$promise(crate::Backend::Tcg); })*
            $($(#[test] fn $vm() { super::$vm(crate::Backend::Tcg); })*)?
        }
    };
}
pub(crate) use on_every_backend;
