//! Every device that the target `device` tries: one line each. A constructor makes the device as new,
//! with nothing outside of this process behind it.

use sbx_vmm::virtio::VirtioDevice;

use crate::probe::Probe;

/// What makes a device.
pub type Constructor = fn() -> Box<dyn VirtioDevice>;

/// The devices.
pub const DEVICES: &[Constructor] = &[|| Box::new(Probe)];
