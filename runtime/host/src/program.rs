//! A program of the host's that does a part of a sandbox's work: run confined, and never longer than who
//! started it.
//!
//! It finds the files that it is given, an empty environment, and nothing to read: landlock leaves it what
//! it takes to be run at all. It has no capabilities and cannot get any. What it may ask of the kernel
//! beyond that is for itself to give up (QEMU does, `-sandbox on`).
#![allow(
    unsafe_code,
    reason = "what a child does before it runs its program has no safe interface"
)]

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{self, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use sbx_core::{Error, Result};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::landlock;
use crate::process::OF_GROUPS;

/// Where programs and their libraries are, by the Filesystem Hierarchy Standard.
const PLACES: [&str; 5] = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"];

/// Starts `program` with `arguments`, and with `files` open under the numbers that they have here. Its
/// standard error can be read from the child; its input is empty, and what it prints goes nowhere.
///
/// To be called while this process has one thread.
///
/// # Errors
/// When it cannot be run, or not confined.
pub fn spawn(program: &Path, arguments: &[String], files: Vec<OwnedFd>) -> Result<Child> {
    let mut places: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    // A program that is installed elsewhere has its files beside it: PREFIX/bin/NAME, PREFIX/share.
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    places.extend(real.ancestors().nth(2).filter(|dir| dir.parent().is_some()).map(PathBuf::from));
    let parent = process::getpid();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let prepare = move || -> io::Result<()> {
        process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if process::getppid() != Some(parent) {
            return Err(io::Error::other("its parent is gone"));
        }
        block(&OF_GROUPS)?;
        for file in &files {
            fcntl_setfd(file, FdFlags::empty())?;
        }
        landlock::confine_program(&places).map_err(io::Error::other)?;
        let none = CapabilitySet::empty();
        set_capabilities(
            None,
            CapabilitySets { effective: none, permitted: none, inheritable: none },
        )?;
        Ok(())
    };
    // SAFETY: the closure runs in the child of a process with a single thread, so that the child's copy of
    // every lock and of the allocator is in a usable state.
    unsafe { command.pre_exec(prepare) };
    command.spawn().map_err(|e| Error::host(format!("run {}", program.display()), e))
}

/// Keeps signals from this process that are the workload's, which hears of them from sbx.
fn block(signals: &[i32]) -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writing a set, which the call initializes.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialized above.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is initialized and the signal has a valid number.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    // SAFETY: the set is initialized; null asks for no old mask.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}
