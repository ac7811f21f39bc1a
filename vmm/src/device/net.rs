//! A network interface (virtio 1.2, 5.1), joined to a [`Link`] of the host's, which is a TAP device.
//!
//! Packets pass with their virtio-net headers, so that checksums and segmentation are left to whichever
//! side has the hardware; the kernel checks the headers. Each packet is copied once, through a buffer
//! of the largest one. While the guest has no room, or a rate limit is used up, nothing is read from the
//! link, whose own queue then fills and drops, as that of a real interface does.
//!
//! It does NOT have a control queue, several queue pairs, filters, or a link that goes down; and it does
//! not keep the guest from sending with another's address, which is for the host's firewall.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use vm_memory::ReadVolatile;

use super::rate::{Rate, Throttle};
use super::segments::{Outside, Segments};
use super::tap::Tap;
use crate::memory::GuestMemory;
use crate::virtio::queue::{Chain, Queue};
use crate::virtio::{DeviceError, HostFile, Io, VirtioDevice, read_config_space};

/// Bytes of the header before each packet, `struct virtio_net_hdr_v1`.
pub(super) const HEADER: usize = 12;
/// Where it has the number of chains that a packet takes.
const NUM_BUFFERS: usize = 10;
/// The longest packet: one to be segmented, of 64 KiB and its Ethernet header.
const LONGEST: usize = HEADER + 65536 + 14;

/// Descriptors of a chain for packets; Linux uses up to 19.
const MOST_PIECES: usize = 64;
/// Packets received before something else has its turn.
const BATCH: usize = 256;

const RX: usize = 0;
const TX: usize = 1;
const QUEUE_SIZES: [u16; 2] = [256, 256];

const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_MRG_RXBUF: u64 = 1 << 15;

const LINK: u32 = 0;
const RX_TIMER: u32 = 1;
const TX_TIMER: u32 = 2;

/// What of its packets the guest leaves to the link, and takes from it, unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Packets without checksum.
    pub checksum: bool,
    /// TCP over IPv4 to be segmented.
    pub tso4: bool,
    /// TCP over IPv6 to be segmented.
    pub tso6: bool,
}

/// Where packets come from and go to: a file each read and write of which is one packet, behind its
/// header of 12 bytes, and which never blocks.
pub trait Link: AsFd + Send {
    /// Says what the guest is ready to receive unfinished.
    ///
    /// # Errors
    /// When the host refuses.
    fn set_offload(&self, offload: Offload) -> io::Result<()>;
}

/// What an interface is beside its link.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Its address; [`mac_of`] makes one.
    pub mac: [u8; 6],
    /// How fast the guest may receive.
    pub receive: Option<Rate>,
    /// How fast the guest may send.
    pub send: Option<Rate>,
}

/// An address that is locally administered, not a group's, and always the same for `name` (FNV-1a).
pub fn mac_of(name: &str) -> [u8; 6] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, mut mac @ ..] = hash.to_be_bytes();
    mac[0] = mac[0] & !1 | 2;
    mac
}

/// The interface.
#[derive(Debug)]
pub struct Net<L: Link = Tap> {
    link: L,
    mac: [u8; 6],
    receive: Option<Throttle>,
    send: Option<Throttle>,
    /// A packet goes over several chains if it must.
    mergeable: bool,
    /// The guest may have room for packets.
    listening: bool,
    /// The link took no more.
    blocked: bool,
    /// Room that the guest left, taken from its queue and not yet filled; at most a queue's worth.
    rooms: VecDeque<Room>,
    /// A packet on its way to the guest, and its length; 0 if there is none.
    incoming: Box<[u8]>,
    pending: usize,
    outgoing: Box<[u8]>,
}

