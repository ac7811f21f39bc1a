//! Whose files are, seen from the guest and from the host.

use rustix::fs::{Gid, Statx, Uid};
use rustix::io::Errno;

/// Who owns in the guest what neither root nor the server's user owns on the host.
const NOBODY: u32 = 65534;

/// How owners are told to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// By the same numbers: the server is root.
    AsOnTheHost,
    /// The server's user as root, all others as nobody.
    Own { uid: u32, gid: u32 },
}

impl Owners {
    /// What the process's user allows.
    pub(super) fn of_this_process() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            Self::AsOnTheHost
        } else {
            Self::Own { uid: uid.as_raw(), gid: gid.as_raw() }
        }
    }

    /// The user and group that the guest sees.
    pub(super) fn seen(self, stat: &Statx) -> (u32, u32) {
        let Self::Own { uid, gid } = self else { return (stat.stx_uid, stat.stx_gid) };
        let seen = |id, own| if id == own { 0 } else { NOBODY };
        (seen(stat.stx_uid, uid), seen(stat.stx_gid, gid))
    }

    /// What to change an owner into on the host, so that the guest sees these.
    ///
    /// # Errors
    /// `EPERM` when the server's user cannot give files away.
    pub(super) fn change(self, uid: Option<u32>, gid: Option<u32>) -> Result<Change, Errno> {
        // -1 is how the system call spells "no change".
        let (uid, gid) = (uid.filter(|id| *id != u32::MAX), gid.filter(|id| *id != u32::MAX));
        match self {
            Self::AsOnTheHost => Ok((uid.map(Uid::from_raw), gid.map(Gid::from_raw))),
            Self::Own { .. } if uid.unwrap_or(0) == 0 && gid.unwrap_or(0) == 0 => Ok((None, None)),
            Self::Own { .. } => Err(Errno::PERM),
        }
    }
}

/// User and group to change a file's owner into.
pub(super) type Change = (Option<Uid>, Option<Gid>);
