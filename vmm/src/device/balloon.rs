//! A balloon (virtio 1.2, 5.5): memory that the guest does without goes back to the host.
//!
//! Two ways lead there. The host sets a target, and the guest gives up so many pages (inflating); and
//! the guest reports pages that it happens not to use (free page reporting), which it may take up again
//! without asking. Either way the pages are dropped, and read as zeros when they are touched again.
//!
//! It does NOT reserve anything: a page given up is the guest's to touch, and then costs memory again.
//! What limits a guest is the size of its memory. Statistics and hints are not offered.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::memory::{self, GuestMemory};
use crate::virtio::queue::Chain;
use crate::virtio::{DeviceError, HostFile, Io, VirtioDevice, read_config_space};

/// Bytes of a page, whatever the guest's own are.
pub const PAGE: u64 = 4096;
/// Pages looked at in one chain. Linux sends 256; what is behind them stays as it is.
const MOST_PAGES: usize = 1024;
/// Ranges looked at in one report. Linux sends 32.
const MOST_RANGES: usize = 256;

const INFLATE: usize = 0;
/// Its place with neither the statistics' queue nor the hints'.
const REPORTING: usize = 2;
const QUEUE_SIZES: [u16; 3] = [128, 128, 128];

const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_REPORTING: u64 = 1 << 5;

/// Where the driver writes how many pages it has given up.
const ACTUAL: u64 = 4;

/// What the host holds of a balloon.
#[derive(Clone, Debug)]
pub struct BalloonHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: AtomicU32,
    actual: AtomicU32,
    changed: EventFd,
}

impl BalloonHandle {
    /// Asks the guest to do without so many pages of 4096 bytes; it does so when it can, or never.
    pub fn set_target(&self, pages: u32) {
        self.0.target.store(pages, Ordering::Release);
        // A full counter is readable too.
        let _ = self.0.changed.write(1);
    }

    /// How many pages the guest says it does without. Only its word.
    pub fn actual(&self) -> u32 {
        self.0.actual.load(Ordering::Acquire)
    }
}

/// The balloon.
#[derive(Debug)]
pub struct Balloon(Arc<Shared>);

impl Balloon {
    /// An empty balloon.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new() -> io::Result<(Self, BalloonHandle)> {
        let changed = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let (target, actual) = (AtomicU32::new(0), AtomicU32::new(0));
        let shared = Arc::new(Shared { target, actual, changed });
        Ok((Self(Arc::clone(&shared)), BalloonHandle(shared)))
    }
}

/// Drops the pages whose numbers are in the chain, neighbours together.
fn inflate(mem: &GuestMemory, chain: &Chain<'_>) -> Result<(), DeviceError> {
    let mut reader = chain.reader()?.take(MOST_PAGES as u64 * 4);
    let mut run = 0..0;
    let mut number = [0; 4];
    while reader.read_exact(&mut number).is_ok() {
        let page = u64::from(u32::from_le_bytes(number));
        if page == run.end && !run.is_empty() {
            run.end += 1;
        } else if page + 1 == run.start {
            run.start = page;
        } else {
            drop_pages(mem, run);
            run = page..page + 1;
        }
    }
    drop_pages(mem, run);
    Ok(())
}

/// Drops the pages within the ranges that the chain's room is made of.
fn report(mem: &GuestMemory, chain: &Chain<'_>) {
    let rooms = chain.descriptors().filter(|descriptor| descriptor.is_write_only());
    for descriptor in rooms.take(MOST_RANGES) {
        let start = descriptor.addr().0;
        let end = start.saturating_add(u64::from(descriptor.len()));
        drop_pages(mem, start.div_ceil(PAGE)..end / PAGE);
    }
}

