//! A device behind a connection, with a frontend that behaves and one that does not.

use super::*;
use crate::device::rng::Rng;
use crate::memory;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::Bytes;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The guest's memory, in two ranges, and where the frontend claims to have it.
const RANGES: [(u64, u64); 2] = [(0, 1 << 20), (4 << 30, 1 << 20)];
const FRONTEND: u64 = 0x7f00_0000_0000;
/// Where the rings are, and a buffer.
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = (4 << 30) + 0x100;
const SIZE: u16 = 8;

struct Guest {
    mem: GuestMemory,
    file: OwnedFd,
    frontend: Frontend,
    served: JoinHandle<io::Result<()>>,
    kick: EventFd,
    call: EventFd,
    offered: u16,
}

impl Guest {
    /// A frontend that has agreed on everything that a device of random numbers offers.
    fn new() -> Self {
        let (mem, file) = memory::share(&RANGES).unwrap();
        let (theirs, ours) = UnixStream::pair().unwrap();
        let backend = Backend::new(Box::new(Rng), mem.clone(), ours).unwrap();
        let served = std::thread::spawn(|| backend.run());
        let mut frontend = Frontend::from_stream(theirs, 1);
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let features = frontend.get_features().unwrap();
        assert_ne!(features & PROTOCOL, 0);
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        // Every message is answered from here on, which is how a refusal is seen.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_owner().unwrap();
        frontend.set_features(features).unwrap();
        let (kick, call, offered) = (event(), event(), 0);
        Self { mem, file, frontend, served, kick, call, offered }
    }

    /// The memory as it is shared.
    fn regions(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let mut offset = 0;
        let region = |(guest, len): (u64, u64)| {
            let region = VhostUserMemoryRegionInfo {
                guest_phys_addr: guest,
                memory_size: len,
                userspace_addr: FRONTEND + guest,
                mmap_offset: offset,
                mmap_handle: self.file.as_raw_fd(),
            };
            offset += len;
            region
        };
        RANGES.into_iter().map(region).collect()
    }

    fn share(self) -> Self {
        self.frontend.set_mem_table(&self.regions()).unwrap();
        self
    }

    fn rings() -> VringConfigData {
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: FRONTEND + DESCRIPTORS,
            used_ring_addr: FRONTEND + USED,
            avail_ring_addr: FRONTEND + AVAILABLE,
            log_addr: None,
        }
    }

    fn set_up(mut self) -> Self {
        self.frontend.set_vring_num(0, SIZE).unwrap();
        self.frontend.set_vring_base(0, self.offered).unwrap();
        self.frontend.set_vring_addr(0, &Self::rings()).unwrap();
        self.frontend.set_vring_call(0, &self.call).unwrap();
        self.frontend.set_vring_kick(0, &self.kick).unwrap();
        self.frontend.set_vring_enable(0, true).unwrap();
        self
    }

    /// Offers 16 bytes of room, and waits until they are filled.
    fn fill(&mut self) {
        let at = |address| GuestAddress(address);
        let slot = self.offered % SIZE;
        let descriptor = DESCRIPTORS + 16 * u64::from(slot);
        self.mem.write_obj(BUFFER, at(descriptor)).unwrap();
        self.mem.write_obj(16u32, at(descriptor + 8)).unwrap();
        self.mem.write_obj(2u16, at(descriptor + 12)).unwrap();
        self.mem.write_obj(slot, at(AVAILABLE + 4 + 2 * u64::from(slot))).unwrap();
        self.offered += 1;
        self.mem.write_obj(self.offered, at(AVAILABLE + 2)).unwrap();
        self.kick.write(1).unwrap();
        while self.mem.read_obj::<u16>(at(USED + 2)).unwrap() != self.offered {
            std::thread::yield_now();
        }
        let len: u32 = self.mem.read_obj(at(USED + 4 + 8 * u64::from(slot) + 4)).unwrap();
        assert_eq!(len, 16);
        let bytes: [u8; 16] = self.mem.read_obj(at(BUFFER)).unwrap();
        assert_ne!(bytes, [0; 16]);
    }

    /// The frontend goes.
    fn end(self) -> io::Result<()> {
        drop(self.frontend);
        self.served.join().unwrap()
    }
}

#[test]
fn a_queue_is_served_stopped_and_served_again() {
    let mut guest = Guest::new().share().set_up();
    guest.fill();
    guest.fill();
    // Stopped, it says how far it came, and leaves what is offered alone.
    assert_eq!(guest.frontend.get_vring_base(0).unwrap(), 2);
    let mut guest = guest.set_up();
    guest.fill();
    guest.end().unwrap();
}

#[test]
fn a_ring_that_is_not_enabled_waits() {
    let mut guest = Guest::new().share().set_up();
    guest.frontend.set_vring_enable(0, false).unwrap();
    guest.kick.write(1).unwrap();
    // What was kicked meanwhile is served once it is.
    guest.frontend.set_vring_enable(0, true).unwrap();
    guest.fill();
    guest.end().unwrap();
}

