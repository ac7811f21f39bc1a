//! Which of the two executors a machine gets: KVM where hardware backs it, else QEMU's software emulation
//! where that is installed.

use kvm_ioctls::Kvm;
use sbx_core::machine::Accel;
use sbx_core::{Error, Result};
use std::path::PathBuf;

use crate::boot::board::{self, Board};
use crate::kvm::{self, KvmError};
use crate::machine::Executor;
use crate::qemu::{self, Qemu};

/// How much slower programs run whose processor is emulated in software, about: measured with gzip (3),
/// sha256sum (4), loops over floating-point numbers and over memory at random (15 each). Some loops over
/// integers are not slower at all.
pub const SLOWER: &str = "3 to 15 times";

/// How to get QEMU, as the end of a sentence.
pub const INSTALL: &str = qemu::INSTALL;

/// The QEMU that would be taken, if there is one.
pub fn emulator() -> Option<PathBuf> {
    qemu::find()
}

/// An executor that can be had here.
pub enum Accelerator {
    /// KVM, open.
    Kvm(Kvm),
    /// QEMU, at this path.
    Tcg(PathBuf),
}

impl Accelerator {
    /// Finds the executor that was asked for.
    ///
    /// # Errors
    /// What is missing for it, and how to mend that.
    pub fn find(asked: Accel) -> Result<Self> {
        match asked {
            Accel::Kvm => kvm::open().map(Self::Kvm).map_err(|e| Error::Refused(e.to_string())),
            Accel::Tcg => qemu::find().map(Self::Tcg).ok_or_else(|| {
                Error::Refused(format!("software emulation needs QEMU, {}", qemu::INSTALL))
            }),
            Accel::Auto => match kvm::open() {
                Ok(kvm) => Ok(Self::Kvm(kvm)),
                Err(e) => qemu::find().map(Self::Tcg).ok_or_else(|| neither(&e)),
            },
        }
    }

    /// `kvm` or `tcg`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm(_) => "kvm",
            Self::Tcg(_) => "tcg",
        }
    }

    /// What a user has to know of it before the guest runs, if anything. `asked` is what was asked for.
    pub fn notice(&self, asked: Accel) -> Option<String> {
        let Self::Tcg(_) = self else { return None };
        let why = match asked {
            Accel::Auto => "this host has no KVM that is backed by hardware",
            Accel::Kvm | Accel::Tcg => "as asked for",
        };
        Some(format!(
            "the guest's processor is emulated in software, and {SLOWER} slower ({why}); --quiet leaves \
             this notice out"
        ))
    }

    pub(crate) fn board(&self) -> &'static Board {
        match self {
            Self::Kvm(_) => &board::KVM,
            Self::Tcg(_) => &board::MICROVM,
        }
    }

    pub(crate) fn executor(self) -> Box<dyn Executor> {
        match self {
            Self::Kvm(kvm) => Box::new(kvm),
            Self::Tcg(program) => Box::new(Qemu::new(program)),
        }
    }
}

fn neither(kvm: &KvmError) -> Error {
    let text = kvm.to_string();
    // What is wrong with KVM comes first in its sentence, and how to mend it behind.
    let (what, mend) = text.split_once(&[':', ';'][..]).unwrap_or((&text, ""));
    let mend = mend.trim();
    let or = if mend.is_empty() { "" } else { ", or " };
    Error::Refused(format!(
        "{what}; {mend}{or}for software emulation install QEMU, {}",
        qemu::INSTALL
    ))
}