/// Dropping is a favour to the host: what is not guest memory is left alone, without an error.
fn drop_pages(mem: &GuestMemory, pages: std::ops::Range<u64>) {
    if pages.is_empty() {
        return;
    }
    if let Ok(len) = usize::try_from((pages.end - pages.start) * PAGE) {
        let _ = memory::discard(mem, pages.start * PAGE, len);
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> u32 {
        5
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | F_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 16];
        space[..4].copy_from_slice(&self.0.target.load(Ordering::Acquire).to_le_bytes());
        space[4..8].copy_from_slice(&self.0.actual.load(Ordering::Acquire).to_le_bytes());
        read_config_space(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(pages)) = (offset, data.try_into()) {
            self.0.actual.store(u32::from_le_bytes(pages), Ordering::Release);
        }
    }

    fn reset(&mut self) {
        self.0.actual.store(0, Ordering::Release);
    }

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.get_mut(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io.mem)? {
            match index {
                INFLATE => inflate(io.mem, &chain)?,
                REPORTING => report(io.mem, &chain),
                // The deflate queue: pages taken back are there already, as zeros.
                _ => {}
            }
            queue.push(io.mem, chain.head(), 0)?;
        }
        Ok(())
    }

    fn host_files(&self) -> Vec<HostFile> {
        vec![HostFile { fd: self.0.changed.as_raw_fd(), token: 0, read: true, write: false }]
    }

    fn process_host(&mut self, _token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        io.config_changed |= self.0.changed.read().is_ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::hostile;
    use crate::virtio::testing::{Driver, MEMORY};
    use vm_memory::{Bytes, GuestAddress};

    const DEFLATE: usize = 1;
    /// Where the tests' pages begin: behind the driver's rings and buffers.
    const FIRST: u64 = 8 << 20;

    fn balloon() -> (Balloon, Driver) {
        let (mut balloon, _) = Balloon::new().unwrap();
        let driver = Driver::new(&mut balloon);
        for page in 0..16 {
            driver.mem.write_slice(&[1; PAGE as usize], at(page)).unwrap();
        }
        (balloon, driver)
    }

    fn at(page: u64) -> GuestAddress {
        GuestAddress(FIRST + page * PAGE)
    }

    /// Which of the tests' pages read as zeros; none may do so in part.
    fn dropped(driver: &Driver) -> Vec<u64> {
        let bytes = |page| driver.bytes(at(page).0, PAGE as usize);
        let dropped: Vec<_> = (0..16).filter(|page| bytes(*page)[0] == 0).collect();
        for page in 0..16 {
            let first = bytes(page)[0];
            assert!(bytes(page).iter().all(|byte| *byte == first));
        }
        dropped
    }

    fn numbers(pages: &[u32]) -> Vec<u8> {
        let first = u32::try_from(FIRST / PAGE).unwrap();
        pages.iter().flat_map(|page| page.wrapping_add(first).to_le_bytes()).collect()
    }

    #[test]
    fn inflated_pages_are_dropped_and_others_are_not() {
        let (mut balloon, mut driver) = balloon();
        let list = numbers(&[3, 4, 5, 9, 8, 7, 12, 12, 0]);
        // A number may be cut in two by the descriptors.
        driver.offer(INFLATE, &[&list[..6], &list[6..], &[1, 2]], &[]);
        driver.with_io(|io| balloon.process_queue(INFLATE, io)).unwrap();
        assert_eq!(driver.used(INFLATE), Some(0));
        assert_eq!(dropped(&driver), [0, 3, 4, 5, 7, 8, 9, 12]);
        driver.offer(DEFLATE, &[&numbers(&[1, 2])], &[]);
        driver.with_io(|io| balloon.process_queue(DEFLATE, io)).unwrap();
        assert_eq!(driver.used(DEFLATE), Some(0));
        assert_eq!(dropped(&driver), [0, 3, 4, 5, 7, 8, 9, 12]);
    }

    #[test]
    fn pages_outside_of_memory_do_no_harm() {
        let (mut balloon, mut driver) = balloon();
        let outside = u32::try_from((MEMORY - FIRST) / PAGE).unwrap();
        let list = [outside, outside + 1, u32::MAX.wrapping_sub(2048), 6, u32::MAX / 2, 1];
        driver.offer(INFLATE, &[&numbers(&list)], &[]);
        driver.with_io(|io| balloon.process_queue(INFLATE, io)).unwrap();
        assert_eq!(driver.used(INFLATE), Some(0));
        assert_eq!(dropped(&driver), [1, 6]);
    }

    #[test]
    fn only_so_many_pages_of_a_chain_are_looked_at() {
        let (mut balloon, mut driver) = balloon();
        let mut list = vec![1; MOST_PAGES];
        list.push(2);
        driver.offer(INFLATE, &[&numbers(&list)], &[]);
        driver.with_io(|io| balloon.process_queue(INFLATE, io)).unwrap();
        assert_eq!(driver.used(INFLATE), Some(0));
        assert_eq!(dropped(&driver), [1]);
    }

    #[test]
    fn whole_pages_of_reported_ranges_are_dropped() {
        let (mut balloon, mut driver) = balloon();
        let page = PAGE as u32;
        driver.offer_raw(
            REPORTING,
            &[
                (at(1).0, 2 * page, 2),
                (at(4).0 + 1, 3 * page, 2),
                (at(9).0, page - 1, 2),
                (MEMORY - PAGE, 2 * page, 2),
                (u64::MAX - 1, u32::MAX, 2),
                (at(11).0, 0, 2),
            ],
        );
        driver.with_io(|io| balloon.process_queue(REPORTING, io)).unwrap();
        assert_eq!(driver.used(REPORTING), Some(0));
        assert_eq!(dropped(&driver), [1, 2, 5, 6]);
        driver.offer_raw(REPORTING, &[(at(15).0, page, 0)]);
        driver.with_io(|io| balloon.process_queue(REPORTING, io)).unwrap();
        assert_eq!(dropped(&driver), [1, 2, 5, 6], "what is to be read is no report");
    }

    #[test]
    fn a_target_is_announced_and_the_answer_read() {
        let (mut balloon, handle) = Balloon::new().unwrap();
        let mut driver = Driver::new(&mut balloon);
        handle.set_target(0x1234);
        hostile::serve_host(&mut balloon, &mut driver);
        assert!(driver.config_changed);
        let mut config = [0xff; 8];
        balloon.read_config(0, &mut config);
        assert_eq!(config, [0x34, 0x12, 0, 0, 0, 0, 0, 0]);
        balloon.write_config(ACTUAL, &7_u32.to_le_bytes());
        balloon.write_config(0, &[9; 4]);
        balloon.write_config(ACTUAL, &[9; 3]);
        balloon.write_config(u64::MAX, &[9; 4]);
        assert_eq!(handle.actual(), 7);
        balloon.reset();
        assert_eq!(handle.actual(), 0);
    }

    #[test]
    fn nonsense_is_survived() {
        // Pages behind the rings, or the test would wreck itself and not the device.
        hostile::torture_from(256, || Balloon::new().unwrap().0);
    }
}
