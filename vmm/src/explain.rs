//! `--explain`: the machine that a workload would get, and what it would be granted; without building
//! one.

use sbx_core::explain::Explanation;
use sbx_core::{Result, Spec};

use crate::accel::Accelerator;
use crate::boot::board;
use crate::fs::Access;
use crate::plan::{self, Device};

/// Describes how `spec` would be run, as text for people. `why` is the reason for taking a machine, as a
/// half-sentence behind "because".
///
/// # Errors
/// As for running it, as far as that can be known before.
pub fn explain(spec: &Spec, why: &str) -> Result<String> {
    let accelerator = Accelerator::find(spec.machine.accel);
    let plan = plan::plan(spec, accelerator.as_ref().map_or(&board::KVM, Accelerator::board))?;
    let mut text = Explanation::default();
    text.line("workload", spec.workload.display());
    text.line("backend", format_args!("vm, because {why}"));
    match accelerator {
        Ok(accelerator) => text.line("accelerator", accelerator.name()),
        Err(e) => text.line("accelerator", format_args!("none: {e}")),
    }
    text.line("kernel", plan.kernel.path.display());
    text.line("cmdline", &plan.cmdline);
    let memory = sbx_core::units::format_size(plan.memory);
    text.line("machine", format_args!("{memory} of memory, processors: {}", plan.cpus));
    let devices: Vec<&str> = plan.devices.iter().map(name).collect();
    text.line("devices", devices.join(", "));
    text.grants(spec);
    Ok(text.finish())
}

fn name(device: &Device) -> &'static str {
    match device {
        Device::Rng => "rng",
        Device::Balloon => "balloon",
        Device::Vsock => "vsock",
        Device::Console => "console",
        Device::Block { .. } => "block",
        Device::Net { .. } => "net",
        Device::Fs { access: Access::ReadWrite, .. } => "fs",
        Device::Fs { .. } => "fs (read-only)",
    }
}
