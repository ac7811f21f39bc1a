//! A queue of one device: rust-vmm's ring, and what all devices do with it.
//!
//! [`Queue::pop`] takes what the driver offers, [`Queue::push`] gives it back. A chain's bytes are read
//! and written through [`Chain::reader`] and [`Chain::writer`], which cannot leave guest memory nor run
//! past the chain, and which refuse chains of overlong or circular descriptors.

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue as Ring, QueueOwnedT, QueueT, Reader, Writer};

use super::DeviceError;
use crate::memory::GuestMemory;

/// One queue.
#[derive(Debug)]
pub struct Queue {
    pub(super) ring: Ring,
    /// Whether something was given back that the driver has not been told of.
    pub(super) used: bool,
    /// How many chains the device may still take in this call: the transport sets it, lest a driver that
    /// refills its ring as fast as it is served keep the thread from every other device.
    pub(super) budget: u32,
    /// Whether the device would have taken one more chain.
    pub(super) starved: bool,
}

/// What follows for one queue from a call of its device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// The driver wants to be interrupted for what was given back.
    pub(super) interrupt: bool,
    /// The driver has offered more, unnoticed, that the device would take.
    pub(super) again: bool,
}

/// Allots each queue one ring's worth of chains for the next call of its device: whoever has more is
/// called again, after the others.
pub(super) fn allot(queues: &mut [Queue]) {
    for queue in queues {
        queue.budget = u32::from(queue.ring.size());
        queue.starved = false;
    }
}

/// What the driver offers: first bytes to read, then room to write to.
pub struct Chain<'a> {
    chain: DescriptorChain<&'a GuestMemory>,
    mem: &'a GuestMemory,
}

impl Queue {
    /// A queue of at most `max_size` (a power of two up to 32768) entries.
    pub fn new(max_size: u16) -> Result<Self, DeviceError> {
        Ok(Self { ring: Ring::new(max_size)?, used: false, budget: u32::MAX, starved: false })
    }

    /// Takes the next chain; nothing while the driver has not set the queue up, or offers none, or the
    /// device had its share for now: the transport calls it again when there is more.
    pub fn pop<'a>(&mut self, mem: &'a GuestMemory) -> Result<Option<Chain<'a>>, DeviceError> {
        if !self.ring.ready() {
            return Ok(None);
        }
        let chain = if self.budget == 0 { None } else { self.ring.iter(mem)?.next() };
        match chain {
            Some(_) => self.budget -= 1,
            None => self.starved = true,
        }
        Ok(chain.map(|chain| Chain { chain, mem }))
    }

    /// Puts back the chain that was popped last, for want of the host.
    pub fn unpop(&mut self) {
        self.ring.go_to_previous_position();
        self.budget = self.budget.saturating_add(1);
    }

    /// After a call of the device: finds out whether the driver wants to know of what was given back, and
    /// asks it to notify of what it offers from here on.
    pub(super) fn settle(&mut self, mem: &GuestMemory) -> Result<Settled, DeviceError> {
        if !self.ring.ready() {
            return Ok(Settled { interrupt: false, again: false });
        }
        let used = std::mem::take(&mut self.used);
        let interrupt = used && self.ring.needs_notification(mem)?;
        let more = self.ring.enable_notification(mem)?;
        Ok(Settled { interrupt, again: more && self.starved })
    }

    /// Gives the chain with this head back to the driver, `written` bytes of it filled.
    pub fn push(&mut self, mem: &GuestMemory, head: u16, written: u32) -> Result<(), DeviceError> {
        self.ring.add_used(mem, head, written)?;
        self.used = true;
        Ok(())
    }
}

impl<'a> Chain<'a> {
    /// What [`Queue::push`] knows the chain by.
    pub fn head(&self) -> u16 {
        self.chain.head_index()
    }

    /// The bytes that the driver wrote for the device.
    pub fn reader(&self) -> Result<Reader<'a>, DeviceError> {
        Ok(self.chain.clone().reader(self.mem)?)
    }

    /// The room that the driver left for the device's answer.
    pub fn writer(&self) -> Result<Writer<'a>, DeviceError> {
        Ok(self.chain.clone().writer(self.mem)?)
    }

    /// The descriptors themselves, for devices whose protocol is about addresses (balloon).
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> + 'a {
        self.chain.clone()
    }
}
