//! The guest: memory, one device, and what is done to them.

use arbitrary::Arbitrary;
use sbx_vmm::bus::BusDevice;
use sbx_vmm::memory::{self, GuestMemory};
use sbx_vmm::virtio::VirtioDevice;
use sbx_vmm::virtio::mmio::Transport;
use std::sync::{Arc, OnceLock};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Two pieces with a hole between them, each so large that 16 bits reach all of it.
const PIECE: u64 = 1 << 16;
const SECOND: u64 = 1 << 20;
/// Entries of a queue that the guest sets up properly.
const SIZE: u16 = 16;
/// Where it puts the rings of queue 0, and the next ones'.
const RINGS: u16 = 0x1000;
const RING: u16 = 0x400;

const STATUS: u16 = 0x70;
const QUEUE_SELECT: u16 = 0x30;
const QUEUE_NUM: u16 = 0x38;
const QUEUE_READY: u16 = 0x44;
const DRIVER_FEATURES: u16 = 0x20;
const DRIVER_FEATURES_SELECT: u16 = 0x24;
const DESCRIPTORS: u16 = 0x80;
const AVAILABLE: u16 = 0x90;
const USED: u16 = 0xa0;

/// One thing that a guest does.
#[derive(Arbitrary, Debug)]
pub enum Action {
    /// Reads so many bytes of the registers.
    Read(u16, u8),
    /// Writes a register.
    Write(u16, u32),
    /// Writes in another width.
    WriteBytes(u16, u8, [u8; 8]),
    /// Fills memory.
    Poke(u16, bool, Vec<u8>),
    /// Resets the device and goes as far as agreeing on these features.
    Negotiate(u64),
    /// Sets a queue up where it belongs.
    SetUp(u8),
    /// Tells that the driver is ready.
    Ready,
    /// Offers one chain in a queue.
    Offer(u8, Vec<Descriptor>),
    /// The device's thread serves a queue.
    Queue(u8),
    /// The device's thread serves all files of the host's.
    Host,
}

/// One descriptor of a chain.
#[derive(Arbitrary, Debug)]
pub struct Descriptor {
    address: u16,
    second: bool,
    len: u32,
    indirect: bool,
    write: bool,
    content: Option<Vec<u8>>,
}

/// A guest with one device.
pub struct Guest {
    transport: Arc<Transport>,
    mem: GuestMemory,
}

impl Guest {
    /// A guest whose memory is all zeros. The mapping is the same each time: it is never undone.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        static MEMORY: OnceLock<GuestMemory> = OnceLock::new();
        let mem = MEMORY.get_or_init(|| {
            memory::allocate(&[(0, PIECE), (SECOND, PIECE)]).expect("memory for the guest")
        });
        for start in [0, SECOND] {
            memory::discard(mem, start, PIECE as usize).expect("the guest's memory");
        }
        let irq = EventFd::new(EFD_NONBLOCK).expect("an event");
        let transport = Transport::new(device, mem.clone(), irq).expect("a transport");
        Self { transport, mem: mem.clone() }
    }

    /// Does it.
    pub fn act(&self, action: &Action) {
        match action {
            Action::Read(offset, len) => {
                let mut data = [0; 255];
                self.transport.read(u64::from(*offset), &mut data[..usize::from(*len)]);
            }
            Action::Write(offset, value) => self.write(*offset, *value),
            Action::WriteBytes(offset, len, bytes) => {
                let len = usize::from(*len).min(bytes.len());
                self.transport.write(u64::from(*offset), &bytes[..len]);
            }
            Action::Poke(address, second, bytes) => {
                self.poke(place(*address, *second), bytes);
            }
            Action::Negotiate(features) => self.negotiate(*features),
            Action::SetUp(index) => {
                let [base, _, _] = rings(*index);
                self.set_up(*index, SIZE, base, base + 0x100, base + 0x200);
            }
            Action::Ready => self.write(STATUS, 0xf),
            Action::Offer(index, chain) => self.offer(*index, chain),
            Action::Queue(index) => self.transport.process_queue(usize::from(*index)),
            Action::Host => {
                let files = self.transport.host_files();
                files.iter().for_each(|file| self.transport.process_host(file.token));
            }
        }
    }

    /// Agrees on these of the features that the device offers.
    pub fn negotiate(&self, features: u64) {
        [0, 1, 3].into_iter().for_each(|status| self.write(STATUS, status));
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32 | 1)] {
            self.write(0x14, select);
            let mut offered = [0; 4];
            self.transport.read(0x10, &mut offered);
            self.write(DRIVER_FEATURES_SELECT, select);
            self.write(DRIVER_FEATURES, half & u32::from_le_bytes(offered));
        }
        self.write(STATUS, 0xb);
    }

    /// Sets a queue up with rings at these addresses.
    pub fn set_up(&self, index: u8, size: u16, descriptors: u16, available: u16, used: u16) {
        self.write(QUEUE_SELECT, u32::from(index));
        self.write(QUEUE_NUM, u32::from(size));
        self.write(DESCRIPTORS, u32::from(descriptors));
        self.write(AVAILABLE, u32::from(available));
        self.write(USED, u32::from(used));
        self.write(QUEUE_READY, 1);
    }

    /// Fills memory; what has no place there is left out.
    pub fn poke(&self, address: u64, bytes: &[u8]) {
        let _ = self.mem.write(bytes, GuestAddress(address));
    }

    fn write(&self, offset: u16, value: u32) {
        self.transport.write(u64::from(offset), &value.to_le_bytes());
    }

    fn offer(&self, index: u8, chain: &[Descriptor]) {
        let [descriptors, available, _] = rings(index);
        for (at, descriptor) in (0u16..SIZE).zip(chain) {
            let address = place(descriptor.address, descriptor.second);
            if let Some(content) = &descriptor.content {
                self.poke(address, content);
            }
            let more = usize::from(at) + 1 < chain.len();
            let flags =
                [more, descriptor.write, descriptor.indirect].map(u16::from).into_iter().rev();
            let flags = flags.fold(0, |flags, bit| flags << 1 | bit);
            let mut entry = address.to_le_bytes().to_vec();
            entry.extend(descriptor.len.to_le_bytes());
            entry.extend(flags.to_le_bytes());
            entry.extend((at + 1).to_le_bytes());
            self.poke(u64::from(descriptors + at * 16), &entry);
        }
        let index_at = GuestAddress(u64::from(available + 2));
        let index: u16 = self.mem.read_obj(index_at).unwrap_or(0);
        self.poke(u64::from(available + 4 + index % SIZE * 2), &[0, 0]);
        self.poke(index_at.0, &index.wrapping_add(1).to_le_bytes());
    }
}

/// Where a queue's descriptors and its two rings are.
fn rings(index: u8) -> [u16; 3] {
    let base = RINGS + RING * u16::from(index % 8);
    [base, base + 0x100, base + 0x200]
}

fn place(address: u16, second: bool) -> u64 {
    u64::from(address) + if second { SECOND } else { 0 }
}
