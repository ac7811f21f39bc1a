//! The file system device (virtio 1.2, section 5.11): one queue for requests that are not to wait behind
//! others, one for all others, and [`crate::fs`] behind them.
//!
//! Without a notification queue and without DAX: the guest's page cache is where it caches.

use crate::fs::Server;
use crate::virtio::queue::Chain;
use crate::virtio::{DeviceError, Io, VirtioDevice, read_config_space};

/// The device's number in the specification.
const KIND: u32 = 26;
/// Bytes of a tag in the configuration space.
const TAG: usize = 36;
/// The queues: high priority, and requests. The latter has room for a request of
/// 1 MiB whose pages are apart, and some more.
const QUEUES: [u16; 2] = [128, 1024];
/// Bytes of `struct fuse_out_header`, with which every answer begins.
const REPLY_HEADER: usize = 16;

/// A tag that does not fit the device.
#[derive(Debug, thiserror::Error)]
#[error(
    "the tag \"{0}\" of a shared directory is empty or longer than {TAG} bytes; use a shorter one"
)]
pub struct BadTag(String);

/// A file system device.
#[derive(Debug)]
pub struct Fs {
    config: [u8; TAG + 4],
    server: Server,
}

impl Fs {
    /// A device by whose `tag` the guest mounts what `server` shares.
    ///
    /// # Errors
    /// When the tag is empty or longer than 36 bytes.
    pub fn new(tag: &str, server: Server) -> Result<Self, BadTag> {
        if tag.is_empty() || tag.len() > TAG {
            return Err(BadTag(tag.into()));
        }
        let mut config = [0; TAG + 4];
        config[..tag.len()].copy_from_slice(tag.as_bytes());
        config[TAG..].copy_from_slice(&1u32.to_le_bytes());
        Ok(Self { config, server })
    }

    fn answer(&mut self, chain: &Chain<'_>) -> Result<u32, DeviceError> {
        let mut request = chain.reader()?;
        let mut head = chain.writer()?;
        let room = head.available_bytes();
        let mut body = head.split_at(room.min(REPLY_HEADER))?;
        let written = self.server.serve(&mut request, &mut head, &mut body, room);
        u32::try_from(written).map_err(|_| DeviceError::Protocol("an answer of over 4 GiB"))
    }
}

