//! The commands that speak with a supervisor at present: each has sent a part of a request, waits for the
//! workload's end, or is attached to its streams.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::control::{LINE_MAX, Reply, Request};
use crate::log::Stream;
use sbx_host::frame::{Decoder, Frame};

/// So many at a time; more wait at the door.
const MOST: usize = 256;
/// How much of the workload's output waits for one who is attached.
const BEHIND: usize = 1 << 20;
/// How much input of one who is attached is taken off the connection before the workload has room.
const AHEAD: usize = 128 << 10;

#[derive(Default)]
pub(super) struct Clients(Vec<Client>);

struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    waits: bool,
    attached: Option<Attached>,
    /// What it has yet to read.
    out: VecDeque<u8>,
    /// It was answered; nothing more comes for it.
    answered: bool,
    /// It is gone.
    done: bool,
}

#[derive(Default)]
struct Attached {
    input: Decoder,
    /// The workload waits for it where it is behind.
    holds: bool,
}

impl Client {
    fn new(stream: UnixStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let (request, out, attached) = (Vec::new(), VecDeque::new(), None);
        Some(Self { stream, request, waits: false, attached, out, answered: false, done: false })
    }
}

impl Clients {
    /// Lets all in who are at the door.
    pub(super) fn accept(&mut self, door: &UnixListener) {
        while self.have_room()
            && let Ok((stream, _)) = door.accept()
        {
            self.0.extend(Client::new(stream));
        }
    }

    /// Whether one more would be let in.
    pub(super) fn have_room(&self) -> bool {
        self.0.len() < MOST
    }

    /// Lets one in who is attached from the start, and for whom the workload waits.
    pub(super) fn add_attached(&mut self, stream: UnixStream) {
        let attached = Some(Attached { holds: true, ..Attached::default() });
        self.0.extend(Client::new(stream).map(|client| Client { attached, ..client }));
    }

    /// All connections.
    pub(super) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|client| client.stream.as_fd())
    }

    /// The connections to wait for: whether to be read, and whether to be written. They are known by their
    /// place until [`Self::tidy`].
    pub(super) fn interests(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, bool, bool)> {
        self.0.iter().enumerate().map(|(index, client)| {
            let full = client.attached.as_ref().is_some_and(|a| a.input.waiting() >= AHEAD);
            (index, client.stream.as_fd(), !full && !client.answered, !client.out.is_empty())
        })
    }

    /// Whether one for whom the workload waits has not read what there was.
    pub(super) fn hold_output(&self) -> bool {
        let behind = |c: &Client| c.out.len() >= BEHIND / 2;
        self.0.iter().any(|c| c.attached.as_ref().is_some_and(|a| a.holds) && behind(c))
    }

    /// Reads what one has sent, and writes what waits for it; a request, if there is a whole one.
    pub(super) fn hear(&mut self, index: usize) -> Option<Request> {
        let client = self.0.get_mut(index)?;
        client.flush();
        let mut room = [0; 16 << 10];
        match client.stream.read(&mut room) {
            Ok(count @ 1..) => match &mut client.attached {
                Some(attached) => attached.input.add(&room[..count]),
                None if client.waits => client.done = true,
                None => client.request.extend(&room[..count]),
            },
            Ok(_) => client.done = true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => client.done = true,
        }
        if client.attached.is_some() || client.done {
            return None;
        }
        match client.request.strip_suffix(b"\n").map(serde_json::from_slice) {
            Some(Ok(request)) => {
                client.request.clear();
                Some(request)
            }
            Some(Err(e)) => {
                self.answer(index, &Reply::Refused(format!("that is no request: {e}")));
                None
            }
            None => {
                client.done |= client.request.len() > LINE_MAX;
                None
            }
        }
    }

    /// What one who is attached has sent, a piece at a time, as long as the workload has `room` for input.
    pub(super) fn next_frame(&mut self, index: usize, room: usize) -> Option<Frame> {
        let client = self.0.get_mut(index)?;
        let attached = client.attached.as_mut()?;
        if room == 0 {
            return None;
        }
        attached.input.next_frame().unwrap_or_else(|_| {
            client.done = true;
            None
        })
    }

    /// One is answered at the workload's end.
    pub(super) fn await_end(&mut self, index: usize) {
        if let Some(client) = self.0.get_mut(index) {
            client.waits = true;
        }
    }

    /// One is shown the workload's streams from here on.
    pub(super) fn attach(&mut self, index: usize) {
        self.answer(index, &Reply::Done);
        if let Some(client) = self.0.get_mut(index) {
            client.attached = Some(Attached::default());
            client.answered = false;
        }
    }

    /// Gives the connection of one away, behind the answer that another will speak over it.
    pub(super) fn hand_over(&mut self, index: usize) -> Option<UnixStream> {
        self.answer(index, &Reply::Done);
        let client = self.0.get_mut(index)?;
        let stream = client.stream.try_clone().ok().filter(|_| client.out.is_empty());
        client.done = true;
        stream
    }

    /// An answer, behind which the connection ends.
    pub(super) fn answer(&mut self, index: usize, reply: &Reply) {
        if let Some(client) = self.0.get_mut(index) {
            client.tell(reply);
        }
    }

    /// Shows all who are attached what the workload wrote. One that is too far behind, and for whom nobody
    /// waits, is let go: the log has it all.
    pub(super) fn show(&mut self, stream: Stream, bytes: &[u8]) {
        let mut frame = None;
        for client in self.0.iter_mut().filter(|client| client.attached.is_some()) {
            let frame = frame.get_or_insert_with(|| match stream {
                Stream::Stdout => Frame::Output(bytes.into()).encode(),
                Stream::Stderr => Frame::Error(bytes.into()).encode(),
            });
            client.out.extend(&*frame);
            client.flush();
            client.done |= client.out.len() > 2 * BEHIND;
        }
    }

    /// All who wait or are attached hear of the end.
    pub(super) fn tell_end(&mut self, reply: &Reply, frame: &Frame) {
        for client in &mut self.0 {
            if client.attached.is_some() {
                client.out.extend(frame.encode());
                client.flush();
                client.answered = true;
            } else if client.waits {
                client.tell(reply);
            }
        }
    }

    /// Whether somebody has yet to read what is theirs; one for whom the workload waited, or anybody.
    pub(super) fn are_owed(&self, held_only: bool) -> bool {
        let counts = |c: &Client| !held_only || c.attached.as_ref().is_some_and(|a| a.holds);
        self.0.iter().any(|client| counts(client) && !client.out.is_empty() && !client.done)
    }

    /// Forgets those who are gone.
    pub(super) fn tidy(&mut self) {
        let is_over = |client: &Client| client.done || client.answered && client.out.is_empty();
        self.0.retain(|client| !is_over(client));
    }
}

impl Client {
    fn tell(&mut self, reply: &Reply) {
        self.out.extend(serde_json::to_vec(reply).unwrap_or_default());
        self.out.push_back(b'\n');
        self.flush();
        self.answered = true;
    }

    fn flush(&mut self) {
        while let (piece @ [_, ..], _) = self.out.as_slices() {
            match self.stream.write(piece) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.done = true;
                    self.out.clear();
                }
            }
        }
    }
}
