//! A control group for one sandbox: cgroup v2 where the host has it, v1 where that is what it has.
//!
//! Only what no engine can enforce from inside is asked of it. A group is made below the one that
//! sbx itself is in (v1, or v2 with delegation), or below the nearest ancestor that takes children
//! with the controller. It is removed when the sandbox has ended.

use sbx_core::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The kernel's default period for a processor quota, in microseconds.
const PERIOD: u64 = 100_000;

/// A control group of one sandbox, removed on drop; after a SIGKILL, by the next sbx.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes a group whose processes together use at most `cpus` thousandths of a processor.
    ///
    /// # Errors
    /// Names what is missing when the host gives this user no cpu controller.
    pub fn with_cpus(cpus: u32) -> Result<Self> {
        let limit = f64::from(cpus) / 1000.0;
        let quota = (PERIOD * u64::from(cpus) / 1000).max(1000);
        Self::create(quota).map_err(|why| {
            Error::Refused(format!(
                "cannot enforce --cpus {limit}: {why}; run sbx as root or in a systemd user \
                 session that is delegated the cpu controller, or leave --cpus out"
            ))
        })
    }

    fn create(quota: u64) -> std::result::Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let name = format!("sbx-{}", std::process::id());
        if let Some((mount, path)) = v1_cpu(&own, &mounts) {
            let group = Self::make(mount.join(path.trim_start_matches('/')).join(name))?;
            group.write("cpu.cfs_period_us", &PERIOD.to_string())?;
            group.write("cpu.cfs_quota_us", &quota.to_string())?;
            return Ok(group);
        }
        let (mount, path) =
            v2(&own, &mounts).ok_or("this host has no cpu controller of cgroups mounted")?;
        let here = mount.join(path.trim_start_matches('/'));
        let parent = here
            .ancestors()
            .take_while(|dir| dir.starts_with(&mount))
            .find(|dir| gives_cpu(dir))
            .ok_or("no cgroup of this user has the cpu controller")?;
        let group = Self::make(parent.join(name))?;
        group.write("cpu.max", &format!("{quota} {PERIOD}"))?;
        Ok(group)
    }

    fn make(dir: PathBuf) -> std::result::Result<Self, String> {
        dir.parent().into_iter().for_each(sweep);
        fs::create_dir(&dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
        Ok(Self { dir })
    }

    fn write(&self, file: &str, value: &str) -> std::result::Result<(), String> {
        fs::write(self.dir.join(file), value)
            .map_err(|e| format!("cannot write {value} to {file}: {e}"))
    }

    /// Moves the calling process into the group.
    pub(crate) fn enter(&self) -> Result<()> {
        self.write("cgroup.procs", "0").map_err(Error::Refused)
    }
}

/// What this host has of control groups, for `sbx doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// 1 where the cpu controller is a version 1 hierarchy of its own, else 2.
    pub version: u8,
    /// The controllers that sbx could use: all of them on version 1, those given to the groups of this
    /// process on version 2.
    pub controllers: Vec<String>,
}

/// Looks at what this process has of control groups; nothing if none are mounted.
pub fn available() -> Option<Available> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if v1_cpu(&own, &mounts).is_some() {
        let names = own.lines().filter_map(|line| line.split(':').nth(1));
        let names = names.flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
        return Some(Available { version: 1, controllers: names.map(Into::into).collect() });
    }
    let (mount, path) = v2(&own, &mounts)?;
    let dir = mount.join(path.trim_start_matches('/'));
    let names = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let controllers = names.split_whitespace().map(Into::into).collect();
    Some(Available { version: 2, controllers })
}

/// Removes the groups that a killed sbx left below `parent`. One that still holds a process cannot be
/// removed; one whose sbx is alive may be about to.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix("sbx-")?.parse::<u32>().ok())
        else {
            continue;
        };
        // A group with this process's own number is an earlier process's.
        if pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Whether children of this v2 group have the cpu controller, giving it to them if need be.
fn gives_cpu(dir: &Path) -> bool {
    let has = |file| {
        fs::read_to_string(dir.join(file))
            .is_ok_and(|text: String| text.split_whitespace().any(|name| name == "cpu"))
    };
    has("cgroup.subtree_control")
        || (has("cgroup.controllers")
            && fs::write(dir.join("cgroup.subtree_control"), "+cpu").is_ok())
}

/// The mount of the v1 cpu controller and this process's path in it.
fn v1_cpu(own: &str, mounts: &str) -> Option<(PathBuf, String)> {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers.split(',').any(|c| c == "cpu").then(|| path.to_owned())
    })?;
    Some((mount_of(mounts, "cgroup", Some("cpu"))?, path))
}

/// The mount of the v2 hierarchy and this process's path in it.
fn v2(own: &str, mounts: &str) -> Option<(PathBuf, String)> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some((mount_of(mounts, "cgroup2", None)?, path.to_owned()))
}

/// Where a file system of this type, and with this super option, is mounted
/// (proc_pid_mountinfo(5)).
fn mount_of(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let found = right.next()? == kind
            && option.is_none_or(|o| right.nth(1).is_some_and(|s| s.split(',').any(|x| x == o)));
        found.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
31 25 0:27 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct";
    const PURE: &str =
        "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn finds_v1() {
        let own = "5:cpuset:/\n4:cpu,cpuacct:/user\n0::/";
        let found = v1_cpu(own, HYBRID);
        assert_eq!(found, Some(("/sys/fs/cgroup/cpu,cpuacct".into(), "/user".into())));
        assert_eq!(v1_cpu("0::/x", PURE), None);
    }

    #[test]
    fn finds_v2() {
        let found = v2("0::/user.slice/a.scope", PURE);
        assert_eq!(found, Some(("/sys/fs/cgroup".into(), "/user.slice/a.scope".into())));
        assert_eq!(v2("4:cpu:/", HYBRID), None);
    }
}
