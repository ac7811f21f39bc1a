//! What tests share: devices in the middle of their work, with all that a reset has to end.

use sbx_core::quota::Quota;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;

use super::balloon::Balloon;
use super::console::Console;
use super::fs::Fs;
use super::vsock::Vsock;
use crate::fs::{Access, Options, Server};
use crate::virtio::VirtioDevice;
use crate::virtio::testing::Driver;

/// A device, and the driver that it works for.
pub(crate) type Busy = (Box<dyn VirtioDevice>, Driver);

/// All devices whose reset is more than to forget. The host's ends of their streams stay open.
pub(crate) fn all() -> Vec<Busy> {
    let (console, _) = Console::new(Box::new(|_| ()), Some(stream().into())).unwrap();
    let mut devices = vec![vsock(), fs()];
    for device in [Box::new(console) as Box<dyn VirtioDevice>, Box::new(Balloon::new().unwrap().0)]
    {
        let mut device = device;
        let driver = Driver::new(&mut *device);
        devices.push((device, driver));
    }
    devices
}

/// A stream with more in it than is read at once.
fn stream() -> UnixStream {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(&[7; 10_000]).unwrap();
    std::mem::forget(far);
    near
}

/// A socket device whose guest is connected, and has sent something.
fn vsock() -> Busy {
    let mut device = Vsock::new(3, vec![(1024, stream())]).unwrap();
    let mut driver = Driver::new(&mut device);
    let (request, data) = (1u16, 5u16);
    for (op, payload) in [(request, &b""[..]), (data, b"hello")] {
        let len = u32::try_from(payload.len()).unwrap();
        // From and to; length; the type of socket, what it is, flags; buffer, taken of it.
        let mut packet = [3u64, 2].map(u64::to_le_bytes).concat();
        packet.extend(
            [5000u32, 1024, len, 1 | u32::from(op) << 16, 0, 0, 0].map(u32::to_le_bytes).concat(),
        );
        driver.offer(1, &[&packet, payload], &[]);
    }
    driver.with_io(|io| device.process_queue(1, io)).unwrap();
    (Box::new(device), driver)
}

/// A shared directory that the guest has open.
fn fs() -> Busy {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { access: Access::ReadWrite, quota: Quota::new(None), nodes: 50, descriptors: 50 };
    let server = Server::new(File::open(dir.path()).unwrap().into(), options).unwrap();
    let mut device = Fs::new("data", server).unwrap();
    let mut driver = Driver::new(&mut device);
    let (init, open_directory) = (26, 27);
    for (opcode, args) in [(init, [7u32, 31, 0, 0].as_slice()), (open_directory, &[0, 0])] {
        let len = u32::try_from(40 + 4 * args.len()).unwrap();
        // Length, what it is; its number, the root's; user, group, process.
        let words = [&[len, opcode, 9, 0, 1, 0, 0, 0, 0, 0], args].concat();
        let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let rooms = driver.offer(1, &[&words], &[16, 100]);
        driver.with_io(|io| device.process_queue(1, io)).unwrap();
        assert_eq!(driver.bytes(rooms[0] + 4, 4), [0; 4], "an error for {opcode}");
    }
    (Box::new(device), driver)
}
