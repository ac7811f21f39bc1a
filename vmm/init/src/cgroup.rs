//! The cgroup that all but init runs in, and whether memory ran out.
//!
//! It does *not* count processor time or limit disks; the host does, from outside.

use alloc::format;
use alloc::string::String;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, mkdir, open};
use rustix::io::Errno;
use rustix::system::sysinfo;

use crate::system::{read_file, write_file};

/// Where the guest's cgroups are.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// Memory that stays the kernel's when the workload wants all: a sixteenth, and at least this many
/// bytes. So it is the workload's group that runs out, and something in it that ends.
const RESERVE_MIN: u64 = 4 << 20;

/// The workload's cgroup, if the kernel has such.
#[derive(Debug)]
pub struct Workload {
    directory: Option<OwnedFd>,
    /// The kills for want of memory that were put down to a process already.
    kills: u64,
}

impl Workload {
    /// No cgroup: what is started stays in init's own.
    #[must_use]
    pub fn none() -> Self {
        Self { directory: None, kills: 0 }
    }

    /// Makes the group, with a limit of processes if there is one.
    pub(crate) fn new(pids: Option<u32>) -> Result<Self, String> {
        // Each by itself: a kernel without one of them refuses both.
        let counted = write_file(&format!("{ROOT}/cgroup.subtree_control"), b"+pids");
        let _ = write_file(&format!("{ROOT}/cgroup.subtree_control"), b"+memory");
        let made = match mkdir(format!("{ROOT}/workload"), Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        };
        if let Some(pids) = pids {
            let limited = made.and(counted).and_then(|()| {
                write_file(&format!("{ROOT}/workload/pids.max"), format!("{pids}").as_bytes())
            });
            limited.map_err(|error| {
                format!("the guest's kernel cannot limit the number of processes: {error}")
            })?;
        }
        let info = sysinfo();
        let free = info.freeram.saturating_mul(info.mem_unit.into());
        let most = free.saturating_sub(RESERVE_MIN.max(free / 16));
        let _ = write_file(&format!("{ROOT}/workload/memory.max"), format!("{most}").as_bytes());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(format!("{ROOT}/workload"), flags, Mode::empty()).ok();
        Ok(Self { directory, kills: 0 })
    }

    /// Where to start a process.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// Whether the kernel killed something for want of memory that no process was told to have died of
    /// yet.
    pub(crate) fn ran_out(&mut self) -> bool {
        let file = read_file("/proc/vmstat").unwrap_or_default();
        let ran_out = self.directory.is_some() && kills(&file).is_some_and(|now| now > self.kills);
        if ran_out {
            self.kills += 1;
        }
        ran_out
    }
}

/// The number of such kills since the start, in /proc/vmstat.
fn kills(vmstat: &[u8]) -> Option<u64> {
    vmstat.split(|&byte| byte == b'\n').find_map(|line| {
        let number = line.strip_prefix(b"oom_kill ")?;
        core::str::from_utf8(number).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_read_from_vmstat() {
        assert_eq!(kills(b"drop_slab 1\noom_kill 7\noom_kill_x 9\n"), Some(7));
        assert_eq!(kills(b"oom_kill x\n"), None);
        assert_eq!(kills(b""), None);
    }
}
