//! The microVM backend: an embedded virtual machine monitor on KVM.
//!
//! The only crate that names KVM. A machine is first planned ([`plan`]) and then built from its plan
//! ([`machine`]); its devices are one file each below `device/`, what all virtio devices share is written
//! once in `virtio/`, and all that makes a kernel start is in `boot/`. While it runs, `control/` stands
//! between it and the caller.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod accel;
pub mod agent;
mod backend;
pub mod boot;
pub mod bus;
mod control;
pub mod device;
pub mod end;
mod explain;
pub mod fs;
pub mod kernel;
pub mod kvm;
mod machine;
pub mod memory;
mod plan;
mod qemu;
pub mod seccomp;
mod times;
pub mod virtio;
mod workload;

pub use backend::VmBackend;
pub use explain::explain;
pub use plan::MEMORY;

/// The guest's first process (crate sbx-init): a static program for x86-64 Linux, to be `/init` in the
/// initramfs.
static INIT: &[u8] = include_bytes!(env!("SBX_INIT"));
