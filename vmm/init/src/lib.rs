//! The guest's first process: it makes the system out of what the kernel left, and then runs what the
//! host asks for.
//!
//! In order, with nothing waited for that need not be: stamp the boot timer, load the kernel's modules
//! ([`system`]), connect to the host ([`connection`]), make the root that the host asks for
//! ([`system`], [`root`], [`network`], [`cgroup`]), run processes ([`agent`], [`process`]), and reset the
//! machine. As any other process than the first it is one of a few commands ([`command`]), for a root that
//! has no programs.
//!
//! One thread, one loop around `poll`. It trusts the host, which is outside, and not the workload: no
//! process can make it wait, grow or end. It does *not* hold the workload in; the virtual machine does.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

extern crate alloc;

pub mod agent;
pub mod cgroup;
mod command;
mod connection;
mod network;
mod process;
mod root;
pub mod sys;
mod system;
mod users;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::panic::PanicInfo;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::MountFlags;
use rustix::process::getpid;
use rustix::system::{RebootCommand, reboot};

use crate::agent::Agent;
use crate::cgroup::Workload;

/// To be called before anything else in the program: tells the host that user space begins.
pub fn first() {
    if getpid().is_init() {
        sys::out_byte(sbx_proto::BOOT_TIMER_PORT, sbx_proto::BOOT_TIMER_VALUE);
    }
}

/// The program. As the first process it ends with the machine.
pub fn main(arguments: &[&'static CStr], environment: &[&'static CStr]) -> ! {
    let bytes = |list: &[&'static CStr]| -> Vec<&'static [u8]> {
        list.iter().map(|item| item.to_bytes()).collect()
    };
    if getpid().is_init() {
        if let Err(sentence) = run() {
            say(&sentence);
        }
        restart()
    }
    sys::exit(command::run(&bytes(arguments), &bytes(environment)))
}

/// Says why the program cannot go on, and ends it, or as the first process the machine.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    say(&format!("init failed: {info}"));
    if getpid().is_init() {
        restart()
    }
    sys::exit(134)
}

/// All that the first process does before the machine ends.
fn run() -> Result<(), String> {
    system::hold_standard_streams();
    let modules = system::load_modules();
    let hint = || modules.as_ref().err().map(|why| format!(" ({why})")).unwrap_or_default();
    let stream = connection::open()
        .map_err(|error| format!("init cannot reach the host: {error}{}", hint()))?;
    let signals = sys::child_signals().map_err(|error| format!("init has no signals: {error}"))?;
    let mut agent = Agent::new(stream, signals, Workload::none());
    let grace =
        agent.run(|boot| system::set_up(boot).map_err(|sentence| format!("{sentence}{}", hint())));
    agent.end_all(grace);
    system::finish();
    Ok(())
}

/// Writes a line to the console, for when there is no host to tell.
fn say(sentence: &str) {
    let line = format!("sbx-init: {sentence}\n");
    let open = || open("/dev/console", OFlags::WRONLY | OFlags::NOCTTY, Mode::empty());
    let console = open().or_else(|_| {
        // It is not in the initramfs, but in the kernel.
        let _ = rustix::fs::mkdir("/dev", Mode::from_raw_mode(0o755));
        rustix::mount::mount("dev", "/dev", "devtmpfs", MountFlags::NOSUID, None)?;
        open()
    });
    if let Ok(console) = console {
        let _ = rustix::io::write(console, line.as_bytes());
    }
}

/// Resets the machine, which the command line makes quick (`reboot=k`).
fn restart() -> ! {
    let _ = reboot(RebootCommand::Restart);
    // Only a kernel that is not allowed to gets here; the end of the first process ends it too.
    sys::exit(1)
}
