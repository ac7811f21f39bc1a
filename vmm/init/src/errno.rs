//! The kernel's errors in words, which without a C library are only numbers.

use alloc::borrow::Cow;
use alloc::format;

use rustix::io::Errno;

/// What an error of the kernel means, for those that a guest's start can meet.
pub(crate) fn explain(error: Errno) -> Cow<'static, str> {
    Cow::Borrowed(match error {
        Errno::PERM => "not permitted",
        Errno::NOENT => "there is no such file",
        Errno::IO => "reading or writing failed",
        Errno::NXIO | Errno::NODEV => "there is no such device",
        Errno::NOEXEC => "it does not fit this kernel",
        Errno::NOMEM => "there is not enough memory",
        Errno::ACCESS => "access is denied",
        Errno::BUSY => "it is in use",
        Errno::EXIST => "it is there already",
        Errno::NOTDIR => "a part of the path is no directory",
        Errno::ISDIR => "it is a directory",
        Errno::INVAL => "the kernel does not take these values",
        Errno::NFILE | Errno::MFILE => "too many files are open",
        Errno::FBIG => "it is too large",
        Errno::NOSPC => "there is no room left",
        Errno::ROFS => "it is read-only",
        Errno::PIPE => "nobody reads it",
        Errno::NAMETOOLONG => "the name is too long",
        Errno::LOOP => "there are too many links on the way",
        Errno::NOSYS => "the kernel cannot do it",
        Errno::UCLEAN => "its structure is damaged",
        Errno::TIMEDOUT => "there was no answer in time",
        Errno::CONNRESET | Errno::CONNREFUSED => "nothing listens there",
        Errno::NETUNREACH => "it is on no network of this machine",
        other => return Cow::Owned(format!("error {} of Linux", other.raw_os_error())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_something() {
        assert_eq!(explain(Errno::NOENT), "there is no such file");
        assert_eq!(explain(Errno::XDEV), "error 18 of Linux");
    }
}
