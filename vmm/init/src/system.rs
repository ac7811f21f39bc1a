//! The system around the workload: modules, file systems, names, and how it all ends.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::AsRawFd;
use rustix::fs::{Dir, Mode, OFlags, mkdir, open, symlink, unlink};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{finit_module, sethostname};

use sbx_proto::{Boot, Root, Volume};

use crate::cgroup::{self, Workload};
use crate::{command, network, root};

/// Where the host packs the kernel's modules, named in the order they need.
const MODULES: &str = "/modules";

/// The longest file that init reads: a /etc/passwd of this size has ten thousand users.
const FILE_MAX: usize = 1 << 20;

/// Makes sure that the first three descriptors are taken. The kernel leaves them free if the initramfs has
/// no console, and what init opened there would get in the way of a process's own.
pub(crate) fn hold_standard_streams() {
    while let Ok(fd) = open("/", OFlags::PATH, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            return;
        }
        core::mem::forget(fd);
    }
}

/// Loads the modules, and gives their memory in the initramfs back. One that the kernel does not take is
/// only told of if something turns out to be missing.
pub(crate) fn load_modules() -> Result<(), String> {
    let mut names = match names(MODULES) {
        Ok(names) => names,
        Err(_) => return Ok(()),
    };
    names.sort_unstable();
    let mut result = Ok(());
    for name in names {
        let path = format!("{MODULES}/{name}");
        match load(&path) {
            // There already, or nothing for it to do.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(error) => result = Err(format!("the kernel module {name} does not load: {error}")),
        }
        let _ = unlink(path);
    }
    result
}

fn load(path: &str) -> Result<(), Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    finit_module(file, c"", 0)
}

/// The names in a directory, but those that begin with a dot.
fn names(directory: &str) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut all = Vec::new();
    for entry in Dir::new(open(directory, flags, Mode::empty())?)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !name.starts_with('.')
        {
            all.push(name.to_string());
        }
    }
    Ok(all)
}

/// Makes the system what the host asks for. An error is a sentence.
pub(crate) fn set_up(boot: &Boot) -> Result<Workload, String> {
    root::enter(boot)?;
    mount_kernel_files()?;
    if boot.root == Root::Initramfs {
        // For programs that expect it.
        let _ = mkdir("/tmp", Mode::from_raw_mode(0o1777));
        let _ = rustix::fs::chmod("/tmp", Mode::from_raw_mode(0o1777));
        command::install();
    }
    let workload = Workload::new(boot.pids)?;
    for volume in &boot.volumes {
        mount_volume(volume)?;
    }
    sethostname(boot.hostname.as_bytes())
        .map_err(|error| format!("the guest cannot be named \"{}\": {error}", boot.hostname))?;
    network::loopback();
    let own_files = !matches!(boot.root, Root::Disk { read_only: false, .. });
    if own_files {
        let _ = replace_file("/etc/hostname", format!("{}\n", boot.hostname).as_bytes());
    }
    if let Some(network) = &boot.network {
        network::set_up(network, own_files)?;
    }
    Ok(workload)
}

/// The file systems that are the kernel's own, which every program expects.
fn mount_kernel_files() -> Result<(), String> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC;
    let device = MountFlags::NOSUID;
    let closed = plain | MountFlags::NODEV;
    let needed = true;
    let list: [(&str, &str, MountFlags, Option<&CStr>, bool); 6] = [
        ("proc", "/proc", closed, None, needed),
        ("devtmpfs", "/dev", device, Some(c"mode=0755"), needed),
        ("sysfs", "/sys", closed, None, !needed),
        ("devpts", "/dev/pts", plain, Some(c"mode=0620,ptmxmode=0666,gid=5"), !needed),
        ("tmpfs", "/dev/shm", closed, Some(c"mode=1777"), !needed),
        ("cgroup2", cgroup::ROOT, closed, None, !needed),
    ];
    for (kind, path, flags, data, needed) in list {
        let _ = mkdir(path, Mode::from_raw_mode(0o755));
        match mount(kind, path, kind, flags, data) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) if needed => return Err(format!("the guest has no {path}: {error}")),
            // Whoever needs it says so.
            Err(_) => {}
        }
    }
    for (target, path) in [
        ("/proc/self/fd", "/dev/fd"),
        ("fd/0", "/dev/stdin"),
        ("fd/1", "/dev/stdout"),
        ("fd/2", "/dev/stderr"),
    ] {
        let _ = symlink(target, path);
    }
    Ok(())
}

fn mount_volume(volume: &Volume) -> Result<(), String> {
    let Volume { tag, path, read_only } = volume;
    make_directories(path)
        .map_err(|error| format!("the volume's directory {path} cannot be made: {error}"))?;
    let mut flags = MountFlags::NODEV;
    if *read_only {
        flags |= MountFlags::RDONLY;
    }
    mount(tag, path, "virtiofs", flags, None)
        .map_err(|error| format!("the volume {path} cannot be mounted: {}", root::why_not(error)))
}

/// Makes a directory and those above it, where they are not there.
pub(crate) fn make_directories(path: &str) -> Result<(), Errno> {
    let ends = path.char_indices().filter(|&(at, c)| c == '/' && at > 0).map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        match mkdir(&path[..end], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A read-only file system says so even if the directory is there.
            Err(Errno::ROFS) if rustix::fs::stat(&path[..end]).is_ok() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a file of at most [`FILE_MAX`] bytes.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut all = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        match rustix::io::read(&file, &mut piece)? {
            0 => return Ok(all),
            count if all.len() + count > FILE_MAX => return Err(Errno::FBIG),
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}

/// Writes to a file that is there.
pub(crate) fn write_file(path: &str, content: &[u8]) -> Result<(), Errno> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, content).map(drop)
}

/// Puts a file where one may be, or a link to where nothing is.
pub(crate) fn replace_file(path: &str, content: &[u8]) -> Result<(), Errno> {
    let _ = mkdir("/etc", Mode::from_raw_mode(0o755));
    let _ = unlink(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(file, content).map(drop)
}

/// Writes everything that is not on its disk yet; no process is left to add to it.
pub(crate) fn finish() {
    rustix::fs::sync();
    // Fails where the root is no disk, or a read-only one, which needs nothing.
    let _ = rustix::mount::mount_remount("/", MountFlags::RDONLY, c"");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> String {
        let path = std::env::temp_dir().join(format!("sbx-init-{}", std::process::id()));
        path.to_str().unwrap().to_string()
    }

    #[test]
    fn directories_are_made_once_and_all_of_them() {
        let base = scratch();
        let path = format!("{base}/a//b/c/");
        make_directories(&path).unwrap();
        make_directories(&path).unwrap();
        assert!(std::path::Path::new(&path).is_dir());
        std::fs::write(format!("{base}/file"), "").unwrap();
        assert_eq!(make_directories(&format!("{base}/file/x")), Err(Errno::NOTDIR));
        let mut names = names(&base).unwrap();
        names.sort_unstable();
        assert_eq!(names, ["a", "file"]);
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_file_without_end_is_not_read_whole() {
        assert_eq!(read_file("/dev/zero"), Err(Errno::FBIG));
        assert_eq!(read_file("/dev/null"), Ok(Vec::new()));
    }
}
