//! The guest's kernel: which file it is, and what is made of it once and kept.
//!
//! A kernel is booted from its ELF image. A bzImage has it compressed: taking it out is the better part
//! of a second, so that the image goes to the cache. So does the archive of the modules that sbx's init
//! loads.

use sbx_core::{Error, Result};
use sbx_host::cache::{Cache, Key};
use sbx_host::workload;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::boot::bzimage::{self, Payload};
use crate::boot::image::{self, Image, ImageError};
use crate::boot::version::{self, Version};
use crate::boot::{modules, pack};

/// The cache's words for an image and for an archive of modules.
const IMAGE: &str = "kernel";
const MODULES: &str = "modules";

/// How much of a bzImage is looked at for its version.
const HEAD: usize = 64 << 10;

/// The modules that sbx's guests need of a kernel that has them not built in, for the devices and the
/// file systems that a machine can have.
const WANTED: &[&str] = &[
    "virtio_mmio",
    "vmw_vsock_virtio_transport",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "virtiofs",
    "overlay",
    "ext4",
    "erofs",
    "squashfs",
];

/// A kernel that can be booted.
#[derive(Debug)]
pub struct Kernel {
    /// The file that it comes from.
    pub path: PathBuf,
    /// Its ELF image.
    pub image: File,
    /// The modules that it may need, as the first part of an initial RAM disk; empty if it has all built
    /// in, or none were found.
    pub modules: Vec<u8>,
}

/// Where the user's own default kernel is put.
pub fn own_place() -> PathBuf {
    data_dirs().into_iter().next().unwrap_or_else(|| "/usr/share".into()).join("sbx/vmlinux")
}

/// Finds the kernel to boot: the one named by flag or policy, or the first of the user's, the system's
/// and the host's own.
///
/// # Errors
/// When there is none.
pub fn find(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let names = ["sbx/vmlinux", "sbx/vmlinuz"];
    let installed = data_dirs().into_iter().flat_map(|dir| names.map(|name| dir.join(name)));
    installed.chain(host_kernels()).find(|path| File::open(path).is_ok()).ok_or_else(|| {
        Error::Refused(format!(
            "there is no kernel for the guest; name one with --kernel, or put one at {}",
            own_place().display()
        ))
    })
}

/// The data directories of the XDG base directory specification, the user's own first.
fn data_dirs() -> Vec<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = var("XDG_DATA_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(var("HOME")?).join(".local/share")));
    let shared = var("XDG_DATA_DIRS").unwrap_or_else(|| "/usr/local/share:/usr/share".into());
    own.into_iter().chain(std::env::split_paths(&shared)).filter(|dir| dir.is_absolute()).collect()
}

/// The kernels in the host's /boot: the running one first, then from the newest.
fn host_kernels() -> Vec<PathBuf> {
    let running = rustix::system::uname();
    let running = format!("vmlinuz-{}", running.release().to_string_lossy());
    let entries = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let mut kernels: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .map(|entry| (entry.metadata().and_then(|meta| meta.modified()).ok(), entry.path()))
        .collect();
    kernels.sort_by_key(|(time, path)| (path.ends_with(&running), *time));
    kernels.into_iter().rev().map(|(_, path)| path).collect()
}

/// Makes the kernel in the file at `path` ready.
///
/// # Errors
/// When there is no such file, or it is not a kernel that can be booted.
pub fn load(path: &Path) -> Result<Kernel> {
    let (file, meta) = workload::open(path).map_err(|e| match e {
        Error::NotFound(_) => Error::NotFound(format!("there is no kernel at {}", path.display())),
        e => e,
    })?;
    let source = Source { path, meta: &meta };
    // Without a cache sbx works as well, only slower.
    let cache = Cache::open().ok();
    let image = match image::open(&file).map_err(|e| not_bootable(path, &e))? {
        Image::Vmlinux(_) => file.try_clone().map_err(|e| source.lost(e))?,
        Image::BzImage(payload) => {
            let digest = || Ok(Key::of_bytes(&workload::read(&file, path)?, IMAGE));
            source.made(cache.as_ref(), IMAGE, Some(&digest), |out| {
                extract(&file, &payload, out).map_err(|e| not_bootable(path, &e))
            })?
        }
    };
    // Where a kernel is decides which modules it has: a copy of it elsewhere has others.
    let mut from =
        source.made(cache.as_ref(), MODULES, None, |out| archive(path, &file, &image, out))?;
    let mut modules = Vec::new();
    from.read_to_end(&mut modules).map_err(|e| source.lost(e))?;
    Ok(Kernel { path: path.to_owned(), image, modules })
}

