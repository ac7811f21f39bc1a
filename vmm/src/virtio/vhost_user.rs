//! A device whose registers another process has: it is served over a connection to that, by QEMU's
//! vhost-user protocol (docs/interop/vhost-user.rst), with the guest's memory shared between the two.
//!
//! The frontend (QEMU) negotiates with the driver, and tells here where the rings are; queues are then
//! served straight from guest memory, their notifications and interrupts going over eventfds. The messages
//! are crate vhost's; what they mean for a device is in `messages.rs`, and how it is served here.
//!
//! The frontend is not trusted: it has the guest in it. Memory is never mapped at its word: what it says
//! of memory has to be what this process shared with it, and rings have to lie in that. It can pass any
//! file as an eventfd, and only harms itself with what that does. A frontend that breaks the protocol is not
//! served any more; a driver whose rings make no sense, of which the frontend is only the messenger, finds
//! that its device failed, as it does with registers of our own.
//!
//! Not here: several frontends, a second connection after the first, live migration, and all that the
//! protocol has beyond what these devices need.

mod messages;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    BackendReqHandler, Error as VhostError, GpuBackend, Result as VhostResult,
    VhostUserBackendReqHandlerMut,
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::queue::{self, Queue};
use super::{DeviceError, EVENT_IDX, FEATURES, Io, VirtioDevice};
use crate::memory::GuestMemory;

/// The largest ring that a frontend may set up, whatever the device would offer by itself: a frontend
/// has one size for all of a device's queues.
const RING_MAX: u16 = 1024;
/// A set bit here means that the frontend speaks of protocol features.
const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// A device, and the connection to its frontend.
pub struct Backend {
    served: Arc<Mutex<Served>>,
    messages: BackendReqHandler<Mutex<Served>>,
    connection: UnixStream,
}

/// What the frontend has made of a device.
struct Served {
    device: Box<dyn VirtioDevice>,
    mem: GuestMemory,
    /// Where the frontend has the memory in its own address space.
    regions: Vec<Region>,
    queues: Vec<Queue>,
    lines: Vec<Line>,
    features: u64,
    /// Whether the device was activated and not reset since.
    active: bool,
    /// The device failed, and is left alone until it is reset.
    failure: Option<DeviceError>,
}

struct Region {
    frontend: u64,
    guest: u64,
    len: u64,
}

/// How one queue's notifications come and go.
#[derive(Default)]
struct Line {
    kick: Option<File>,
    call: Option<File>,
    enabled: bool,
    /// To be served without having been kicked.
    again: bool,
}

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Frontend,
    Queue(usize),
    Host(u32),
}

