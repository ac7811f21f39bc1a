//! The system calls that rustix does not have, or not without a C library.
//!
//! The only unsafe code of the library. Everything here relies on init being one thread.
#![allow(unsafe_code)]

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::arch::asm;
use core::ffi::CStr;
use core::ptr;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

/// SIGKILL.
pub(crate) const SIGKILL: u8 = 9;
/// SIGPIPE.
const SIGPIPE: u8 = 13;
/// SIGTERM.
pub(crate) const SIGTERM: u8 = 15;
/// SIGCHLD.
const SIGCHLD: u8 = 17;

const SYS_IOCTL: usize = 16;
const SYS_RT_SIGPROCMASK: usize = 14;
const SYS_CONNECT: usize = 42;
const SYS_EXECVE: usize = 59;
const SYS_KILL: usize = 62;
const SYS_IOPERM: usize = 173;
const SYS_EXIT_GROUP: usize = 231;
const SYS_SIGNALFD4: usize = 289;
const SYS_CLONE3: usize = 435;

/// Makes a system call.
///
/// # Safety
/// The arguments must be what the call takes, and what they point to must be valid for what the call
/// does with it.
unsafe fn syscall(number: usize, arguments: [usize; 4]) -> Result<usize, Errno> {
    let [a, b, c, d] = arguments;
    let result: isize;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11, and touches no memory but what the
    // caller answers for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    if result < 0 {
        Err(Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(i32::MAX)))
    } else {
        Ok(result.cast_unsigned())
    }
}

/// Writes a byte to an I/O port. Nothing happens where the kernel does not allow it.
pub(crate) fn out_byte(port: u16, value: u8) {
    // SAFETY: `ioperm` takes numbers only.
    let allowed = unsafe { syscall(SYS_IOPERM, [port.into(), 1, 1, 0]) };
    if allowed.is_ok() {
        // SAFETY: the kernel has just allowed this port, and a write to it changes no memory.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
    }
}

/// Ends this process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes a number, and does not return.
        let _ = unsafe { syscall(SYS_EXIT_GROUP, [usize::try_from(code).unwrap_or(255), 0, 0, 0]) };
    }
}