impl<L: Link> Net<L> {
    /// An interface on this link.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new(link: L, options: NetOptions) -> io::Result<Self> {
        let NetOptions { mac, receive, send } = options;
        Ok(Self {
            link,
            mac,
            receive: receive.map(Throttle::new).transpose()?,
            send: send.map(Throttle::new).transpose()?,
            mergeable: false,
            listening: false,
            blocked: false,
            rooms: VecDeque::new(),
            incoming: vec![0; LONGEST].into(),
            pending: 0,
            outgoing: vec![0; LONGEST].into(),
        })
    }

    /// Brings packets to the guest until either side has no more, or others want to be served.
    fn receive(&mut self, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.get_mut(RX) else { return Ok(()) };
        self.listening = true;
        for _ in 0..BATCH {
            if self.pending == 0 {
                match rustix::io::read(&self.link, &mut self.incoming[..]) {
                    Ok(len) if len > HEADER => self.pending = len,
                    // Nothing that could be a packet.
                    Ok(1..) | Err(Errno::INTR) => continue,
                    Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                    Err(error) => {
                        self.listening = false;
                        return Err(io::Error::from(error).into());
                    }
                }
            }
            if let Some(throttle) = &mut self.receive
                && !throttle.admits(self.pending as u64)?
            {
                self.listening = false;
                return Ok(());
            }
            if !self.find_room(queue, io.mem)? {
                self.listening = false;
                return Ok(());
            }
            self.deliver(queue, io.mem)?;
            self.pending = 0;
        }
        Ok(())
    }

    /// Takes chains until the packet fits, or there may be no more of them; `false` if the guest has yet to
    /// offer them. Chains taken are kept, and not put back: a driver that has offered them already
    /// would not notify of the next one.
    fn find_room(&mut self, queue: &mut Queue, mem: &GuestMemory) -> Result<bool, DeviceError> {
        let most = if self.mergeable { usize::from(QUEUE_SIZES[RX]) } else { 1 };
        let mut room: u64 = self.rooms.iter().map(|room| room.pieces.len()).sum();
        while room < self.pending as u64 && self.rooms.len() < most {
            let Some(chain) = queue.pop(mem)? else { return Ok(false) };
            let next = Room::new(&chain)?;
            room += next.pieces.len();
            self.rooms.push_back(next);
        }
        Ok(true)
    }

    /// Writes the packet to the guest; one that does not fit into all there may be is lost.
    fn deliver(&mut self, queue: &mut Queue, mem: &GuestMemory) -> Result<(), DeviceError> {
        let (mut count, mut room) = (0, 0);
        let len = self.pending as u64;
        while room < len {
            let Some(next) = self.rooms.get(count) else { return Ok(()) };
            count += 1;
            room += next.pieces.len();
        }
        let buffers = u16::try_from(count).unwrap_or(u16::MAX);
        self.incoming[NUM_BUFFERS..HEADER].copy_from_slice(&buffers.to_le_bytes());
        let mut rest = &self.incoming[..self.pending];
        for room in self.rooms.drain(..count) {
            let part = room.pieces.first(rest.len() as u64);
            part.each(mem, |slice| rest.read_exact_volatile(slice))
                .map_err(|Outside| DeviceError::Protocol("room for a packet outside of memory"))?;
            queue.push(mem, room.head, u32::try_from(part.len()).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    /// Takes packets from the guest until either side has no more.
    fn send(&mut self, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.get_mut(TX) else { return Ok(()) };
        self.blocked = false;
        while let Some(chain) = queue.pop(io.mem)? {
            let len = gather(&chain, &mut self.outgoing)?;
            if let Some(throttle) = &mut self.send
                && !throttle.admits(len as u64)?
            {
                queue.unpop();
                return Ok(());
            }
            if len > HEADER && !self.transmit(len) {
                self.blocked = true;
                queue.unpop();
                return Ok(());
            }
            queue.push(io.mem, chain.head(), 0)?;
        }
        Ok(())
    }

    /// Whether the packet is off the guest's hands: what the link refuses is lost, as on a wire.
    fn transmit(&self, len: usize) -> bool {
        loop {
            match rustix::io::write(&self.link, &self.outgoing[..len]) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                _ => return true,
            }
        }
    }
}

/// Reads a packet; 0 if it is none that could be sent.
fn gather(chain: &Chain<'_>, into: &mut [u8]) -> Result<usize, DeviceError> {
    let mut reader = chain.reader()?;
    let len = reader.available_bytes();
    let Some(into) = into.get_mut(..len) else { return Ok(0) };
    reader.read_exact(into)?;
    Ok(len)
}

/// A chain that the guest left for packets, taken from its queue.
#[derive(Debug)]
struct Room {
    head: u16,
    pieces: Segments,
}

impl Room {
    fn new(chain: &Chain<'_>) -> Result<Self, DeviceError> {
        let mut pieces = Segments::default();
        for (count, descriptor) in chain.descriptors().enumerate() {
            if count >= MOST_PIECES {
                return Err(DeviceError::Protocol("room for a packet in too many pieces"));
            }
            if descriptor.is_write_only() {
                pieces.0.push((descriptor.addr(), u64::from(descriptor.len())));
            }
        }
        Ok(Self { head: chain.head(), pieces })
    }
}

impl<L: Link> VirtioDevice for Net<L> {
    fn kind(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        let guest = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6;
        let host = F_CSUM | F_HOST_TSO4 | F_HOST_TSO6;
        F_MAC | F_MRG_RXBUF | guest | host
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.mac, offset, data);
    }

    fn activate(&mut self, features: u64, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        let has = |feature| features & feature != 0;
        self.mergeable = has(F_MRG_RXBUF);
        self.link.set_offload(Offload {
            checksum: has(F_GUEST_CSUM),
            tso4: has(F_GUEST_TSO4),
            tso6: has(F_GUEST_TSO6),
        })?;
        Ok(())
    }

    fn reset(&mut self) {
        self.mergeable = false;
        self.listening = false;
        self.blocked = false;
        self.pending = 0;
        self.rooms.clear();
        for throttle in [&mut self.receive, &mut self.send].into_iter().flatten() {
            throttle.forget();
        }
    }

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        match index {
            RX => self.receive(io),
            _ => self.send(io),
        }
    }

    fn host_files(&self) -> Vec<HostFile> {
        let timer = |throttle: &Option<Throttle>, token| {
            let fd = throttle.as_ref()?.waits_for()?;
            Some(HostFile { fd, token, read: true, write: false })
        };
        let fd = self.link.as_fd().as_raw_fd();
        let link = HostFile { fd, token: LINK, read: self.listening, write: self.blocked };
        let link = (link.read || link.write).then_some(link);
        let timers = [timer(&self.receive, RX_TIMER), timer(&self.send, TX_TIMER)];
        link.into_iter().chain(timers.into_iter().flatten()).collect()
    }

    fn process_host(&mut self, token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        // A timer that fired stays readable: it must not be listened to until it is set again.
        let fired =
            |throttle: &mut Option<Throttle>| throttle.iter_mut().for_each(Throttle::forget);
        match token {
            RX_TIMER => {
                fired(&mut self.receive);
                self.receive(io)
            }
            TX_TIMER => {
                fired(&mut self.send);
                self.send(io)
            }
            _ => {
                if self.blocked {
                    self.send(io)?;
                }
                if self.listening {
                    self.receive(io)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
