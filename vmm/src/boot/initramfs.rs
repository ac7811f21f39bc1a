//! A writer of initramfs archives: cpio in the "newc" form, as Linux unpacks it into its first root
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! What a kernel is handed may be several archives one after the other: it unpacks each over what the
//! ones before have made. That is how the part that is dear to make, a kernel's modules, is kept from
//! start to start ([`super::pack`]), while the small rest is written anew. So every archive from here is
//! whole, with a trailer of its own, and as long as a multiple of [`ALIGNMENT`], as the next one's start
//! must be. Their order is the caller's.
//!
//! It does not compress: the guest would spend more time on unpacking than the host on copying. It makes
//! no hard links, all belongs to root, and all times are 0, so that equal content makes equal bytes.

use std::collections::HashSet;

/// Where an archive may start, in bytes from the start of the whole initramfs.
pub const ALIGNMENT: usize = 4;

/// The longest path, and the longest target of a link, in bytes: Linux silently skips longer ones
/// (`PATH_MAX`, which counts a NUL behind it).
const PATH_MAX: usize = 4095;

/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// The mode of directories that nobody asked for but that others are in.
const PARENT_MODE: u32 = 0o755;

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;
const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;

/// Why something cannot be in an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The path is empty, leads upwards, or has a byte that no path has.
    #[error(
        "{path:?} cannot be a path in an initramfs: name a file below the root, without \"..\" or NUL"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// The kernel would not see it.
    #[error(
        "a path or link of {length} bytes is too long for an initramfs: use one of at most 4095 bytes"
    )]
    PathLength {
        /// Its length in bytes.
        length: usize,
    },
    /// The format has 32 bits for a file's size.
    #[error(
        "{path:?} has {size} bytes, and a file in an initramfs has less than 4 GiB: put it on a disk or a volume"
    )]
    FileSize {
        /// The file's path.
        path: String,
        /// Its size in bytes.
        size: usize,
    },
}

/// An archive that is being written. Paths may start with `/`; they are below the root either way. What
/// is named twice is made twice, and the later one wins. Modes are permission bits, as for `chmod`.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: HashSet<String>,
    inode: u32,
}

/// What differs between entries besides their names.
#[derive(Default)]
struct Entry<'a> {
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

impl Archive {
    /// An archive of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. If it is there already, its mode changes.
    ///
    /// # Errors
    /// When the path cannot be one.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), Error> {
        self.add(path, Entry { mode: permissions(mode) | TYPE_DIRECTORY, ..Entry::default() })
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When the path cannot be one, or the content has 4 GiB or more.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        self.add(path, Entry { mode: permissions(mode) | TYPE_FILE, content, ..Entry::default() })
    }

    /// Adds a symbolic link. The target is not looked at, and may lead anywhere in the guest.
    ///
    /// # Errors
    /// When the path cannot be one, or the target is empty, too long, or has a NUL.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        if target.is_empty() || target.contains('\0') {
            return Err(Error::Path { path: target.to_owned() });
        }
        if target.len() > PATH_MAX {
            return Err(Error::PathLength { length: target.len() });
        }
        let content = target.as_bytes();
        self.add(path, Entry { mode: 0o777 | TYPE_SYMLINK, content, ..Entry::default() })
    }

    /// Adds a character device, such as `/dev/console` (5, 1), which Linux opens for its first process.
    ///
    /// # Errors
    /// When the path cannot be one.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<(), Error> {
        let mode = permissions(mode) | TYPE_CHARACTER_DEVICE;
        self.add(path, Entry { mode, device: (major, minor), ..Entry::default() })
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.write(TRAILER, 0, &Entry::default());
        self.bytes
    }

    fn add(&mut self, path: &str, entry: Entry<'_>) -> Result<(), Error> {
        let name = normal(path)?;
        let size = file_size(&name, entry.content.len())?;
        for (end, _) in name.match_indices('/') {
            let parent = &name[..end];
            if !self.directories.contains(parent) {
                self.directories.insert(parent.to_owned());
                let mode = PARENT_MODE | TYPE_DIRECTORY;
                self.write(parent, 0, &Entry { mode, ..Entry::default() });
            }
        }
        self.write(&name, size, &entry);
        if entry.mode & TYPE_DIRECTORY == TYPE_DIRECTORY {
            self.directories.insert(name);
        }
        Ok(())
    }

    /// Writes one entry: thirteen numbers, the name, the content, each of the latter two padded.
    fn write(&mut self, name: &str, size: u32, entry: &Entry<'_>) {
        // Numbers only tell hard links apart, of which there are none, so that wrapping is no harm.
        self.inode = self.inode.wrapping_add(1);
        // At most `PATH_MAX` and a NUL.
        let name_size = name.len() as u32 + 1;
        let (major, minor) = entry.device;
        self.bytes.reserve(128 + name.len() + entry.content.len());
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), name, check
        for number in [self.inode, entry.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0] {
            self.bytes.extend(hex(number));
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(entry.content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// The size as the format has it.
fn file_size(path: &str, size: usize) -> Result<u32, Error> {
    u32::try_from(size).map_err(|_| Error::FileSize { path: path.to_owned(), size })
}

/// What `chmod` may set, without the bits that make it another kind of file.
fn permissions(mode: u32) -> u32 {
    mode & 0o7777
}

fn hex(number: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xf];
    }
    digits
}

/// The path from the root, without `/` before it or twice.
fn normal(path: &str) -> Result<String, Error> {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let name = parts.join("/");
    if name.is_empty() || name == TRAILER || name.contains('\0') || parts.contains(&"..") {
        return Err(Error::Path { path: path.to_owned() });
    }
    if name.len() > PATH_MAX {
        return Err(Error::PathLength { length: name.len() });
    }
    Ok(name)
}

#[cfg(test)]
pub(super) mod tests;