/// Copies this process, into a cgroup (its open directory) if there is one. `None` is the copy.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>) -> Result<Option<Pid>, Errno> {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    // set_tid, set_tid_size, cgroup.
    let mut arguments = [0_u64; 11];
    arguments[4] = SIGCHLD.into();
    if let Some(directory) = cgroup {
        arguments[0] = CLONE_INTO_CGROUP;
        arguments[10] = u64::try_from(directory.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    let size = size_of_val(&arguments);
    // SAFETY: the kernel reads `size` bytes of `arguments`. They ask for a copy with memory of its own
    // that goes on here, on a copy of this stack; init is one thread, so nothing that another held is
    // missing in the copy.
    let result = unsafe { syscall(SYS_CLONE3, [arguments.as_ptr().addr(), size, 0, 0]) }?;
    Ok(i32::try_from(result).ok().and_then(Pid::from_raw))
}

/// Becomes another program. Returns only if that failed, and then why.
pub(crate) fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |list: &[CString]| -> Vec<*const core::ffi::c_char> {
        list.iter().map(|item| item.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    let arguments = [
        path.as_ptr().expose_provenance(),
        argv.as_ptr().expose_provenance(),
        env.as_ptr().expose_provenance(),
        0,
    ];
    // SAFETY: a string, and two lists of strings that end with a null; all outlive the call.
    match unsafe { syscall(SYS_EXECVE, arguments) } {
        Ok(_) => Errno::INVAL,
        Err(error) => error,
    }
}

/// Sends a signal to a process; without one, to all but init, which only the first process can mean.
pub(crate) fn kill(pid: Option<Pid>, signal: u8) {
    if pid.is_none() && !getpid().is_init() {
        return;
    }
    let pid = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    // SAFETY: takes numbers only. That the process is gone already is no matter.
    let _ = unsafe { syscall(SYS_KILL, [isize::cast_unsigned(pid as isize), signal.into(), 0, 0]) };
}

/// Blocks the signals that the loop is told of in other ways, and makes the descriptor that tells of
/// children that ended.
///
/// # Errors
/// When the kernel gives no descriptor.
pub fn child_signals() -> Result<OwnedFd, Errno> {
    const NONBLOCK_CLOEXEC: usize = 0o4000 | 0o2_000_000;
    let children = bit(SIGCHLD);
    set_signal_mask(children | bit(SIGPIPE));
    let arguments = [usize::MAX, (&raw const children).expose_provenance(), 8, NONBLOCK_CLOEXEC];
    // SAFETY: the kernel reads the 8 bytes of `children`.
    let fd = unsafe { syscall(SYS_SIGNALFD4, arguments) }?;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets all signals through, as a program expects it.
pub(crate) fn unblock_signals() {
    set_signal_mask(0);
}

fn bit(signal: u8) -> u64 {
    1 << (signal - 1)
}

fn set_signal_mask(mask: u64) {
    const SIG_SETMASK: usize = 2;
    // SAFETY: the kernel reads the 8 bytes of `mask`, and is not to write any.
    let _ = unsafe {
        syscall(SYS_RT_SIGPROCMASK, [SIG_SETMASK, (&raw const mask).expose_provenance(), 0, 8])
    };
}

/// Connects a socket to a port of the host over vsock.
pub(crate) fn connect_to_host(socket: &OwnedFd, port: u32) -> Result<(), Errno> {
    const AF_VSOCK: u16 = 40;
    const HOST: u32 = 2;
    // `struct sockaddr_vm`: family, reserved, port, context, flags and zeros.
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&AF_VSOCK.to_ne_bytes());
    address[4..8].copy_from_slice(&port.to_ne_bytes());
    address[8..12].copy_from_slice(&HOST.to_ne_bytes());
    // SAFETY: the kernel reads the 16 bytes of `address`.
    unsafe { syscall(SYS_CONNECT, [raw(socket), address.as_ptr().expose_provenance(), 16, 0]) }
        .map(drop)
}

/// A call to a network device or the routing table with `argument`, which must be as long as the
/// request's own structure.
fn network_ioctl<const N: usize>(
    socket: &OwnedFd,
    request: usize,
    argument: &mut [u8; N],
) -> Result<(), Errno> {
    // SAFETY: the kernel reads and writes a structure of N bytes: this module calls with `struct ifreq`
    // (40) or `struct rtentry` (120) as the request wants it. None of their bytes that are used as
    // pointers are set.
    unsafe {
        syscall(SYS_IOCTL, [raw(socket), request, argument.as_mut_ptr().expose_provenance(), 0])
    }
    .map(drop)
}

/// What can be set of a network device.
#[derive(Clone, Copy)]
pub(crate) enum Interface {
    /// Its address.
    Address([u8; 4]),
    /// The mask of its network.
    Mask([u8; 4]),
    /// That it works.
    Up,
}

/// Sets something of the network device `name`.
pub(crate) fn set_interface(socket: &OwnedFd, name: &str, what: Interface) -> Result<(), Errno> {
    const SIOCSIFFLAGS: usize = 0x8914;
    const SIOCSIFADDR: usize = 0x8916;
    const SIOCSIFNETMASK: usize = 0x891c;
    const UP_RUNNING: u16 = 0x41;
    // `struct ifreq`: 16 bytes of name and a union, here of flags or an address.
    let mut request = [0_u8; 40];
    let name = name.as_bytes();
    request
        .get_mut(..name.len().min(15))
        .ok_or(Errno::INVAL)?
        .copy_from_slice(&name[..name.len().min(15)]);
    let number = match what {
        Interface::Address(address) => {
            request[16..32].copy_from_slice(&socket_address(address));
            SIOCSIFADDR
        }
        Interface::Mask(mask) => {
            request[16..32].copy_from_slice(&socket_address(mask));
            SIOCSIFNETMASK
        }
        Interface::Up => {
            request[16..18].copy_from_slice(&UP_RUNNING.to_ne_bytes());
            SIOCSIFFLAGS
        }
    };
    network_ioctl(socket, number, &mut request)
}

/// Sends everything that has no other way to `gateway`.
pub(crate) fn add_default_route(socket: &OwnedFd, gateway: [u8; 4]) -> Result<(), Errno> {
    const SIOCADDRT: usize = 0x890b;
    const RTF_UP_GATEWAY: u16 = 3;
    // `struct rtentry`: after 8 bytes the destination, the gateway, the mask and the flags.
    let mut route = [0_u8; 120];
    route[8..24].copy_from_slice(&socket_address([0; 4]));
    route[24..40].copy_from_slice(&socket_address(gateway));
    route[40..56].copy_from_slice(&socket_address([0; 4]));
    route[56..58].copy_from_slice(&RTF_UP_GATEWAY.to_ne_bytes());
    network_ioctl(socket, SIOCADDRT, &mut route)
}

/// A `struct sockaddr_in`.
fn socket_address(address: [u8; 4]) -> [u8; 16] {
    const AF_INET: u16 = 2;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address);
    bytes
}

/// One of the three standard streams.
pub(crate) fn standard(number: u8) -> BorrowedFd<'static> {
    // SAFETY: init holds them open from its start to its end, and a command has them from init; if one
    // were closed, using it would fail and nothing else.
    unsafe { BorrowedFd::borrow_raw(number.into()) }
}

fn raw(fd: &OwnedFd) -> usize {
    // Not negative, so nothing changes.
    usize::try_from(fd.as_fd().as_raw_fd()).unwrap_or(usize::MAX)
}
