//! Which version of Linux a kernel file holds, and where the modules of that version are.
//!
//! A version is what `uname -r` says, such as `6.1.0-56-cloud-amd64`. It is read from the kernel itself,
//! since files are renamed; the file's name is asked last. It becomes part of a path on the host, so
//! that only what is harmless in one is taken for a version.
//!
//! Nothing here decides whether a kernel needs modules: one with all drivers built in has none.

use std::path::{Path, PathBuf};

/// The longest version: what `uname` has room for, less its NUL.
const VERSION_MAX: usize = 64;

/// Where a bzImage's setup header has the offset of its version (Linux boot protocol 2.00,
/// `kernel_version`), and what that offset counts from.
const VERSION_POINTER: usize = 0x20e;
const VERSION_BASE: usize = 0x200;

/// Where a bzImage's setup header has its magic number, and which it is.
const HEADER_MAGIC: usize = 0x202;
const HDRS: &[u8] = b"HdrS";

/// What precedes the version in a kernel's data, as `/proc/version` shows it.
const BANNER: &[u8] = b"Linux version ";

/// How much of a decompressed kernel is searched. The banner is at the start of its constants, behind
/// some 20 MB of code in the largest kernels that distributions ship.
const SEARCH_MAX: usize = 256 << 20;

/// No directory with a kernel's modules.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel {version} has its drivers as modules, and there are none in {}: install the package that this kernel came from, or put its modules there",
    join(looked)
)]
pub struct NoModules {
    /// The kernel's version.
    pub version: Version,
    /// Where they were looked for.
    pub looked: Vec<PathBuf>,
}

/// The version of a kernel, which is safe as a part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// Takes a version as `uname -r` prints it, if it can be one.
    pub fn parse(text: &str) -> Option<Self> {
        let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
        let first = text.bytes().next()?;
        (first.is_ascii_digit() && text.len() <= VERSION_MAX && text.bytes().all(harmless))
            .then(|| Self(text.to_owned()))
    }

    /// The version of a kernel: a bzImage, of which the first 64 KiB are enough, or a decompressed one
    /// (`vmlinux`). `path` is the file's, whose name counts if the content tells nothing.
    pub fn of_kernel(image: &[u8], path: &Path) -> Option<Self> {
        from_setup_header(image)
            .or_else(|| from_banner(image))
            .or_else(|| Self::parse(path.file_name()?.to_str()?.split_once('-')?.1))
    }

    /// The version of a bzImage, of which the first 64 KiB are enough; nothing if it is none.
    pub fn of_bzimage(image: &[u8]) -> Option<Self> {
        from_setup_header(image)
    }

    /// As `uname -r` prints it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory with a kernel's modules: in the tree that the kernel's file is in, if it is in a `boot`
/// directory there, below the directory of the file, or the host's own.
///
/// # Errors
/// When none of them is there. It says where they were looked for.
pub fn modules_directory(kernel: &Path, version: &Version) -> Result<PathBuf, NoModules> {
    search(candidates(kernel, version), version)
}

fn search(looked: Vec<PathBuf>, version: &Version) -> Result<PathBuf, NoModules> {
    // A package that was removed may leave a directory with nothing but lists behind.
    match looked.iter().find(|dir| dir.join("kernel").is_dir()) {
        Some(found) => Ok(found.clone()),
        None => Err(NoModules { version: version.clone(), looked }),
    }
}

fn candidates(kernel: &Path, version: &Version) -> Vec<PathBuf> {
    // Links such as /vmlinuz lead to where the modules are, too.
    let kernel = kernel.canonicalize().unwrap_or_else(|_| kernel.to_owned());
    let mut places = Vec::new();
    if let Some(dir) = kernel.parent() {
        if dir.file_name().is_some_and(|name| name == "boot")
            && let Some(root) = dir.parent()
        {
            // The second is where packages have them that were not installed but only unpacked.
            places.push(root.join("lib/modules"));
            places.push(root.join("usr/lib/modules"));
        }
        places.push(dir.join("modules"));
    }
    let host = PathBuf::from("/lib/modules");
    if !places.contains(&host) {
        places.push(host);
    }
    places.into_iter().map(|place| place.join(version.as_str())).collect()
}

/// From the text that a bzImage's header points at: the version, who built it, when.
fn from_setup_header(image: &[u8]) -> Option<Version> {
    if !image.get(HEADER_MAGIC..)?.starts_with(HDRS) {
        return None;
    }
    let pointer = image.get(VERSION_POINTER..VERSION_POINTER + 2)?;
    match u16::from_le_bytes(pointer.try_into().ok()?) {
        0 => None,
        offset => first_word(image.get(usize::from(offset) + VERSION_BASE..)?),
    }
}

/// From the first banner in a kernel's data that names a version; others are patterns for printing.
fn from_banner(image: &[u8]) -> Option<Version> {
    let searched = &image[..image.len().min(SEARCH_MAX)];
    memchr::memmem::find_iter(searched, BANNER)
        .find_map(|at| first_word(&searched[at + BANNER.len()..]))
}

fn first_word(text: &[u8]) -> Option<Version> {
    let text = &text[..text.len().min(VERSION_MAX + 1)];
    let end = text.iter().position(|b| matches!(b, b' ' | b'\0' | b'\n'))?;
    Version::parse(std::str::from_utf8(&text[..end]).ok()?)
}

fn join(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
