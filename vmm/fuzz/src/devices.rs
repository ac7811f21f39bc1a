//! Every device that the target `device` tries: one line each in [`DEVICES`]. A constructor makes the
//! device as new, with nothing behind it that outlives this process.

use sbx_core::quota::Quota;
use sbx_vmm::device::block::{Block, BlockOptions};
use sbx_vmm::device::image::Image;
use sbx_vmm::device::rng::Rng;
use sbx_vmm::device::vsock::Vsock;
use sbx_vmm::virtio::VirtioDevice;
use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use tempfile::NamedTempFile;

use crate::probe::Probe;

/// What makes a device.
pub type Constructor = fn() -> Box<dyn VirtioDevice>;

/// The devices.
pub const DEVICES: &[Constructor] =
    &[|| Box::new(Probe), || Box::new(Rng), || block(false), || block(true), vsock];

/// Bytes of the disk.
const DISK: u64 = 1 << 16;

fn block(read_only: bool) -> Box<dyn VirtioDevice> {
    static FILE: OnceLock<NamedTempFile> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let file = NamedTempFile::new().expect("a file");
        file.as_file().set_len(DISK).expect("a disk");
        file
    });
    let image = Image::open(file.path(), read_only).expect("an image");
    let options = BlockOptions { serial: "fuzz".into(), rate: None, quota: Quota::new(Some(DISK)) };
    Box::new(Block::new(image, options).expect("a disk"))
}

/// The port that the host has.
const PORT: u32 = 2;

fn vsock() -> Box<dyn VirtioDevice> {
    thread_local! {
        /// The host's end, which stays open as long as the device lives.
        static PEER: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
    }
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(&[7; 100]).expect("room for a few bytes");
    PEER.set(Some(far));
    Box::new(Vsock::new(3, vec![(PORT, near)]).expect("a vsock"))
}
