//! A TAP device of the host's: packets go in and out as Ethernet frames, each behind a virtio-net header
//! (Linux, `Documentation/networking/tuntap.rst` and `include/uapi/linux/if_tun.h`).
//!
//! It does NOT create interfaces, give them addresses, or set up bridges and filters: an interface that
//! does not exist is an error, where the kernel would silently make one that goes away with sbx.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, opcode};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::net::{Link, Offload};

const DEVICE: &str = "/dev/net/tun";

// include/uapi/linux/if_tun.h
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const TUN_F_CSUM: usize = 0x01;
const TUN_F_TSO4: usize = 0x02;
const TUN_F_TSO6: usize = 0x04;

/// Bytes of a name, its NUL among them.
const NAME: usize = 16;

/// `struct ifreq` as `TUNSETIFF` reads it: a name, flags, and the rest of the union.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}

/// An open TAP device.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// Why a TAP device cannot be used. The text is the interface's name.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such interface.
    #[error("there is no network interface '{0}'; make it with 'ip tuntap add dev {0} mode tap'")]
    Missing(String),
    /// Someone else's, or devices are only for root.
    #[error(
        "the TAP device '{0}' may not be used by this user; \
         make it theirs with 'ip tuntap add dev {0} mode tap user NAME'"
    )]
    Permission(String),
    /// Another process has it open.
    #[error("the TAP device '{0}' is in use by another process; give each guest one of its own")]
    Busy(String),
    /// An interface of another kind.
    #[error(
        "the network interface '{0}' is no TAP device with a single queue; \
         make one with 'ip tuntap add dev NAME mode tap'"
    )]
    Kind(String),
    /// The kernel has no TUN driver.
    #[error(
        "this host has no /dev/net/tun, which '{0}' needs; load the module with 'modprobe tun'"
    )]
    NoDriver(String),
    /// The host failed.
    #[error("the TAP device '{0}' cannot be opened: {1}")]
    Host(String, #[source] io::Error),
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.file.into()
    }
}

impl Tap {
    /// Attaches to an existing TAP device.
    ///
    /// # Errors
    /// [`TapError`] has them all.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let named = || name.to_owned();
        let host = |error: Errno| TapError::Host(named(), error.into());
        let mut request = Request { name: [0; NAME], flags: 0, rest: [0; 22] };
        if name.is_empty() || name.len() >= NAME || name.contains('\0') {
            return Err(TapError::Missing(named()));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(host)?;
        netdevice::name_to_index(&any, name).map_err(|_| TapError::Missing(named()))?;

        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(DEVICE);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => TapError::Permission(named()),
            _ => TapError::NoDriver(named()),
        })?;
        attach(&file, request).map_err(|error| match error {
            Errno::PERM | Errno::ACCESS => TapError::Permission(named()),
            Errno::BUSY => TapError::Busy(named()),
            Errno::INVAL => TapError::Kind(named()),
            error => host(error),
        })?;
        Ok(Self { file })
    }
}

#[allow(unsafe_code, reason = "the TUN driver is spoken to by ioctl only")]
fn attach(file: &File, request: Request) -> Result<(), Errno> {
    // SAFETY: TUNSETIFF takes a pointer to a `struct ifreq` of 40 bytes, which `Request` is laid out as.
    // It also writes to it (the name, if that had a pattern), and `Setter` holds a copy that lives for
    // the call and that nobody reads again.
    let set = unsafe { Setter::<TUNSETIFF, Request>::new(request) };
    // SAFETY: as above; on another file than a TUN device the number means nothing and is refused.
    unsafe { rustix::ioctl::ioctl(file, set) }?;
    let header = i32::from(super::net::HEADER as u16);
    // SAFETY: TUNSETVNETHDRSZ reads an int through its pointer.
    let set = unsafe { Setter::<TUNSETVNETHDRSZ, i32>::new(header) };
    // SAFETY: as above.
    unsafe { rustix::ioctl::ioctl(file, set) }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Link for Tap {
    #[allow(unsafe_code, reason = "the TUN driver is spoken to by ioctl only")]
    fn set_offload(&self, offload: Offload) -> io::Result<()> {
        let Offload { checksum, tso4, tso6 } = offload;
        // The kernel takes segmentation only along with checksums.
        let flags = if checksum {
            TUN_F_CSUM | if tso4 { TUN_F_TSO4 } else { 0 } | if tso6 { TUN_F_TSO6 } else { 0 }
        } else {
            0
        };
        // SAFETY: TUNSETOFFLOAD takes flags in place of a pointer, and these are all known to it.
        let set = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags) };
        // SAFETY: as above.
        unsafe { rustix::ioctl::ioctl(&self.file, set) }?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_large_as_the_kernels() {
        assert_eq!(size_of::<Request>(), size_of::<libc::ifreq>());
        assert_eq!(TUNSETIFF, 0x4004_54ca);
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_made() {
        for name in ["sbx-none", "", "a-name-of-16-byte", "nul\0"] {
            assert!(matches!(Tap::open(name), Err(TapError::Missing(_))), "{name}");
        }
    }

    /// Which refusal it is depends on who runs the tests, and where.
    #[test]
    fn an_interface_of_another_kind_is_refused() {
        let error = Tap::open("lo").unwrap_err();
        let expected =
            matches!(error, TapError::Kind(_) | TapError::Permission(_) | TapError::NoDriver(_));
        assert!(expected, "{error}");
    }
}
