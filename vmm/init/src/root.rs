//! The guest's root: the initramfs, a directory of the host, or a disk.
//!
//! All but a writable disk gets an overlay, so that what the workload changes stays in the guest's memory.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};

use rustix::event::Timespec;
use rustix::fs::{FsWord, Mode, OFlags, mkdir, open, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move, mount_remount};
use rustix::process::{chdir, chroot};
use rustix::thread::nanosleep;

use sbx_proto::{Boot, Root};

/// Where the parts of the new root are put together.
const LOWER: &str = "/sbx-lower";
const UPPER: &str = "/sbx-upper";
const NEW: &str = "/sbx-root";

/// How long init waits for a disk that the kernel has not found yet, in milliseconds.
const DISK_WAIT: u32 = 2000;

/// Makes `/` what the host asks for.
pub(crate) fn enter(boot: &Boot) -> Result<(), String> {
    match &boot.root {
        Root::Initramfs => return limit_initramfs(boot.disk),
        Root::Fs { tag } => {
            directory(LOWER)?;
            mount(tag, LOWER, "virtiofs", MountFlags::RDONLY, None).map_err(|error| {
                format!("the root directory cannot be mounted: {}", why_not(error))
            })?;
            overlay(boot.disk)?;
        }
        Root::Disk { index, read_only } => {
            directory(LOWER)?;
            if mount_disk(*index, *read_only)? {
                switch_to(LOWER)?;
                // What ran here last left things that mean nothing now.
                let _ = mkdir("/run", Mode::from_raw_mode(0o755));
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                let _ = mount("tmpfs", "/run", "tmpfs", flags, Some(c"mode=0755"));
                return Ok(());
            }
            overlay(boot.disk)?;
        }
    }
    switch_to(NEW)
}

/// Holds writes to the initramfs to `limit` bytes, if there is one.
fn limit_initramfs(limit: Option<u64>) -> Result<(), String> {
    const TMPFS: FsWord = 0x0102_1994;
    let Some(limit) = limit else { return Ok(()) };
    let cannot =
        || String::from("the guest's kernel cannot limit what is written to its initramfs");
    let there = statfs("/").map_err(|_| cannot())?;
    if there.f_type != TMPFS {
        return Err(cannot());
    }
    // The limit is for what is added to what is there.
    let block = u64::try_from(there.f_bsize).unwrap_or(0);
    let used = there.f_blocks.saturating_sub(there.f_bfree).saturating_mul(block);
    mount_remount("/", MountFlags::empty(), size(used.saturating_add(limit))?).map_err(|_| cannot())
}

/// Puts memory over what is mounted at [`LOWER`].
fn overlay(limit: Option<u64>) -> Result<(), String> {
    for path in [UPPER, NEW] {
        directory(path)?;
    }
    let options = limit.map(size).transpose()?;
    mount("tmpfs", UPPER, "tmpfs", MountFlags::empty(), options.as_deref())
        .map_err(|error| format!("the guest's kernel has no memory for changes: {error}"))?;
    for name in ["changes", "work"] {
        directory(&format!("{UPPER}/{name}"))?;
    }
    let options = c"lowerdir=/sbx-lower,upperdir=/sbx-upper/changes,workdir=/sbx-upper/work";
    mount("overlay", NEW, "overlay", MountFlags::empty(), Some(options)).map_err(|error| {
        format!(
            "the root cannot be made writable: {}",
            match error {
                Errno::NODEV => "the guest's kernel has no overlay file system".to_string(),
                error => error.to_string(),
            }
        )
    })
}

fn size(bytes: u64) -> Result<CString, String> {
    // 0 would mean no limit.
    CString::new(format!("size={},mode=0755", bytes.max(1))).map_err(|error| error.to_string())
}

