//! Which backend holds a workload: decided here, once, from what is asked for and from the first bytes
//! of the workload's file. Its name decides nothing.

use serde::{Deserialize, Serialize};

use crate::Spec;

/// How much of a workload's start [`route`] wants to see, in bytes: enough for every magic number.
pub const HEAD: usize = 520;

/// A kind of sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A WebAssembly sandbox.
    Wasm,
    /// A microVM.
    Vm,
}

/// A decision and its reason, as a half-sentence behind "because".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the workload goes.
    pub kind: Kind,
    /// Why.
    pub why: String,
}

/// Decides for a workload that starts with `head`; without one, the workload's file cannot be read.
pub fn route(spec: &Spec, head: Option<&[u8]>) -> Route {
    let to = |kind, why: &str| Route { kind, why: why.into() };
    if let Some(kind) = spec.backend {
        return to(kind, "it was asked for");
    }
    if let Some(flag) = spec.machine.named().first() {
        return to(Kind::Vm, &format!("{flag} was given, which only a machine has"));
    }
    match head {
        Some([0x7f, b'E', b'L', b'F', ..]) => to(Kind::Vm, "the file is native code (ELF)"),
        // The setup header of Linux on x86 (Documentation/arch/x86/boot.rst), and of arm64.
        Some(head) if head.get(0x202..0x206) == Some(b"HdrS") => {
            to(Kind::Vm, "the file is a Linux kernel")
        }
        Some(head) if head.get(0x38..0x3c) == Some(b"ARMd") => {
            to(Kind::Vm, "the file is a Linux kernel")
        }
        // The WebAssembly backend says best what else a file is.
        _ => to(Kind::Wasm, "the file is not native code"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_decide() {
        let kind = |head: &[u8]| route(&Spec::default(), Some(head)).kind;
        assert_eq!(kind(b"\0asm\x01\0\0\0"), Kind::Wasm);
        assert_eq!(kind(b"(module)"), Kind::Wasm);
        assert_eq!(kind(b""), Kind::Wasm);
        assert_eq!(kind(b"\x7fELF\x02"), Kind::Vm);
        let mut kernel = [0; HEAD];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(kind(&kernel), Kind::Vm);
        assert_eq!(route(&Spec::default(), None).kind, Kind::Wasm);
    }

    #[test]
    fn what_is_asked_for_wins() {
        let mut spec = Spec { backend: Some(Kind::Wasm), ..Spec::default() };
        assert_eq!(route(&spec, Some(b"\x7fELF")).kind, Kind::Wasm);
        spec.backend = None;
        spec.machine.rootfs = Some("/".into());
        assert_eq!(route(&spec, Some(b"\0asm")).kind, Kind::Vm);
    }
}
