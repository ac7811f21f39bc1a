use super::*;
use crate::device::hostile;
use crate::device::rate::Limit;
use crate::virtio::testing::{Driver, MEMORY};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use vm_memory::GuestAddress;

const SECTORS: u64 = 2048;

struct Disk {
    block: Block,
    driver: Driver,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn options() -> BlockOptions {
    BlockOptions { serial: "disk-1".into(), rate: None, quota: Quota::new(None) }
}

fn disk(read_only: bool, options: BlockOptions) -> Disk {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let content: Vec<u8> = (0..SECTORS * SECTOR).map(|at| (at / SECTOR) as u8).collect();
    std::fs::write(&path, content).unwrap();
    let mut block = Block::new(Image::open(&path, read_only).unwrap(), options).unwrap();
    let driver = Driver::new(&mut block);
    Disk { block, driver, path, _dir: dir }
}

fn header(kind: u64, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

impl Disk {
    /// One request; its status, what the guest has in its room then, and how much is told as written.
    fn ask(&mut self, kind: u64, sector: u64, data: &[u8], room: u32) -> (u8, Vec<u8>, u32) {
        let mut rooms = vec![1];
        if room > 0 {
            rooms.insert(0, room);
        }
        let places = self.driver.offer(0, &[&header(kind, sector), data], &rooms);
        self.serve();
        let written = self.driver.used(0).unwrap();
        let answer = self.driver.bytes(places[0], room as usize);
        (self.driver.bytes(*places.last().unwrap(), 1)[0], answer, written)
    }

    fn serve(&mut self) {
        let Self { block, driver, .. } = self;
        driver.with_io(|io| block.process_queue(0, io)).unwrap();
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

#[test]
fn what_is_written_is_read() {
    let mut disk = disk(false, options());
    let data = [0xa5; 1024];
    assert_eq!(disk.ask(OUT, 3, &data, 0), (0, vec![], 1));
    let (status, answer, written) = disk.ask(IN, 2, &[], 2048);
    assert_eq!((status, written), (0, 2049));
    assert_eq!(answer, [&[2; 512][..], &data, &[5; 512]].concat());
    assert_eq!(disk.content()[3 * 512..5 * 512], data);
    assert_eq!(disk.ask(FLUSH, 0, &[], 0), (0, vec![], 1));
    let (status, answer, _) = disk.ask(GET_ID, 0, &[], 20);
    assert_eq!((status, &answer[..]), (0, &b"disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..]));
}

#[test]
fn framing_is_the_drivers() {
    let mut disk = disk(false, options());
    let request = [&header(OUT, 1)[..], &[9; 512]].concat();
    let (one, rest) = request.split_at(5);
    let (two, three) = rest.split_at(200);
    disk.driver.offer(0, &[one, two, three], &[1]);
    // The status shares a descriptor with the data.
    let room = disk.driver.offer(0, &[&header(IN, 1)], &[100, 413])[0];
    disk.serve();
    assert_eq!([disk.driver.used(0), disk.driver.used(0)], [Some(1), Some(513)]);
    assert_eq!(disk.driver.bytes(room, 100), [9; 100]);
    assert_eq!(disk.content()[512..1024], [9; 512]);
}

#[test]
fn outside_of_the_disk_there_is_nothing() {
    let mut disk = disk(false, options());
    let before = disk.content();
    for sector in [SECTORS, SECTORS - 1, u64::MAX, u64::MAX / 512, 1 << 55] {
        assert_eq!(disk.ask(OUT, sector, &[1; 1024], 0).0, 1, "{sector}");
        let (status, _, written) = disk.ask(IN, sector, &[], 1024);
        assert_eq!((status, written), (1, 0), "{sector}");
        assert_eq!(disk.ask(DISCARD, 0, &range(sector, 2, 0), 0).0, 1, "{sector}");
    }
    assert_eq!(disk.ask(OUT, 0, &[1; 511], 0).0, 1);
    assert_eq!(disk.ask(99, 0, &[1; 512], 0).0, 2);
    assert_eq!(disk.content(), before);
}

#[test]
fn a_read_only_disk_does_not_change() {
    let mut disk = disk(true, options());
    assert_eq!(disk.block.features() & (F_RO | F_DISCARD | F_WRITE_ZEROES), F_RO);
    let before = disk.content();
    assert_eq!(disk.ask(OUT, 0, &[1; 512], 0).0, 1);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(disk.ask(kind, 0, &range(0, 8, 0), 0).0, 1);
    }
    assert_eq!(disk.ask(IN, 7, &[], 512).1, [7; 512]);
    assert_eq!(disk.content(), before);
}

#[test]
fn discarded_blocks_go_back_to_the_host() {
    let mut disk = disk(false, options());
    let blocks = |disk: &Disk| std::fs::metadata(&disk.path).unwrap().blocks();
    let before = blocks(&disk);
    let ranges = [range(0, 1024, 0), range(1032, 8, 0)].concat();
    assert_eq!(disk.ask(DISCARD, 0, &ranges, 0).0, 0);
    assert!(blocks(&disk) < before);
    assert_eq!(disk.ask(WRITE_ZEROES, 0, &range(2000, 3, 0), 0).0, 0);
    assert_eq!(disk.ask(WRITE_ZEROES, 0, &range(2010, 3, 1), 0).0, 0);
    let content = disk.content();
    assert_eq!(content.len() as u64, SECTORS * SECTOR);
    for sector in [0, 1023, 1032, 1039, 2000, 2002, 2010] {
        assert_eq!(content[sector * 512..][..512], [0; 512], "{sector}");
    }
    for sector in [1025, 1031, 1041, 1999, 2003] {
        assert_eq!(content[sector * 512..][..512], [sector as u8; 512], "{sector}");
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let mut disk = disk(false, options());
    let before = disk.content();
    assert_eq!(disk.ask(DISCARD, 0, &[], 0).0, 1);
    assert_eq!(disk.ask(DISCARD, 0, &[0; 15], 0).0, 1);
    assert_eq!(disk.ask(DISCARD, 0, &range(0, 1, 1), 0).0, 2);
    assert_eq!(disk.ask(WRITE_ZEROES, 0, &range(0, 1, 2), 0).0, 2);
    assert_eq!(disk.ask(DISCARD, 0, &range(0, u32::MAX, 0), 0).0, 1);
    assert_eq!(disk.ask(DISCARD, 0, &range(0, 1, 0).repeat(65), 0).0, 1);
    assert_eq!(disk.ask(DISCARD, 0, &range(0, 0, 0), 0).0, 0);
    assert_eq!(disk.content(), before);
}

#[test]
fn a_full_quota_ends_writing() {
    let quota = Quota::new(Some(1024));
    let mut disk = disk(false, BlockOptions { quota, ..options() });
    assert_eq!(disk.ask(OUT, 0, &[1; 1024], 0).0, 0);
    assert_eq!(disk.ask(OUT, 2, &[1; 512], 0).0, 1);
    assert_eq!(disk.ask(WRITE_ZEROES, 0, &range(2, 1, 0), 0).0, 1);
    assert_eq!(disk.content()[1024..1536], [2; 512]);
    assert_eq!(disk.ask(IN, 0, &[], 512).0, 0);
}

#[test]
fn what_the_rate_holds_back_is_served_by_the_timer() {
    let limit = Limit { per_second: NonZeroU64::MIN, burst: 1 };
    let rate = Some(Rate { operations: Some(limit), bytes: None });
    let mut disk = disk(false, BlockOptions { rate, ..options() });
    assert!(disk.block.host_files().is_empty());
    for _ in 0..2 {
        disk.driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    }
    disk.serve();
    assert_eq!([disk.driver.used(0), disk.driver.used(0)], [Some(513), None]);
    let Disk { block, driver, .. } = &mut disk;
    hostile::serve_host(block, driver);
    assert_eq!(driver.used(0), Some(513));
    assert!(block.host_files().is_empty());
}

#[test]
fn the_configuration() {
    let disk = disk(false, options());
    let mut space = [0xff; 64];
    disk.block.read_config(0, &mut space);
    assert_eq!(number(&space[..8]), SECTORS);
    assert_eq!(number(&space[12..16]), 254);
    assert_eq!(number(&space[20..24]), 512);
    assert_eq!(space[60..], [0; 4]);
    disk.block.read_config(u64::MAX, &mut space);
    assert_eq!(space, [0; 64]);
}

#[test]
fn data_outside_of_memory_spoils_the_request_only() {
    let mut disk = disk(false, options());
    let before = disk.content();
    for (kind, flags) in [(OUT, 0), (IN, 2)] {
        let place = disk.driver.buffer(16);
        disk.driver.mem.write_slice(&header(kind, 0), GuestAddress(place)).unwrap();
        let status = disk.driver.buffer(1);
        for address in [MEMORY, u64::MAX - 511, MEMORY - 1] {
            disk.driver.offer_raw(0, &[(place, 16, 0), (address, 512, flags), (status, 1, 2)]);
            disk.serve();
            assert!(disk.driver.used(0).is_some());
            assert_eq!(disk.driver.bytes(status, 1), [1]);
        }
    }
    assert_eq!(disk.content(), before);
    assert_eq!(disk.ask(IN, 7, &[], 512).1, [7; 512]);
}

#[test]
fn no_status_is_an_error_of_the_driver() {
    for descriptors in [vec![(0x10_0000, 16, 0)], vec![(0x10_0000, 16, 0), (MEMORY, 1, 2)]] {
        let Disk { mut block, mut driver, .. } = disk(false, options());
        driver.offer_raw(0, &descriptors);
        assert!(driver.with_io(|io| block.process_queue(0, io)).is_err());
    }
}

#[test]
fn nonsense_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    hostile::torture(|| Block::new(Image::open(&path, false).unwrap(), options()).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
}
