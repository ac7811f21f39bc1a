use super::*;
use crate::bus::BusDevice;
use crate::memory;
use crate::virtio::{DeviceError, Io, VirtioDevice};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a device was called for, in order.
type Calls = Arc<Mutex<Vec<String>>>;

struct Recorder {
    name: &'static str,
    calls: Calls,
    file: UnixStream,
    listens: Arc<AtomicBool>,
}

impl VirtioDevice for Recorder {
    fn kind(&self) -> u32 {
        1
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8, 8]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn reset(&mut self) {}

    fn process_queue(&mut self, index: usize, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.calls.lock().unwrap().push(format!("{} queue {index}", self.name));
        Ok(())
    }

    fn host_files(&self) -> Vec<HostFile> {
        let read = self.listens.load(Ordering::SeqCst);
        vec![HostFile { fd: self.file.as_raw_fd(), token: 9, read, write: false }]
    }

    fn process_host(&mut self, token: u32, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.calls.lock().unwrap().push(format!("{} host {token}", self.name));
        self.listens.store(false, Ordering::SeqCst);
        Ok(())
    }
}

struct Machine {
    transport: Arc<Transport>,
    peer: UnixStream,
    listens: Arc<AtomicBool>,
}

fn machine(name: &'static str, calls: &Calls) -> Machine {
    let (file, peer) = UnixStream::pair().unwrap();
    let listens = Arc::new(AtomicBool::new(true));
    let (calls, heard) = (calls.clone(), listens.clone());
    let device = Recorder { name, calls, file, listens: heard };
    let mem = memory::allocate(&[(0, 1 << 20)]).unwrap();
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let transport = Transport::new(Box::new(device), mem, irq).unwrap();
    Machine { transport, peer, listens }
}

fn activate(transport: &Transport) {
    for (register, value) in
        [(0x70, 1u32), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 0xb), (0x70, 0xf)]
    {
        transport.write(register, &value.to_le_bytes());
    }
}

fn rounds(worker: &mut Worker) {
    (0..4).for_each(|_| worker.round(0).unwrap());
}

#[test]
fn devices_are_called_for_what_is_theirs() {
    let calls = Calls::default();
    let [a, b] = ["a", "b"].map(|name| machine(name, &calls));
    let mut worker = Worker::new(vec![a.transport.clone(), b.transport.clone()]).unwrap();
    let called = |worker: &mut Worker| {
        rounds(worker);
        let mut called = std::mem::take(&mut *calls.lock().unwrap());
        called.sort();
        called
    };
    // Before the driver is ready nothing is.
    (&b.peer).write_all(b"x").unwrap();
    a.transport.write(0x50, &1u32.to_le_bytes());
    assert!(called(&mut worker).is_empty());
    // Another thread activates, and the worker hears of it; so it does of the file that was ready.
    activate(&b.transport);
    assert_eq!(called(&mut worker), ["b host 9", "b queue 0", "b queue 1"]);
    activate(&a.transport);
    assert_eq!(called(&mut worker), ["a queue 0", "a queue 1"]);
    // One notification, one call. `b` listens no longer, though the file still has something.
    a.transport.write(0x50, &1u32.to_le_bytes());
    assert_eq!(called(&mut worker), ["a queue 1"]);
    assert!(called(&mut worker).is_empty());
    // It listens again once it has been called.
    b.listens.store(true, Ordering::SeqCst);
    b.transport.write(0x50, &0u32.to_le_bytes());
    assert_eq!(called(&mut worker), ["b host 9", "b queue 0"]);
    // A device that was reset hears nothing.
    b.listens.store(true, Ordering::SeqCst);
    b.transport.write(0x70, &0u32.to_le_bytes());
    assert!(called(&mut worker).is_empty());
    assert!(worker.devices.iter().all(|device| device.files.len() <= 1));
}

#[test]
fn a_closed_file_whose_number_is_used_again_is_watched() {
    let epoll = Epoll::new().unwrap();
    let (old, _old_peer) = UnixStream::pair().unwrap();
    let file = |fd, token| HostFile { fd, token, read: true, write: false };
    watch_file(&epoll, 0, file(old.as_raw_fd(), 1));
    let number = old.as_raw_fd();
    let (new, peer) = UnixStream::pair().unwrap();
    // Takes the number of the old one, which is closed thereby.
    let mut taken = std::os::fd::OwnedFd::from(old);
    rustix::io::dup2(&new, &mut taken).unwrap();
    assert_eq!(taken.as_raw_fd(), number);
    watch_file(&epoll, 0, file(number, 2));
    (&peer).write_all(b"x").unwrap();
    let mut events = [EpollEvent::default(); 4];
    assert_eq!(epoll.wait(0, &mut events).unwrap(), 1);
    assert_eq!(decode(events[0].data()), (0, Source::Host(2)));
}

#[test]
fn events_keep_their_meaning() {
    for device in [0, 1, 1 << 20] {
        for source in [
            Source::Queue(0),
            Source::Queue(u32::MAX),
            Source::Changed,
            Source::Host(0),
            Source::Host(u32::MAX),
        ] {
            assert_eq!(decode(encode(device, source)), (device, source));
        }
    }
}
