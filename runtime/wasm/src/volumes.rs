//! Volumes: host directories, opened once by cap-std and handed to wasmtime-wasi as descriptors.
//!
//! Opening before the workload exists fixes what is shared: renaming or replacing the host path
//! later changes nothing. Everything below is resolved by wasmtime-wasi relative to the descriptor,
//! beneath it (`openat2` with `RESOLVE_BENEATH` where the kernel has it), with the permissions that
//! the grant gave.

use cap_std::fs::Dir;
use sbx_core::{Error, Result, Spec, spec::volume_of};
use sbx_host::landlock::Reachable;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

/// A volume that is open.
#[derive(Debug)]
pub(crate) struct Open {
    dir: OwnedFd,
    /// Where the workload sees it.
    pub(crate) guest: String,
    /// Whether changes are refused.
    pub(crate) read_only: bool,
}

/// Opens the volumes of `spec`, in order, and behind them the working directory as `.`, which is
/// where a preview 1 program starts. A volume at `/` is where such a program starts instead: its
/// libc cannot tell `.` from `/`. Programs that read `PWD` or `initial-cwd` are told in any case.
///
/// # Errors
/// A host side that is missing or is no directory, a working directory outside all volumes.
pub(crate) fn open(spec: &Spec) -> Result<Vec<Open>> {
    let mut opened = Vec::new();
    let mut dirs = Vec::new();
    for volume in &spec.volumes {
        let dir = Dir::from(sbx_host::volumes::open("volume", &volume.host)?);
        dirs.push(dir);
    }
    let start = spec.workdir.as_deref().map(|path| workdir(spec, &dirs, path)).transpose()?;
    for (dir, volume) in dirs.into_iter().zip(&spec.volumes) {
        let (guest, read_only) = (volume.guest.clone(), volume.read_only);
        opened.push(Open { dir: dir.into(), guest, read_only });
    }
    opened.extend(start.filter(|_| spec.volumes.iter().all(|v| v.guest != "/")));
    Ok(opened)
}

fn workdir(spec: &Spec, dirs: &[Dir], path: &str) -> Result<Open> {
    let (volume, below) = volume_of(&spec.volumes, path).ok_or_else(|| {
        Error::Refused(format!("the working directory {path} is in no volume; add one with -v"))
    })?;
    let below = if below.is_empty() { "." } else { below };
    let dir = dirs[volume].open_dir(below).map_err(|e| {
        Error::Refused(format!("the working directory {path} cannot be entered: {e}"))
    })?;
    let read_only = spec.volumes[volume].read_only;
    Ok(Open { dir: dir.into(), guest: ".".into(), read_only })
}

/// The volumes as the kernel is to know them.
pub(crate) fn reachable(volumes: &[Open]) -> impl Iterator<Item = Reachable<'_>> {
    volumes.iter().map(|v| Reachable { dir: v.dir.as_fd(), read_only: v.read_only })
}

/// Preopens the volumes. wasmtime-wasi takes paths; these name the descriptors themselves.
pub(crate) fn preopen(volumes: &[Open], wasi: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
    for Open { dir, guest, read_only } in volumes {
        let perms = if *read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        wasi.preopened_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()), guest, perms)?;
    }
    Ok(())
}
