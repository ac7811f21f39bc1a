//! The commands that speak with a supervisor at present: each has sent a part of a request, or waits for
//! the workload's end.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::control::{LINE_MAX, Reply, Request};

/// So many at a time; more wait at the door.
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct Clients(Vec<Client>);

struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    waits: bool,
    /// It was answered, or is gone.
    done: bool,
}

impl Clients {
    /// Lets all in who are at the door.
    pub(super) fn accept(&mut self, door: &UnixListener) {
        while self.0.len() < MOST
            && let Ok((stream, _)) = door.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                self.0.push(Client { stream, request: Vec::new(), waits: false, done: false });
            }
        }
    }

    /// Their connections. They are known by their place until [`Self::tidy`].
    pub(super) fn files(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.0.iter().enumerate().map(|(index, client)| (index, client.stream.as_fd()))
    }

    /// Reads what one has sent; a request, if that is whole.
    pub(super) fn hear(&mut self, index: usize) -> Option<Request> {
        let client = self.0.get_mut(index)?;
        let mut room = [0; 4096];
        match client.stream.read(&mut room) {
            Ok(count @ 1..) if !client.waits => client.request.extend(&room[..count]),
            // One who waits has nothing more to say.
            Ok(_) => client.done = true,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => client.done = true,
        }
        let line = client.request.strip_suffix(b"\n");
        let request = line.map(serde_json::from_slice);
        match request {
            Some(Ok(request)) if !client.done => {
                client.request.clear();
                Some(request)
            }
            Some(Err(e)) => {
                self.answer(index, &Reply::Refused(format!("that is no request: {e}")));
                None
            }
            _ => {
                client.done |= client.request.len() > LINE_MAX;
                None
            }
        }
    }

    /// One is answered at the workload's end.
    pub(super) fn await_end(&mut self, index: usize) {
        if let Some(client) = self.0.get_mut(index) {
            client.waits = true;
        }
    }

    /// An answer is shorter than what a socket holds; who has not read the last one gets none.
    pub(super) fn answer(&mut self, index: usize, reply: &Reply) {
        if let Some(client) = self.0.get_mut(index) {
            client.tell(reply);
        }
    }

    /// All who wait hear of the end.
    pub(super) fn tell_all(&mut self, reply: &Reply) {
        self.0.iter_mut().filter(|client| client.waits).for_each(|client| client.tell(reply));
        self.0.clear();
    }

    /// Forgets those who are gone.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|client| !client.done);
    }
}

impl Client {
    fn tell(&mut self, reply: &Reply) {
        let mut text = serde_json::to_vec(reply).unwrap_or_default();
        text.push(b'\n');
        let _ = self.stream.write_all(&text);
        self.done = true;
    }
}