/// Writes the ELF image that a bzImage holds, complete and checked.
fn extract(file: &File, payload: &Payload, out: &mut File) -> std::result::Result<(), ImageError> {
    bzimage::extract(file, payload, out)?;
    match image::open(out)? {
        Image::Vmlinux(_) => Ok(()),
        Image::BzImage(_) => Err(ImageError::Unknown),
    }
}

fn not_bootable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::NotRunnable(format!("cannot boot {}: {why}", path.display()))
}

/// What the cache's records are about.
struct Source<'a> {
    path: &'a Path,
    meta: &'a Metadata,
}

impl Source<'_> {
    /// Finds what `make` made of this file earlier, or has it made, into the cache if there is one. With
    /// a `digest`, what was made of another file of the same content will do.
    fn made(
        &self,
        cache: Option<&Cache>,
        kind: &'static str,
        digest: Option<&dyn Fn() -> Result<Key>>,
        make: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<File> {
        let identity = Key::of_file(self.meta, kind);
        let found = |key: &Key| cache?.find(key, &[kind]).map(|(_, file)| file);
        if let Some(file) = identity.as_ref().and_then(found) {
            return Ok(file);
        }
        let key = match digest {
            Some(digest) if cache.is_some() => Some(digest()?),
            _ => identity.clone(),
        };
        let place = cache.zip(key.as_ref());
        // Whoever comes second finds what the first has made.
        let _lock = place.and_then(|(cache, key)| cache.lock(key).ok());
        let file = match key.as_ref().and_then(found) {
            Some(file) => file,
            None => self.make(place, kind, make)?,
        };
        if let (Some((cache, key)), Some(identity)) = (place, &identity)
            && identity != key
        {
            // The next start reads and hashes the file again if this fails.
            let _ = cache.alias(identity, key);
        }
        Ok(file)
    }

    fn make(
        &self,
        place: Option<(&Cache, &Key)>,
        kind: &'static str,
        make: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<File> {
        let draft = place.and_then(|(cache, key)| Some((cache, key, cache.draft(key).ok()?)));
        match draft {
            Some((cache, key, mut draft)) => {
                make(&mut draft.file)?;
                // Published or not, the file is there as long as it is open.
                let _ = cache.publish(key, kind, &draft);
                rewound(&draft.file).map_err(|e| self.lost(e))
            }
            None => {
                let memory =
                    rustix::fs::memfd_create("sbx-kernel", rustix::fs::MemfdFlags::CLOEXEC);
                let mut file = File::from(memory.map_err(|e| self.lost(e.into()))?);
                make(&mut file)?;
                rewound(&file).map_err(|e| self.lost(e))
            }
        }
    }

    fn lost(&self, e: io::Error) -> Error {
        Error::host(format!("keep what is made of {}", self.path.display()), e)
    }
}

/// A file that was just written, to be read from its start.
fn rewound(file: &File) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
}

/// Writes the modules of a kernel as an archive.
fn archive(path: &Path, file: &File, image: &File, out: &mut File) -> Result<()> {
    let Some(version) = version_of(path, file, image)? else { return Ok(()) };
    let Ok(dir) = version::modules_directory(path, &version) else {
        // It may need none. What a guest without its drivers comes to is told then.
        return Ok(());
    };
    let needed = modules::gather(&dir, WANTED).map_err(|e| Error::NotRunnable(e.to_string()))?;
    let archive = pack::segment(&needed.modules).map_err(|e| Error::NotRunnable(e.to_string()))?;
    out.write_all(&archive).map_err(|e| Error::host("write the guest's modules", e))
}

fn version_of(path: &Path, mut file: &File, image: &File) -> Result<Option<Version>> {
    let failed = |e| Error::host(format!("read {}", path.display()), e);
    let mut head = vec![0; HEAD];
    file.rewind().map_err(failed)?;
    let len = file.read(&mut head).map_err(failed)?;
    if let Some(version) = Version::of_bzimage(&head[..len]) {
        return Ok(Some(version));
    }
    let len = image.metadata().map_err(failed)?.len();
    let mut all = vec![0; usize::try_from(len).unwrap_or(0)];
    image.read_exact_at(&mut all, 0).map_err(failed)?;
    Ok(Version::of_kernel(&all, path))
}
