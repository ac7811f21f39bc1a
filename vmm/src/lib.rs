//! The microVM backend: an embedded virtual machine monitor on KVM.
//!
//! The only crate that names KVM. A machine is first planned and then built from its plan; its devices
//! are one file each below `device/`, what all virtio devices share is written once in `virtio/`, and
//! all that makes a kernel start is in `boot/`.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod agent;
pub mod boot;
pub mod bus;
pub mod device;
pub mod end;
pub mod fs;
pub mod kvm;
pub mod memory;
pub mod seccomp;
pub mod virtio;

/// The guest's first process (crate sbx-init): a static program for x86-64 Linux, to be `/init` in the
/// initramfs.
pub static INIT: &[u8] = include_bytes!(env!("SBX_INIT"));
