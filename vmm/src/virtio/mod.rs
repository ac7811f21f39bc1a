//! The virtio protocol, once for all devices: what a device is ([`VirtioDevice`]), the walk of its
//! queues ([`queue`]), and the two ways in which it comes to its driver, after the OASIS specification
//! virtio 1.2: registers of its own ([`mmio`]) with a thread that serves it ([`worker`]), and, where
//! QEMU has the registers, a connection to that ([`vhost_user`]).
//!
//! A device says what it is and serves its queues; it never sees negotiation, status, interrupts or a
//! ring. Whatever the guest writes is hostile: a device answers nonsense with [`DeviceError`], upon
//! which the transport sets `DEVICE_NEEDS_RESET` and leaves the device alone until the driver resets it.

pub mod mmio;
pub mod queue;
#[cfg(test)]
pub(crate) mod testing;
pub mod vhost_user;
pub mod worker;

use std::os::fd::RawFd;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};

use crate::memory::GuestMemory;
use queue::Queue;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// What both ways to a driver, and the queues, do for every device.
const FEATURES: u64 = VERSION_1 | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Why a device stopped serving its guest.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The guest's rings make no sense.
    #[error("a broken queue: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// The guest asked for what the device's protocol does not allow.
    #[error("a protocol error: {0}")]
    Protocol(&'static str),
    /// The host failed the device.
    #[error("a failing host: {0}")]
    Host(#[from] std::io::Error),
}

/// What a device is given to work on, for the length of a call.
pub struct Io<'a> {
    /// The guest's memory.
    pub mem: &'a GuestMemory,
    /// The device's queues, in the order of [`VirtioDevice::queue_sizes`]. A queue that the driver has
    /// not set up yields nothing.
    pub queues: &'a mut [Queue],
    /// Set to have the transport announce a change of the configuration space.
    pub config_changed: bool,
}

/// A virtio device. The transport calls it with one thread at a time.
pub trait VirtioDevice: Send {
    /// The device's number in the specification's section 5.
    fn kind(&self) -> u32;

    /// The features it offers, beside those that the transport offers for all (`VERSION_1`,
    /// `RING_INDIRECT_DESC`, `RING_EVENT_IDX`).
    fn features(&self) -> u64 {
        0
    }

    /// The largest size of each queue.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from the configuration space; bytes behind its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes a write to the configuration space; most devices have nothing to write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready (`DRIVER_OK`), with these features negotiated.
    fn activate(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        Ok(())
    }

    /// The driver resets the device: everything is as it was when the device was made.
    fn reset(&mut self);

    /// The driver has put something into queue `index`. Called again after [`Self::process_host`] only
    /// if the driver does so again: a device that left chains in a queue for want of the host must take
    /// them up itself.
    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError>;

    /// The host's files that the device waits for, asked for before and after every call of `process_*`
    /// so that a device can stop listening to one that it cannot serve. `token` is the device's own.
    fn host_files(&self) -> Vec<HostFile> {
        Vec::new()
    }

    /// One of [`Self::host_files`] is ready.
    fn process_host(&mut self, _token: u32, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A file of the host's that a device waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// The open file; it stays open as long as the device lists it.
    pub fd: RawFd,
    /// What the device knows it by.
    pub token: u32,
    /// Whether being readable is of interest.
    pub read: bool,
    /// Whether being writable is of interest.
    pub write: bool,
}

/// Copies from a configuration space at `offset` into `data`; behind the end there are zeros.
pub fn read_config_space(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    if let Some(from) = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)) {
        let len = from.len().min(data.len());
        data[..len].copy_from_slice(&from[..len]);
    }
}
