//! Every device that the target `device` tries: one line each in [`DEVICES`]. A constructor makes the
//! device as new, with nothing behind it that outlives this process.

use sbx_core::quota::Quota;
use sbx_vmm::device::balloon::Balloon;
use sbx_vmm::device::block::{Block, BlockOptions};
use sbx_vmm::device::console::Console;
use sbx_vmm::device::fs::Fs;
use sbx_vmm::device::image::Image;
use sbx_vmm::device::net::{Link, Net, NetOptions, Offload};
use sbx_vmm::device::rate::{Limit, Rate};
use sbx_vmm::device::rng::Rng;
use sbx_vmm::device::vsock::Vsock;
use sbx_vmm::fs::Access;
use sbx_vmm::virtio::VirtioDevice;
use std::cell::RefCell;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::OnceLock;
use tempfile::NamedTempFile;

use crate::probe::Probe;
use crate::shared::Shared;

/// What makes a device.
pub type Constructor = fn() -> Box<dyn VirtioDevice>;

/// The devices.
pub const DEVICES: &[Constructor] = &[
    || Box::new(Probe),
    || Box::new(Rng),
    || block(false),
    || block(true),
    vsock,
    net,
    console,
    || Box::new(Balloon::new().expect("a balloon").0),
    || fs(Access::ReadWrite),
    || fs(Access::ReadOnly),
];

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
    Box::new(Vsock::new(3, vec![(PORT, stream())]).expect("a vsock"))
}

thread_local! {
    /// The host's end of a device's stream, which stays open as long as the device lives.
    static PEER: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

/// A stream with a few bytes in it.
fn stream() -> UnixStream {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(&[7; 100]).expect("room for a few bytes");
    PEER.set(Some(far.into()));
    near
}

fn console() -> Box<dyn VirtioDevice> {
    let (console, handle) =
        Console::new(Box::new(|_| ()), Some(stream().into())).expect("a console");
    handle.resize(80, 25);
    Box::new(console)
}

/// A link that has two packets.
struct Pair(UnixDatagram);

impl AsFd for Pair {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Pair {
    fn set_offload(&self, _offload: Offload) -> io::Result<()> {
        Ok(())
    }
}

fn net() -> Box<dyn VirtioDevice> {
    let (near, far) = UnixDatagram::pair().expect("a pair");
    for len in [60, 9000] {
        far.send(&vec![1; len]).expect("room for a packet");
    }
    near.set_nonblocking(true).expect("a link");
    PEER.set(Some(far.into()));
    let limit = Limit { per_second: NonZeroU64::MIN, burst: 16 };
    let rate = Rate { bytes: None, operations: Some(limit) };
    let options = NetOptions { mac: [2, 0, 0, 0, 0, 1], receive: None, send: Some(rate) };
    Box::new(Net::new(Pair(near), options).expect("an interface"))
}

fn fs(access: Access) -> Box<dyn VirtioDevice> {
    thread_local! {
        /// The directory, which stays as long as the device lives.
        static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
    }
    let shared = Shared::new();
    let server = shared.server(access);
    SHARED.set(Some(shared));
    Box::new(Fs::new("fuzz", server).expect("a tag"))
}