impl Backend {
    /// Serves `device` over `connection`, to a frontend with which `mem` is shared: its ranges one behind
    /// the other in one file ([`crate::memory::share`]).
    ///
    /// # Errors
    /// When the host has no more descriptors, or the device has a queue of an impossible size.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        mem: GuestMemory,
        connection: UnixStream,
    ) -> Result<Self, DeviceError> {
        let queues = device.queue_sizes().iter().map(|_| Queue::new(RING_MAX));
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        let lines = queues.iter().map(|_| Line::default()).collect();
        let (regions, features, active, failure) = (Vec::new(), 0, false, None);
        let served = Served { device, mem, regions, queues, lines, features, active, failure };
        let served = Arc::new(Mutex::new(served));
        let messages = BackendReqHandler::from_stream(connection.try_clone()?, served.clone());
        Ok(Self { served, messages, connection })
    }

    /// Serves until the frontend is gone, which is no error: whoever started it knows why.
    ///
    /// # Errors
    /// When the frontend breaks the protocol, or the host can no longer be waited for.
    pub fn run(mut self) -> io::Result<()> {
        let mut watch = Watch::new()?;
        loop {
            let (files, at_once) = self.files();
            watch.set(files)?;
            for source in watch.wait(!at_once.is_empty())?.into_iter().chain(at_once) {
                match source {
                    Source::Queue(index) => lock(&self.served).process_queue(index),
                    Source::Host(token) => lock(&self.served).process_host(token),
                    Source::Frontend => {
                        if !self.hear_frontend()? {
                            return Ok(());
                        }
                        // Another file may have the number of one that it replaced.
                        watch = Watch::new()?;
                    }
                }
            }
        }
    }

    /// Takes one message. False if there will be no more.
    fn hear_frontend(&mut self) -> io::Result<bool> {
        match self.messages.handle_request() {
            Ok(()) => {}
            Err(VhostError::Disconnected | VhostError::SocketBroken(_)) => return Ok(false),
            // [`Served::fail`] said so.
            Err(VhostError::ReqHandlerError(_)) => {}
            // The crate looks at addresses before anything here does, and calls this what is not aligned.
            Err(VhostError::InvalidMessage) => {
                let _ = lock(&self.served).fail(DeviceError::Protocol("no such rings"));
            }
            Err(e) => return Err(io::Error::other(e.to_string())),
        }
        Ok(true)
    }

    /// What is to be waited for now, and the queues that need no wait.
    fn files(&self) -> (Vec<Watched>, Vec<Source>) {
        let served = lock(&self.served);
        let mut files = vec![(self.connection.as_raw_fd(), EventSet::IN, Source::Frontend)];
        let mut at_once = Vec::new();
        for (index, line) in served.lines.iter().enumerate() {
            if let Some(kick) = line.kick.as_ref().filter(|_| served.is_running(index)) {
                files.push((kick.as_raw_fd(), EventSet::IN, Source::Queue(index)));
                at_once.extend(line.again.then_some(Source::Queue(index)));
            }
        }
        let host = if served.is_active() { served.device.host_files() } else { Vec::new() };
        files.extend(host.iter().filter(|file| file.read || file.write).map(|file| {
            let mut interest = EventSet::empty();
            interest.set(EventSet::IN, file.read);
            interest.set(EventSet::OUT, file.write);
            (file.fd, interest, Source::Host(file.token))
        }));
        (files, at_once)
    }
}

type Watched = (RawFd, EventSet, Source);

/// The files that are waited for. They seldom change, and are then all watched anew: a file that is gone
/// here but not in the frontend would go on to be watched.
struct Watch {
    epoll: Epoll,
    files: Vec<Watched>,
}

impl Watch {
    fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, files: Vec::new() })
    }

    fn set(&mut self, files: Vec<Watched>) -> io::Result<()> {
        if files == self.files {
            return Ok(());
        }
        self.epoll = Epoll::new()?;
        for (index, (fd, interest, _)) in (0..).zip(&files) {
            // A file that cannot be waited for is never ready.
            let event = EpollEvent::new(*interest, index);
            let _ = self.epoll.ctl(ControlOperation::Add, *fd, event);
        }
        self.files = files;
        Ok(())
    }

    /// The files that are ready, without waiting for one if something else is to be done `at_once`.
    fn wait(&self, at_once: bool) -> io::Result<Vec<Source>> {
        let mut events = [EpollEvent::default(); 16];
        let count = match self.epoll.wait(if at_once { 0 } else { -1 }, &mut events) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            count => count?,
        };
        let source = |event: &EpollEvent| Some(self.files.get(event.data() as usize)?.2);
        Ok(events.iter().take(count).filter_map(source).collect())
    }
}