/// Mounts a disk at [`LOWER`], and says whether the workload may change it.
fn mount_disk(index: u8, read_only: bool) -> Result<bool, String> {
    let name = char::from(b'a'.saturating_add(index.min(25)));
    let path = format!("/dev/vd{name}");
    let _ = mkdir("/dev", Mode::from_raw_mode(0o755));
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None)
        .or_else(|error| if error == Errno::BUSY { Ok(()) } else { Err(error) })
        .map_err(|error| format!("the guest's kernel has no devtmpfs: {error}"))?;
    let start = first_bytes(&path)
        .map_err(|error| format!("the guest's kernel found no disk {path}: {error}"))?;
    let kind = kind(&start).ok_or_else(|| {
        format!("the disk holds no ext4, erofs or squashfs{}", partitions(&start))
    })?;
    let writable = kind == "ext4" && !read_only;
    let flags = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
    let result = match mount(&path, LOWER, kind, flags, None) {
        // A journal that was left with something in it cannot be played on a disk that is read-only.
        Err(_) if kind == "ext4" && !writable => mount(&path, LOWER, kind, flags, Some(c"noload")),
        result => result,
    };
    result.map_err(|error| match error {
        Errno::NODEV => format!("the guest's kernel has no {kind}, which the disk holds"),
        error => format!("the disk's {kind} cannot be mounted: {error}"),
    })?;
    Ok(writable)
}

/// Reads what tells file systems apart, once the kernel has the disk.
fn first_bytes(path: &str) -> Result<[u8; 2048], Errno> {
    let mut waited = 0;
    let disk = loop {
        match open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT | Errno::NXIO) if waited < DISK_WAIT => {
                waited += 1;
                let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
            }
            result => break result?,
        }
    };
    let mut start = [0; 2048];
    let mut filled = 0;
    while let Some(room) = start.get_mut(filled..).filter(|room| !room.is_empty()) {
        match rustix::io::read(&disk, room)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(start)
}

/// The file system that begins with these bytes.
fn kind(start: &[u8; 2048]) -> Option<&'static str> {
    if start.starts_with(b"hsqs") {
        return Some("squashfs");
    }
    let superblock = &start[1024..];
    if superblock.starts_with(&0xe0f5_e1e2_u32.to_le_bytes()) {
        return Some("erofs");
    }
    superblock[56..].starts_with(&0xef53_u16.to_le_bytes()).then_some("ext4")
}

fn partitions(start: &[u8; 2048]) -> &'static str {
    if start[510..].starts_with(&[0x55, 0xaa]) {
        "; it is divided into partitions: give sbx one partition's content alone"
    } else {
        ""
    }
}

/// Makes what is mounted at `path` the root of everything.
fn switch_to(path: &str) -> Result<(), String> {
    chdir(path)
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .map_err(|error| format!("the root cannot be entered: {error}"))
}

fn directory(path: &str) -> Result<(), String> {
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("the initramfs has no room for {path}: {error}")),
    }
}

/// Why virtio-fs does not mount.
pub(crate) fn why_not(error: Errno) -> String {
    match error {
        Errno::NODEV => String::from("the guest's kernel has no virtio-fs"),
        Errno::INVAL => String::from("the guest's kernel found no such virtio-fs device"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(at: usize, bytes: &[u8]) -> [u8; 2048] {
        let mut start = [0; 2048];
        start[at..at + bytes.len()].copy_from_slice(bytes);
        start
    }

    #[test]
    fn file_systems_are_told_by_their_superblock() {
        assert_eq!(kind(&with(0, b"hsqs")), Some("squashfs"));
        assert_eq!(kind(&with(1024, &[0xe2, 0xe1, 0xf5, 0xe0])), Some("erofs"));
        assert_eq!(kind(&with(1080, &[0x53, 0xef])), Some("ext4"));
        assert_eq!(kind(&[0; 2048]), None);
        assert_eq!(kind(&with(0, b"sqsh")), None, "the other byte order is not Linux's any more");
    }

    #[test]
    fn a_partitioned_disk_is_told_as_such() {
        assert!(partitions(&with(510, &[0x55, 0xaa])).contains("partitions"));
        assert_eq!(partitions(&[0; 2048]), "");
    }

    #[test]
    fn a_limit_of_nothing_is_not_taken_for_none() {
        assert_eq!(size(0).unwrap().as_bytes(), b"size=1,mode=0755");
    }
}
