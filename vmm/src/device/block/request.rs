//! A disk's request, taken apart. It does NOT know what the requests mean.

use vm_memory::GuestAddress;

use crate::device::segments::Segments;
use crate::virtio::DeviceError;
use crate::virtio::queue::Chain;

/// Bytes of a request's header.
pub(super) const HEADER: u64 = 16;
/// Pieces of data in a request: what fits in the queue beside header and status.
pub(super) const SEG_MAX: u32 = 254;
/// Descriptors of a request, with those for header and status.
const MOST_SEGMENTS: usize = SEG_MAX as usize + 2;

/// A request, taken apart.
pub(super) struct Request {
    pub(super) header: Segments,
    /// What the guest gives.
    pub(super) data: Segments,
    /// Where the guest wants an answer.
    pub(super) room: Segments,
    pub(super) status: GuestAddress,
}

impl Request {
    pub(super) fn new(chain: &Chain<'_>) -> Result<Self, DeviceError> {
        let (mut data, mut room) = (Segments::default(), Segments::default());
        for (count, descriptor) in chain.descriptors().enumerate() {
            if count >= MOST_SEGMENTS {
                return Err(DeviceError::Protocol(
                    "a disk request of more pieces than were offered",
                ));
            }
            let into = if descriptor.is_write_only() { &mut room } else { &mut data };
            if descriptor.len() > 0 {
                into.0.push((descriptor.addr(), u64::from(descriptor.len())));
            }
        }
        let Some(for_answer) = room.len().checked_sub(1) else {
            return Err(DeviceError::Protocol("a disk request without room for a status"));
        };
        let header = data.split(HEADER);
        let answer = room.split(for_answer);
        let status = room.0.first().map_or(GuestAddress(u64::MAX), |(address, _)| *address);
        Ok(Self { header, data, room: answer, status })
    }
}
