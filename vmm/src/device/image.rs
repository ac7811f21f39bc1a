//! A disk image on the host: opened, found to be raw, and locked.
//!
//! An image is a regular file or a block device whose bytes are the disk's. Other formats are refused by
//! their marks, since a guest would see their insides as its disk. A lock (`flock`) keeps two machines
//! from writing to one image; it ends with the process.
//!
//! It does NOT create images, nor make them longer.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// Bytes of a sector, which all of virtio-blk counts in.
pub const SECTOR: u64 = 512;

/// An open image.
#[derive(Debug)]
pub struct Image {
    pub(super) file: File,
    pub(super) read_only: bool,
    /// Whole sectors; never 0. What a file has behind the last of them, the guest does not see.
    pub(super) sectors: u64,
    /// Whether parts of it can be given back to the host.
    pub(super) holes: bool,
}

/// Why an image cannot be used. The first text is its path.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("there is no disk image '{0}'; make one with 'truncate -s 1G {0}'")]
    Missing(String),
    /// Neither a file nor a block device.
    #[error("'{0}' is {1}, and a disk image is a file or a block device")]
    Kind(String, &'static str),
    /// Less than a sector.
    #[error("the disk image '{0}' is empty; give it a size with 'truncate -s 1G {0}'")]
    Empty(String),
    /// Not for this user.
    #[error("the disk image '{0}' may not be {1}; change its permissions{2}")]
    Permission(String, &'static str, &'static str),
    /// Not raw.
    #[error("'{0}' is a {1} image; convert it with 'qemu-img convert -O raw {0} disk.raw'")]
    Format(String, &'static str),
    /// Another process has it.
    #[error(
        "the disk image '{0}' is in use by another machine; end that one, or add ':ro' to both"
    )]
    Locked(String),
    /// The host failed.
    #[error("the disk image '{0}' cannot be opened: {1}")]
    Host(String, #[source] io::Error),
}

impl Image {
    /// Opens the image, and locks it: for itself, or with other readers if `read_only`.
    ///
    /// # Errors
    /// [`ImageError`] has them all.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, ImageError> {
        let name = || path.display().to_string();
        let host = |error| ImageError::Host(name(), error);
        // A pipe would have the open wait for its other end.
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
        let opened = OpenOptions::new().read(true).write(!read_only).custom_flags(flags).open(path);
        let mut file = opened.map_err(|error| open_error(path, read_only, error))?;
        let kind = file.metadata().map_err(host)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let what = if kind.is_dir() { "a directory" } else { "a special file" };
            return Err(ImageError::Kind(name(), what));
        }
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => ImageError::Locked(name()),
            std::fs::TryLockError::Error(error) => host(error),
        })?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(host)?;
        let sectors = bytes / SECTOR;
        if sectors == 0 {
            return Err(ImageError::Empty(name()));
        }
        if let Some(format) = format(&file, bytes).map_err(host)? {
            return Err(ImageError::Format(name(), format));
        }
        let holes = kind.is_file() && !read_only && can_have_holes(&file, bytes);
        Ok(Self { file, read_only, sectors, holes })
    }

    /// The disk's size in bytes, a multiple of [`SECTOR`].
    pub fn size(&self) -> u64 {
        self.sectors * SECTOR
    }
}

fn open_error(path: &Path, read_only: bool, error: io::Error) -> ImageError {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => ImageError::Missing(path),
        io::ErrorKind::IsADirectory => ImageError::Kind(path, "a directory"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if read_only => {
            ImageError::Permission(path, "read", "")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ImageError::Permission(path, "written to", ", or add ':ro' to use it read-only")
        }
        _ => ImageError::Host(path, error),
    }
}

/// The name of a format that is not raw, by the marks of `qemu-img`'s.
fn format(file: &File, bytes: u64) -> io::Result<Option<&'static str>> {
    const AT_START: [(&[u8], &str); 6] = [
        (b"QFI\xfb", "qcow2"),
        (b"QED\0", "QED"),
        (b"KDMV", "VMDK"),
        (b"# Disk DescriptorFile", "VMDK"),
        (b"conectix", "VHD"),
        (b"vhdxfile", "VHDX"),
    ];
    let mut start = Vec::with_capacity(128);
    let mut from_start = file;
    from_start.seek(SeekFrom::Start(0))?;
    from_start.take(128).read_to_end(&mut start)?;
    if let Some((_, name)) = AT_START.iter().find(|(mark, _)| start.starts_with(mark)) {
        return Ok(Some(name));
    }
    if start.get(64..68) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return Ok(Some("VDI"));
    }
    // A VHD of fixed size is raw up to its footer.
    let mut footer = [0; 8];
    file.read_exact_at(&mut footer, bytes - SECTOR)?;
    Ok((footer == *b"conectix").then_some("VHD"))
}

/// Asks the file system by a hole behind the end, where there is nothing to lose.
fn can_have_holes(file: &File, bytes: u64) -> bool {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    bytes
        .checked_next_multiple_of(4096)
        .is_some_and(|behind| fallocate(file, flags, behind, 4096).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn refusal(path: &Path, read_only: bool) -> String {
        Image::open(path, read_only).unwrap_err().to_string()
    }

    #[test]
    fn a_partial_last_sector_is_cut_off() {
        let (_dir, path) = file(&[1; 1023]);
        assert_eq!(Image::open(&path, true).unwrap().size(), 512);
    }

    #[test]
    fn what_is_no_image_is_told() {
        let (dir, path) = file(&[0; 511]);
        assert!(refusal(&path, false).contains("is empty"));
        assert!(refusal(dir.path(), true).contains("is a directory"));
        assert!(refusal(dir.path(), false).contains("is a directory"));
        assert!(refusal(&dir.path().join("other"), true).contains("there is no disk image"));
        assert!(refusal(Path::new("/dev/null"), false).contains("is a special file"));
        let denied = open_error(&path, false, io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().ends_with("add ':ro' to use it read-only"));
    }

    #[test]
    fn other_formats_are_named() {
        let mut vdi = [0; 1024];
        vdi[64..68].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        let mut fixed = [0; 1024];
        fixed[512..520].copy_from_slice(b"conectix");
        let start = |mark: &[u8]| {
            let mut bytes = mark.to_vec();
            bytes.resize(1024, 0);
            bytes
        };
        for (bytes, name) in [
            (start(b"QFI\xfb"), "a qcow2 image"),
            (start(b"KDMV"), "a VMDK image"),
            (start(b"vhdxfile"), "a VHDX image"),
            (vdi.to_vec(), "a VDI image"),
            (fixed.to_vec(), "a VHD image"),
        ] {
            let (_dir, path) = file(&bytes);
            assert!(refusal(&path, true).contains(name), "{name}");
        }
    }

    #[test]
    fn one_writer_or_many_readers() {
        let (_dir, path) = file(&[0; 512]);
        let readers = [Image::open(&path, true).unwrap(), Image::open(&path, true).unwrap()];
        assert!(refusal(&path, false).contains("in use by another machine"));
        drop(readers);
        let _writer = Image::open(&path, false).unwrap();
        assert!(refusal(&path, true).contains("in use by another machine"));
    }
}
