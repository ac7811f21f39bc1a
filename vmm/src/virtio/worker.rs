//! The thread that devices work on: it waits for their queues and the host's files, and calls them.
//!
//! Devices that never block share one; a device that does (a filesystem, in the host's system calls)
//! gets its own. In a round each event that is ready is served once, and in one call a device is given
//! at most one ring's worth of chains of each queue (`Queue::pop`), so that no device, whatever its
//! driver does, keeps the thread from the others for ever.
//!
//! Everything is level-triggered: a device that does not serve a file must stop listing it, or the thread
//! goes on calling it. An error or hangup of a file counts as ready, but a file of which neither reading
//! nor writing is of interest is not watched at all. A device must list a file only once, and give
//! another file another token, even if the host gave it the same number. Files that cannot be waited for
//! (those of a file system) are never ready.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::HostFile;
use super::mmio::Transport;

/// How many events one round takes from the host.
const BATCH: usize = 32;

/// A thread's work; see the module.
pub struct Worker {
    epoll: Epoll,
    devices: Vec<Device>,
}

/// One device, and the files that are watched for it.
struct Device {
    transport: Arc<Transport>,
    files: Vec<HostFile>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Queue(u32),
    Changed,
    Host(u32),
}

impl Worker {
    /// A worker for these devices, which no other may serve.
    ///
    /// # Errors
    /// When the host has no more descriptors or memory.
    pub fn new(transports: Vec<Arc<Transport>>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for (device, transport) in (0..).zip(&transports) {
            let queues = (0..).map(Source::Queue).zip(transport.queue_events());
            for (source, event) in queues.chain([(Source::Changed, transport.changed())]) {
                let event_of = EpollEvent::new(EventSet::IN, encode(device, source));
                epoll.ctl(ControlOperation::Add, event.as_raw_fd(), event_of)?;
            }
        }
        let devices = transports.into_iter().map(|transport| Device { transport, files: vec![] });
        Ok(Self { epoll, devices: devices.collect() })
    }

    /// Serves the devices for as long as the process lives; returns only when the host can no longer be
    /// waited for.
    pub fn run(mut self) -> io::Error {
        loop {
            if let Err(e) = self.round(-1) {
                return e;
            }
        }
    }

    /// Waits for something to do, at most for `timeout` milliseconds unless that is negative, and does it.
    fn round(&mut self, timeout: i32) -> io::Result<()> {
        let mut events = [EpollEvent::default(); BATCH];
        let count = match self.epoll.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(e),
        };
        for event in events.iter().take(count) {
            let (device, source) = decode(event.data());
            if let Some(device) = self.devices.get_mut(device as usize) {
                device.serve(source);
                device.watch(&self.epoll, device_index(event.data()));
            }
        }
        Ok(())
    }
}

impl Device {
    fn serve(&self, source: Source) {
        let transport = &self.transport;
        match source {
            Source::Queue(index) => {
                let index = index as usize;
                if let Some(event) = transport.queue_events().get(index) {
                    // Before the queue is looked at, lest a notification be lost. Not an error if another
                    // has read it.
                    let _ = event.read();
                    transport.process_queue(index);
                }
            }
            Source::Changed => {
                let _ = transport.changed().read();
            }
            Source::Host(token) => transport.process_host(token),
        }
    }

    /// Watches the files that the device has now.
    fn watch(&mut self, epoll: &Epoll, device: u32) {
        let mut now = self.transport.host_files();
        now.retain(|file| file.read || file.write);
        if now == self.files {
            return;
        }
        for gone in self.files.iter().filter(|old| now.iter().all(|new| new.fd != old.fd)) {
            // The device has closed it already, perhaps.
            let _ = epoll.ctl(ControlOperation::Delete, gone.fd, EpollEvent::default());
        }
        for new in now.iter().filter(|new| !self.files.contains(new)) {
            watch_file(epoll, device, *new);
        }
        self.files = now;
    }
}

fn watch_file(epoll: &Epoll, device: u32, file: HostFile) {
    let mut interest = EventSet::empty();
    interest.set(EventSet::IN, file.read);
    interest.set(EventSet::OUT, file.write);
    let event = EpollEvent::new(interest, encode(device, Source::Host(file.token)));
    // Whether the number stood for another file before is for the kernel to know.
    let control = |operation, fd: RawFd| epoll.ctl(operation, fd, event);
    if control(ControlOperation::Modify, file.fd).is_err() {
        // A file that cannot be waited for is never ready.
        let _ = control(ControlOperation::Add, file.fd);
    }
}

/// An event's number: the device in the upper half, of which two bits tell the kind of source.
fn encode(device: u32, source: Source) -> u64 {
    let (kind, value) = match source {
        Source::Queue(index) => (0, index),
        Source::Changed => (1, 0),
        Source::Host(token) => (2, token),
    };
    u64::from(device) << 34 | kind << 32 | u64::from(value)
}

fn device_index(data: u64) -> u32 {
    (data >> 34) as u32
}

fn decode(data: u64) -> (u32, Source) {
    let value = data as u32;
    let source = match data >> 32 & 3 {
        0 => Source::Queue(value),
        1 => Source::Changed,
        _ => Source::Host(value),
    };
    (device_index(data), source)
}

#[cfg(test)]
mod tests;
