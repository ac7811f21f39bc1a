//! What the workload is, and how its guest comes to run it.

use sbx_core::{Error, Result, Spec};
use sbx_host::workload;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::boot::image::{self, ImageError, Looks};
use crate::boot::program::Program;

/// Where a program that is packed into the initial RAM disk is.
const PACKED: &str = "app";

/// A workload and the kernel under it.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The kernel's file, where the workload names it.
    pub(crate) kernel: Option<PathBuf>,
    /// What runs on it.
    pub(crate) runs: Runs,
}

/// What runs on a kernel.
#[derive(Debug)]
pub(crate) enum Runs {
    /// A program that is in the guest, with its arguments.
    InGuest(Vec<OsString>),
    /// A program of the host's that needs nothing but a kernel.
    Packed {
        /// Its file's name.
        name: OsString,
        /// Its file's content.
        content: Vec<u8>,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// The user's own initial RAM disk.
    OwnInit(PathBuf),
}

impl Runs {
    /// Name and arguments of the program, as the guest knows it.
    pub(crate) fn argv(&self) -> Vec<OsString> {
        match self {
            Self::InGuest(argv) => argv.clone(),
            Self::Packed { name, args, .. } => {
                let path = format!("/{}", Self::packed_path(name)).into();
                std::iter::once(path).chain(args.iter().cloned()).collect()
            }
            Self::OwnInit(_) => Vec::new(),
        }
    }

    /// The packed program's path in the archive, and below the guest's root. What is no text in its name
    /// is replaced.
    pub(crate) fn packed_path(name: &OsStr) -> String {
        format!("{PACKED}/{}", name.to_string_lossy())
    }
}

/// Looks at the workload.
///
/// # Errors
/// When there is none, or it is nothing that a microVM runs.
pub(crate) fn resolve(spec: &Spec) -> Result<Workload> {
    let path = &spec.workload;
    let has_root = spec.machine.rootfs.is_some() || !spec.machine.disks.is_empty();
    let looks = look(path);
    if let Ok((Looks::BzImage | Looks::Vmlinux, _)) = looks {
        let kernel = Some(path.clone());
        return Ok(Workload { kernel, runs: on_kernel(spec)? });
    }
    if let Some(initrd) = &spec.machine.initrd {
        return Err(match looks {
            Err(e @ Error::NotFound(_)) => e,
            _ => Error::NotRunnable(format!(
                "{} is not a Linux kernel, and --initrd {} needs one as the workload, such as \
                 /boot/vmlinuz",
                path.display(),
                initrd.display()
            )),
        });
    }
    if has_root {
        // The path means the guest's file, whatever the host has there.
        let argv = std::iter::once(path.clone().into_os_string()).chain(spec.args.iter().cloned());
        return Ok(Workload { kernel: None, runs: Runs::InGuest(argv.collect()) });
    }
    let (Looks::Program(program), file) = looks? else {
        return Err(Error::NotRunnable(format!("{} cannot be run", path.display())));
    };
    if let Program::Dynamic { interpreter } = program {
        return Err(Error::NotRunnable(format!(
            "{} needs {interpreter} and shared libraries, which are in no guest by themselves; give \
             it a root that has them with --rootfs, or link it statically",
            path.display()
        )));
    }
    let name = path.file_name().unwrap_or(OsStr::new("program")).to_owned();
    let content = workload::read(&file, path)?;
    Ok(Workload { kernel: None, runs: Runs::Packed { name, content, args: spec.args.clone() } })
}

fn look(path: &Path) -> Result<(Looks, std::fs::File)> {
    let (file, _) = workload::open(path)?;
    let head = image::head(&file).and_then(|head| image::recognise(&head));
    match head {
        Ok(looks) => Ok((looks, file)),
        Err(e) => Err(Error::NotRunnable(match e {
            ImageError::Empty => format!("{} is empty; name a program or a kernel", path.display()),
            e => format!("{} cannot be run in a microVM: {e}", path.display()),
        })),
    }
}

/// What is to run on the kernel that is the workload.
fn on_kernel(spec: &Spec) -> Result<Runs> {
    let args = match spec.args.as_slice() {
        // What docker, env and others do with it too.
        [first, rest @ ..] if first.as_bytes() == b"--" => rest,
        args => args,
    };
    let name = spec.workload.display();
    match (&spec.machine.initrd, args) {
        (Some(initrd), []) => Ok(Runs::OwnInit(initrd.clone())),
        (Some(_), _) => Err(Error::Refused(
            "with --initrd there is no init of sbx's to run a program; leave the program out, or \
             name it to your own init with --cmdline"
                .into(),
        )),
        (None, []) => Err(Error::Refused(format!(
            "{name} is a kernel, and nothing was named to run on it; put a program of the guest's \
             behind it, such as: sbx run --vm {name} -- /bin/echo hi"
        ))),
        (None, args) => Ok(Runs::InGuest(args.to_vec())),
    }
}
