//! The host's side of volumes: directories, opened before the workload exists. That fixes what is
//! shared: renaming or replacing the host path later changes nothing.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sbx_core::{Error, Result};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Opens `host`, which is shared as `what` ("volume").
///
/// # Errors
/// When it is missing or is no directory.
pub fn open(what: &str, host: &Path) -> Result<OwnedFd> {
    let name = host.display();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(host, flags, Mode::empty()).map_err(|e| match e {
        Errno::NOENT => Error::Refused(format!(
            "the {what}'s host side, {name}, does not exist; create it first"
        )),
        Errno::NOTDIR => Error::Refused(format!(
            "the {what}'s host side, {name}, is not a directory; share the directory that it is in"
        )),
        e => Error::host(format!("open the {what} {name}"), std::io::Error::from(e)),
    })
}