#[test]
fn memory_that_was_not_shared_is_refused() {
    let spoil: [fn(&mut VhostUserMemoryRegionInfo); 4] = [
        |region| region.guest_phys_addr += 4096,
        |region| region.memory_size += 4096,
        |region| region.mmap_offset += 4096,
        |region| region.guest_phys_addr = u64::MAX - 4096,
    ];
    for spoil in spoil {
        let guest = Guest::new();
        let mut regions = guest.regions();
        spoil(&mut regions[1]);
        assert!(guest.frontend.set_mem_table(&regions).is_err());
        assert!(guest.frontend.set_vring_addr(0, &Guest::rings()).is_err(), "nothing is known");
        let _ = guest.end();
    }
}

#[test]
fn rings_outside_memory_are_refused() {
    let spoil: [fn(&mut VringConfigData); 3] = [
        |rings| rings.desc_table_addr = FRONTEND + (1 << 20),
        |rings| rings.avail_ring_addr = 0,
        |rings| rings.used_ring_addr = u64::MAX - 3,
    ];
    for spoil in spoil {
        let guest = Guest::new().share();
        let mut rings = Guest::rings();
        spoil(&mut rings);
        assert!(guest.frontend.set_vring_addr(0, &rings).is_err());
        let _ = guest.end();
    }
    // One whose end lies outside is found out when it is to be served.
    let mut guest = Guest::new().share();
    let mut rings = Guest::rings();
    rings.desc_table_addr = FRONTEND + (1 << 20) - 16;
    guest.frontend.set_vring_num(0, SIZE).unwrap();
    guest.frontend.set_vring_addr(0, &rings).unwrap();
    assert!(guest.frontend.set_vring_kick(0, &guest.kick).is_err());
    let _ = guest.frontend.set_vring_enable(0, true);
    let _ = guest.end();
}

/// The frontend passes on what a driver has set up.
#[test]
fn a_driver_that_makes_no_sense_has_its_device_fail_until_a_reset() {
    let spoil: [fn(&mut Guest); 3] = [
        |guest| assert!(guest.frontend.set_vring_num(0, 3).is_err()),
        |guest| {
            // The crate refuses what is not aligned, and does not answer.
            guest.frontend.set_hdr_flags(VhostUserHeaderFlag::empty());
            let rings = VringConfigData { used_ring_addr: FRONTEND + 1, ..Guest::rings() };
            guest.frontend.set_vring_addr(0, &rings).unwrap();
            guest.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        },
        |guest| {
            let rings =
                VringConfigData { desc_table_addr: FRONTEND + (1 << 20) - 16, ..Guest::rings() };
            guest.frontend.set_vring_addr(0, &rings).unwrap();
            assert!(guest.frontend.set_vring_kick(0, &guest.kick).is_err());
        },
    ];
    for spoil in spoil {
        let mut guest = Guest::new().share();
        spoil(&mut guest);
        // What is right is taken, and nothing served.
        let guest = guest.set_up();
        guest.mem.write_obj(1u16, GuestAddress(AVAILABLE + 2)).unwrap();
        guest.kick.write(1).unwrap();
        assert_eq!(guest.frontend.get_vring_base(0).unwrap(), 0);
        guest.mem.write_obj(0u16, GuestAddress(AVAILABLE + 2)).unwrap();
        let mut guest = guest.set_up();
        guest.fill();
        guest.end().unwrap();
    }
}

#[test]
fn queues_and_sizes_that_do_not_exist_are_refused() {
    for size in [0, 3, RING_MAX + 1, 2 * RING_MAX, u16::MAX] {
        let guest = Guest::new().share();
        assert!(guest.frontend.set_vring_num(0, size).is_err(), "{size}");
        let _ = guest.end();
    }
    let guest = Guest::new().share();
    // A ring that was never set up.
    assert!(guest.frontend.set_vring_kick(0, &guest.kick).is_err());
    let _ = guest.end();
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let guest = Guest::new();
    let features = guest.frontend.get_features().unwrap();
    assert!(guest.frontend.set_features(features | 1 << 60).is_err());
    let _ = guest.end();
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200 {
        let (mem, _file) = memory::share(&RANGES).unwrap();
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let backend = Backend::new(Box::new(Rng), mem, ours).unwrap();
        let served = std::thread::spawn(|| backend.run());
        for _ in 0..20 {
            let mut message = [0u8; 64];
            for byte in &mut message {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (random >> 56) as u8;
            }
            // A header that passes: a known request, this version, and some length.
            let (request, flags) = (u32::from(message[0] % 45), 1 | u32::from(message[4] & 8));
            let len = u32::from(message[8] % 52);
            let header = [request, flags, len].map(u32::to_le_bytes).concat();
            message[..12].copy_from_slice(&header);
            if theirs.write_all(&message[..12 + len as usize]).is_err() {
                break;
            }
        }
        drop(theirs);
        // With an error or without: it ends, and has not panicked.
        assert!(served.join().is_ok(), "round {round}");
    }
}