fn lock(served: &Mutex<Served>) -> MutexGuard<'_, Served> {
    served.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Served {
    /// Whether a driver uses the device, and it has not failed.
    fn is_active(&self) -> bool {
        self.active && self.failure.is_none()
    }

    fn is_running(&self, index: usize) -> bool {
        self.is_active() && self.lines[index].enabled && self.queues[index].ring.ready()
    }

    fn process_queue(&mut self, index: usize) {
        self.lines[index].again = false;
        if let Some(kick) = &self.lines[index].kick {
            // Before the queue is looked at, lest a notification be lost. It may be one that only `again`
            // brought here, and then there is nothing to read.
            let _ = nonblocking_read(kick);
        }
        if self.is_running(index) {
            self.call(|device, io| device.process_queue(index, io));
        }
    }

    fn process_host(&mut self, token: u32) {
        if self.is_active() && self.device.host_files().iter().any(|file| file.token == token) {
            self.call(|device, io| device.process_host(token, io));
        }
    }

    /// Calls the device, and then tells the driver what came of it.
    fn call(
        &mut self,
        call: impl FnOnce(&mut dyn VirtioDevice, &mut Io<'_>) -> Result<(), DeviceError>,
    ) {
        queue::allot(&mut self.queues);
        let Self { device, queues, mem, .. } = self;
        // A change of the configuration space has no way to the frontend here, and no device makes one.
        let mut io = Io { mem, queues, config_changed: false };
        let result = call(&mut **device, &mut io).and(self.settle());
        if let Err(failure) = result {
            self.failure = Some(failure);
        }
    }

    fn settle(&mut self) -> Result<(), DeviceError> {
        for (queue, line) in self.queues.iter_mut().zip(&mut self.lines) {
            let settled = queue.settle(&self.mem)?;
            line.again |= settled.again;
            if let (true, Some(mut call)) = (settled.interrupt, line.call.as_ref()) {
                // A full counter is as good as one more.
                let _ = call.write(&1u64.to_ne_bytes());
            }
        }
        Ok(())
    }

    /// The device has failed by what its driver did; nobody else has done wrong.
    fn fail(&mut self, failure: impl Into<DeviceError>) -> VhostError {
        let failure = failure.into();
        let told = io::Error::other(failure.to_string());
        self.failure = Some(failure);
        VhostError::ReqHandlerError(told)
    }

    fn ring(&mut self, index: u32) -> VhostResult<(&mut Queue, &mut Line)> {
        let index = usize::try_from(index).map_err(|_| VhostError::InvalidParam)?;
        match (self.queues.get_mut(index), self.lines.get_mut(index)) {
            (Some(queue), Some(line)) => Ok((queue, line)),
            _ => Err(VhostError::InvalidParam),
        }
    }

    /// Where in guest memory the frontend's address is. It has others: a driver may have named what is no
    /// memory.
    fn guest(&self, frontend: u64) -> Result<GuestAddress, virtio_queue::Error> {
        let found = self.regions.iter().find_map(|region| {
            let offset = frontend.checked_sub(region.frontend)?;
            (offset < region.len).then(|| GuestAddress(region.guest + offset))
        });
        found.ok_or(virtio_queue::Error::FindMemoryRegion)
    }

    /// Whether this range is one piece of our memory, at this place of the file.
    fn is_ours(&self, guest: u64, len: u64, place: u64) -> bool {
        let mut offset = 0;
        self.mem.iter().any(|ours| {
            let begin = guest.checked_sub(ours.start_addr().0);
            let end = begin.and_then(|begin| begin.checked_add(len));
            let fits = end.is_some_and(|end| end <= ours.len());
            let there = begin.and_then(|begin| begin.checked_add(offset)) == Some(place);
            offset += ours.len();
            fits && there
        })
    }

    /// The driver has set this ring up: it is served from now on.
    fn start(&mut self, index: u32) -> VhostResult<()> {
        let event_idx = self.features & EVENT_IDX != 0;
        let mem = self.mem.clone();
        let (Queue { ring, .. }, line) = self.ring(index)?;
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        // The queue takes address 0 for a ring that was never set.
        if ring.avail_ring() == 0 || !ring.is_valid(&mem) {
            ring.set_ready(false);
            return Err(self.fail(virtio_queue::Error::QueueNotReady));
        }
        // A driver may have offered before it was ready, and even notified.
        line.again = true;
        if !std::mem::replace(&mut self.active, true) && self.failure.is_none() {
            let features = self.features;
            self.call(|device, io| device.activate(features, io));
        }
        Ok(())
    }

    fn stop(&mut self, index: u32) -> VhostResult<u16> {
        let (queue, line) = self.ring(index)?;
        let next = queue.ring.next_avail();
        queue.ring.reset();
        queue.used = false;
        *line = Line { enabled: line.enabled, ..Line::default() };
        if self.queues.iter().all(|queue| !queue.ring.ready()) {
            self.reset();
        }
        Ok(next)
    }

    fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.ring.reset();
            queue.used = false;
        }
        self.device.reset();
        self.active = false;
        self.failure = None;
    }
}

/// Reads an event that may not be there, from a file of the frontend's choice.
fn nonblocking_read(mut kick: &File) -> io::Result<usize> {
    let mut ready = [PollFd::new(kick, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ready, Some(&now))? == 0 { Ok(0) } else { kick.read(&mut [0; 8]) }
}