impl VirtioDevice for Fs {
    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config, offset, data);
    }

    fn reset(&mut self) {
        self.server.reset();
    }

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        while let Some(chain) = io.queues[index].pop(io.mem)? {
            let written = self.answer(&chain)?;
            io.queues[index].push(io.mem, chain.head(), written)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::hostile;
    use crate::fs::{Access, Options};
    use crate::virtio::testing::Driver;
    use sbx_core::quota::Quota;
    use std::fs::File;

    /// A device that shares a directory with a file in it.
    fn device() -> (tempfile::TempDir, Fs) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "content").unwrap();
        let root = File::open(dir.path()).unwrap().into();
        let quota = Quota::new(None);
        let options = Options { access: Access::ReadWrite, quota, nodes: 50, descriptors: 50 };
        (dir, Fs::new("data", Server::new(root, options).unwrap()).unwrap())
    }

    fn request(opcode: u32, node: u64, args: &[u8]) -> Vec<u8> {
        let len = u32::try_from(40 + args.len()).unwrap();
        let mut bytes = [len.to_le_bytes(), opcode.to_le_bytes()].concat();
        bytes.extend(5u64.to_le_bytes());
        bytes.extend(node.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(args);
        bytes
    }

    fn serve(driver: &mut Driver, device: &mut Fs, index: usize) {
        driver.with_io(|io| device.process_queue(index, io)).unwrap();
    }

    #[test]
    fn the_tag_and_the_queues_are_told() {
        let (_dir, device) = device();
        let mut config = [9; 48];
        device.read_config(0, &mut config);
        assert_eq!(config[..5], *b"data\0");
        assert_eq!(config[36..44], [1, 0, 0, 0, 0, 0, 0, 0]);
        device.read_config(u64::MAX, &mut config);
        assert_eq!(config, [0; 48]);
        assert_eq!((device.kind(), device.queue_sizes().len()), (26, 2));
    }

    #[test]
    fn tags_have_a_length() {
        for (tag, fits) in [("", false), (&*"x".repeat(36), true), (&"x".repeat(37), false)] {
            assert_eq!(Fs::new(tag, device().1.server).is_ok(), fits, "{tag}");
        }
    }

    #[test]
    fn a_file_is_read_through_the_queues() {
        let (_dir, mut device) = device();
        let mut driver = Driver::new(&mut device);
        // LOOKUP, its request and its answer in pieces.
        let lookup = request(1, 1, b"file\0");
        let rooms = driver.offer(1, &[&lookup[..7], &lookup[7..42], &lookup[42..]], &[9, 20, 500]);
        serve(&mut driver, &mut device, 1);
        assert_eq!(driver.used(1), Some(144));
        assert_eq!(driver.bytes(rooms[0], 8), [144, 0, 0, 0, 0, 0, 0, 0]);
        let answer: Vec<_> = [(0, 9), (1, 20), (2, 115)]
            .iter()
            .flat_map(|(at, len)| driver.bytes(rooms[*at], *len))
            .collect();
        let node = u64::from_le_bytes(answer[16..24].try_into().unwrap());
        // OPEN, and READ.
        let rooms = driver.offer(1, &[&request(14, node, &[0; 8])], &[16, 16]);
        serve(&mut driver, &mut device, 1);
        assert_eq!(driver.used(1), Some(32));
        let handle = driver.bytes(rooms[1], 8);
        let read = [&handle[..], &[0; 8], &4096u64.to_le_bytes(), &[0; 16]].concat();
        let rooms = driver.offer(1, &[&request(15, node, &read)], &[16, 4096]);
        serve(&mut driver, &mut device, 1);
        assert_eq!(driver.used(1), Some(23));
        assert_eq!(driver.bytes(rooms[1], 8), *b"content\0");
        // FORGET, which has no answer, in the queue for what must not wait.
        driver.offer(0, &[&request(2, node, &1u64.to_le_bytes())], &[]);
        serve(&mut driver, &mut device, 0);
        assert_eq!(driver.used(0), Some(0));
        let getattr = request(3, node, &[0; 16]);
        let rooms = driver.offer(1, &[&getattr], &[200]);
        serve(&mut driver, &mut device, 1);
        assert_eq!(driver.used(1), Some(16));
        assert_eq!(driver.bytes(rooms[0] + 4, 4), (-libc::ESTALE).to_le_bytes());
    }

    #[test]
    fn chains_without_a_request_or_without_room_are_given_back() {
        let (_dir, mut device) = device();
        let mut driver = Driver::new(&mut device);
        let lookup = request(1, 1, b"file\0");
        driver.offer(1, &[], &[4096]);
        driver.offer(1, &[&lookup[..39]], &[4096]);
        driver.offer(1, &[&lookup], &[]);
        driver.offer(1, &[&lookup], &[15]);
        serve(&mut driver, &mut device, 1);
        for _ in 0..4 {
            assert_eq!(driver.used(1), Some(0));
        }
        // Room for the header alone: an answer that does not fit is an error that does.
        let rooms = driver.offer(1, &[&lookup], &[16]);
        serve(&mut driver, &mut device, 1);
        assert_eq!(driver.used(1), Some(16));
        assert_eq!(driver.bytes(rooms[0] + 4, 4), (-libc::EINVAL).to_le_bytes());
    }

    #[test]
    fn chains_at_random_do_no_harm() {
        let mut kept = Vec::new();
        hostile::torture(|| {
            let (dir, device) = device();
            kept.push(dir);
            device
        });
    }

    #[test]
    fn memory_that_is_none_is_refused() {
        let (_dir, mut device) = device();
        let mut driver = Driver::new(&mut device);
        driver.offer_raw(1, &[(u64::MAX - 8, 40, 0), (0, 16, 2)]);
        assert!(driver.with_io(|io| device.process_queue(1, io)).is_err());
    }
}
