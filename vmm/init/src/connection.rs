//! The connection to the host.

use alloc::format;
use alloc::string::String;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::thread::nanosleep;

use crate::sys;

/// How often init tries, with a millisecond between: long enough for a kernel that is still starting the
/// device.
const TRIES: u32 = 5000;

/// How long the host may take to answer.
const ANSWER: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Connects to the host, as soon as the kernel can.
pub(crate) fn open() -> Result<OwnedFd, String> {
    let mut last = Errno::NODEV;
    for attempt in 0..TRIES {
        if attempt > 0 {
            pause();
        }
        match connect() {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(match last {
        Errno::AFNOSUPPORT | Errno::NODEV => {
            String::from("this kernel has no vsock, or there is no vsock device")
        }
        Errno::CONNRESET => String::from("nothing listens there"),
        other => format!("{other}"),
    })
}

fn connect() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
    match sys::connect_to_host(&stream, sbx_proto::PORT) {
        Ok(()) => return Ok(stream),
        Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    if poll(&mut [PollFd::new(&stream, PollFlags::OUT)], Some(&ANSWER))? == 0 {
        return Err(Errno::TIMEDOUT);
    }
    sockopt::socket_error(&stream)??;
    Ok(stream)
}

fn pause() {
    let millisecond = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let _ = nanosleep(&millisecond);
}
