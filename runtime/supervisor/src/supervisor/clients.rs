//! The commands that speak with a supervisor at present: each has sent a part of a request, waits for the
//! workload's end, or is attached to its streams.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::control::{LINE_MAX, Reply, Request};
use crate::log::Stream;
use sbx_host::frame::{Connection, Frame};

/// So many at a time; more wait at the door.
const MOST: usize = 256;
/// How much of the workload's output waits for one who is attached.
const BEHIND: usize = 1 << 20;
/// How much input of one who is attached is taken off the connection before the workload has room.
const AHEAD: usize = 128 << 10;

#[derive(Default)]
pub(super) struct Clients(Vec<Client>);

struct Client {
    connection: Connection,
    /// It asked to hear of the end.
    waits: bool,
    /// What it sends and is sent are pieces of the workload's streams.
    attached: bool,
    /// The workload waits for it where it is behind.
    holds: bool,
    /// It was answered; nothing more comes for it.
    answered: bool,
    /// It is to be forgotten.
    done: bool,
}

impl Client {
    fn new(stream: UnixStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let connection = Connection::new(stream);
        let (waits, attached, holds, answered, done) = (false, false, false, false, false);
        Some(Self { connection, waits, attached, holds, answered, done })
    }

    fn is_over(&self) -> bool {
        self.done || self.connection.is_gone() || self.answered && self.connection.owed() == 0
    }

    /// An answer, behind which the connection ends.
    fn tell(&mut self, reply: &Reply) {
        let mut text = serde_json::to_vec(reply).unwrap_or_default();
        text.push(b'\n');
        self.connection.send_raw(&text);
        self.answered = true;
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
        let client = Client::new(stream);
        self.0.extend(client.map(|client| Client { attached: true, holds: true, ..client }));
    }

    /// All connections.
    pub(super) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|client| client.connection.as_fd())
    }

    /// The connections to wait for: whether to be read, and whether to be written. They are known by their
    /// place until [`Self::tidy`].
    pub(super) fn interests(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, bool, bool)> {
        self.0.iter().enumerate().map(|(index, client)| {
            let reads = client.connection.waiting() < AHEAD && !client.answered;
            (index, client.connection.as_fd(), reads, client.connection.owed() > 0)
        })
    }

    /// Whether one for whom the workload waits has not read what there was.
    pub(super) fn hold_output(&self) -> bool {
        self.0.iter().any(|client| client.holds && client.connection.owed() >= BEHIND / 2)
    }

    /// Reads what one has sent, and writes what waits for it; a request, if there is a whole one.
    pub(super) fn hear(&mut self, index: usize) -> Option<Request> {
        let client = self.0.get_mut(index)?;
        client.connection.flush();
        client.connection.receive();
        if client.attached {
            return None;
        }
        // One who waits has nothing more to say.
        client.done |= client.waits && client.connection.waiting() > 0;
        let Some(line) = client.connection.line().filter(|_| !client.done) else {
            client.done |= client.connection.waiting() > LINE_MAX;
            return None;
        };
        let request = serde_json::from_slice(&line);
        request.map_err(|e| client.tell(&Reply::Refused(format!("that is no request: {e}")))).ok()
    }

    /// What one who is attached has sent, a piece at a time, as long as the workload has `room` for input.
    pub(super) fn next_frame(&mut self, index: usize, room: usize) -> Option<Frame> {
        let client = self.0.get_mut(index).filter(|client| client.attached && room > 0)?;
        client.connection.next_frame()
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
            (client.attached, client.answered) = (true, false);
        }
    }

    /// Gives the connection of one away, behind the answer that another will speak over it.
    pub(super) fn hand_over(&mut self, index: usize) -> Option<UnixStream> {
        self.answer(index, &Reply::Done);
        let client = self.0.get_mut(index)?;
        client.done = true;
        client.connection.stream().ok().filter(|_| client.connection.owed() == 0)
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
        for client in self.0.iter_mut().filter(|client| client.attached) {
            let frame = frame.get_or_insert_with(|| match stream {
                Stream::Stdout => Frame::Output(bytes.into()).encode(),
                Stream::Stderr => Frame::Error(bytes.into()).encode(),
            });
            client.connection.send_raw(frame);
            client.done |= client.connection.owed() > 2 * BEHIND;
        }
    }

    /// All who wait or are attached hear of the end.
    pub(super) fn tell_end(&mut self, reply: &Reply, frame: &Frame) {
        for client in &mut self.0 {
            if client.attached {
                client.connection.send(frame);
                client.answered = true;
            } else if client.waits {
                client.tell(reply);
            }
        }
    }

    /// Whether somebody has yet to read what is theirs; one for whom the workload waited, or anybody.
    pub(super) fn are_owed(&self, held_only: bool) -> bool {
        let counts = |client: &Client| client.holds || !held_only;
        let owed = |client: &Client| client.connection.owed() > 0 && !client.is_over();
        self.0.iter().any(|client| counts(client) && owed(client))
    }

    /// Forgets those who are gone.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|client| !client.is_over());
    }
}
