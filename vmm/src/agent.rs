//! The host's end of the connection to the guest's init: what goes in are processes, input and signals,
//! what comes out are events.
//!
//! [`Agent`] hides frames and credits and never blocks: its owner polls the descriptor, calls
//! [`Agent::receive`] when it is readable and [`Agent::flush`] when it is writable, and takes events
//! until there are none. Whatever the guest sends, it keeps at most one frame, a bounded queue of what the
//! guest has yet to take, and a few numbers for each of at most [`PROCESSES_MAX`] processes; output is
//! handed on at once, and no more than a window of it comes before [`Agent::consumed`] says that it went
//! somewhere. A guest that breaks the protocol is told by an error, after which the agent is of no more
//! use.
//!
//! It does *not* keep time (a guest that never answers is the caller's to notice), and does not make
//! terminal output safe to show: that is the workload's own, as it would be without a sandbox.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use sbx_proto::frame::{self, Decoder, encode};
use sbx_proto::{
    Boot, DATA_MAX, Output, Process, Reason, SENTENCE_MAX, Status, TO_GUEST_MAX, Terminal, ToGuest,
    ToHost, WINDOW,
};

/// The most processes that can be there at a time.
pub const PROCESSES_MAX: usize = 64;

/// The most bytes that wait for the guest to take them; what a message adds may lie beyond.
const QUEUE_MAX: usize = 2 * TO_GUEST_MAX;

/// What is owed to the guest before a credit is worth a message.
const CREDIT_MIN: u32 = WINDOW / 2;

/// Why the agent cannot go on, or not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest closed the connection: it is shutting down, or its kernel has died.
    #[error("the guest's init ended the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection to the guest's init failed")]
    Io(#[from] std::io::Error),
    /// The guest sent what is no message.
    #[error("the guest's init sent what it must not")]
    Frame(#[source] frame::Error),
    /// The guest sent a message that must not come here: what about it is wrong.
    #[error("the guest's init sent what it must not: {0}")]
    Protocol(&'static str),
    /// The guest takes nothing of what is sent to it.
    #[error("the guest's init does not answer")]
    Stalled,
    /// There are [`PROCESSES_MAX`] processes already. The agent goes on.
    #[error("a guest cannot run more than {PROCESSES_MAX} commands at a time")]
    TooManyProcesses,
    /// Arguments and environment are too long to be sent. The agent goes on.
    #[error("the arguments and the environment are longer than a guest can be given")]
    TooLong(#[source] frame::Error),
}

/// What the guest told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The system is as `Boot` asked.
    Ready,
    /// It could not be made so: a sentence without control characters.
    Failed(String),
    /// The process runs.
    Started {
        /// The process.
        id: u32,
    },
    /// The process could not be started and is gone.
    NotStarted {
        /// The process.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// The process wrote something. Say [`Agent::consumed`] when it is written or dropped.
    Output {
        /// The process.
        id: u32,
        /// Where to.
        output: Output,
        /// What; not empty.
        data: Vec<u8>,
    },
    /// The process can be given more input: see [`Agent::stdin_room`].
    StdinRoom {
        /// The process.
        id: u32,
    },
    /// The process ended and is gone. All its output came before.
    Exited {
        /// The process.
        id: u32,
        /// How.
        status: Status,
        /// Whether the guest's memory was too small for it.
        oom: bool,
    },
}

impl Event {
    /// The process that it is about, if it is about one.
    pub fn process(&self) -> Option<u32> {
        match self {
            Self::Ready | Self::Failed(_) => None,
            Self::Started { id }
            | Self::NotStarted { id, .. }
            | Self::Output { id, .. }
            | Self::StdinRoom { id }
            | Self::Exited { id, .. } => Some(*id),
        }
    }
}

/// What is between host and guest for one output. The three always add up to [`WINDOW`].
#[derive(Debug)]
struct Incoming {
    /// What the guest may still send.
    allowed: u32,
    /// What came and is not consumed.
    held: u32,
    /// What was consumed, and the guest was not told.
    owed: u32,
}

/// One process of the guest, as far as it concerns the connection.
#[derive(Debug)]
struct Entry {
    started: bool,
    /// What the guest takes of its input.
    stdin: u32,
    stdout: Incoming,
    stderr: Incoming,
}

impl Entry {
    fn new() -> Self {
        let incoming = || Incoming { allowed: WINDOW, held: 0, owed: 0 };
        Self { started: false, stdin: WINDOW, stdout: incoming(), stderr: incoming() }
    }

    fn output(&mut self, output: Output) -> &mut Incoming {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }
}

/// The host's end of the connection to one guest's init.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    decoder: Decoder<ToHost>,
    /// What the guest has yet to take, from `sent` on.
    queue: Vec<u8>,
    sent: usize,
    closed: bool,
    /// Whether `Boot` was sent and not answered.
    booting: bool,
    next_id: u32,
    processes: BTreeMap<u32, Entry>,
}

impl AsFd for Agent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Agent {
    /// The agent at this end of a connection that the guest opened to [`PORT`](sbx_proto::PORT).
    ///
    /// # Errors
    /// When the stream cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> Result<Self, Error> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            decoder: Decoder::default(),
            queue: Vec::new(),
            sent: 0,
            closed: false,
            booting: false,
            next_id: 1,
            processes: BTreeMap::new(),
        })
    }

    /// Says how the guest's system is to look: once, before anything else. Processes can be started
    /// without waiting for the answer.
    ///
    /// # Errors
    /// When the connection failed, or this is too long for a message.
    pub fn boot(&mut self, boot: Boot) -> Result<(), Error> {
        self.booting = true;
        self.send(&ToGuest::Boot(boot))
    }

    /// Starts a process and says what it is called in events.
    ///
    /// # Errors
    /// When the connection failed, or the process cannot be asked for.
    pub fn exec(&mut self, process: Process) -> Result<u32, Error> {
        if self.processes.len() >= PROCESSES_MAX {
            return Err(Error::TooManyProcesses);
        }
        let id = self.next_id;
        self.send(&ToGuest::Exec { id, process })?;
        // 2^32 processes of one guest take longer than any machine lives.
        self.next_id = self.next_id.wrapping_add(1);
        self.processes.insert(id, Entry::new());
        Ok(id)
    }

    /// How many bytes of input the process can be given now. Nothing is kept for one that is gone, so
    /// that takes any amount.
    pub fn stdin_room(&self, id: u32) -> usize {
        let Some(entry) = self.processes.get(&id) else { return usize::MAX };
        let queue = QUEUE_MAX.saturating_sub(self.queued());
        usize::try_from(entry.stdin).unwrap_or(usize::MAX).min(queue)
    }

    /// Gives the process input, and says how many bytes of it were taken: at most
    /// [`Agent::stdin_room`], and all if the process is gone.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn stdin(&mut self, id: u32, data: &[u8]) -> Result<usize, Error> {
        let taken = data.len().min(self.stdin_room(id));
        if let Some(entry) = self.processes.get_mut(&id) {
            entry.stdin = entry.stdin.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
            for data in data[..taken].chunks(DATA_MAX) {
                self.send(&ToGuest::Stdin { id, data: data.to_vec() })?;
            }
        }
        Ok(taken)
    }

    /// Ends the process's input.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn stdin_end(&mut self, id: u32) -> Result<(), Error> {
        self.tell(id, &ToGuest::StdinEnd { id })
    }

    /// Says that the process's terminal has a new size.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn resize(&mut self, id: u32, terminal: Terminal) -> Result<(), Error> {
        self.tell(id, &ToGuest::Resize { id, terminal })
    }

    /// Sends a signal (Linux's number) to the process, not to its children.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn signal(&mut self, id: u32, number: u8) -> Result<(), Error> {
        self.tell(id, &ToGuest::Signal { id, number })
    }

    /// Ends all processes and resets the machine; `grace` is the time in milliseconds between SIGTERM and
    /// SIGKILL, and with 0 there is only SIGKILL.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn shutdown(&mut self, grace: u32) -> Result<(), Error> {
        self.send(&ToGuest::Shutdown { grace })
    }

    /// Says that so many bytes of the process's output went where they belong, so that more may come.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn consumed(&mut self, id: u32, output: Output, bytes: usize) -> Result<(), Error> {
        if let Some(entry) = self.processes.get_mut(&id) {
            let incoming = entry.output(output);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(incoming.held);
            incoming.held -= bytes;
            incoming.owed += bytes;
        }
        self.grant()?;
        self.flush()
    }

    /// Whether to call [`Agent::flush`] when the descriptor is writable.
    pub fn wants_write(&self) -> bool {
        self.queued() > 0
    }

    /// Sends what waits, as far as the guest takes it.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn flush(&mut self) -> Result<(), Error> {
        while self.sent < self.queue.len() {
            match self.stream.write(&self.queue[self.sent..]) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drop_sent();
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    // What the guest said last is still to be read; reading tells the end.
                    self.queue.clear();
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if self.sent == self.queue.len() {
                self.queue.clear();
                self.queue.shrink_to(DATA_MAX);
                self.sent = 0;
                self.grant()?;
            }
        }
        Ok(())
    }

    /// Gives back the room of what was sent, once that is worth moving what was not: a guest that always
    /// leaves a little would have the queue grow without end.
    fn drop_sent(&mut self) {
        if self.sent > QUEUE_MAX {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Reads once from the connection. To be called when it is readable, and only after
    /// [`Agent::next_event`] had nothing more.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn receive(&mut self) -> Result<(), Error> {
        let room = self.decoder.room();
        if room.is_empty() {
            return Ok(());
        }
        match self.stream.read(room) {
            Ok(0) => self.closed = true,
            Ok(count) => self.decoder.filled(count),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.closed = true,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The next thing that the guest told, of what was read.
    ///
    /// # Errors
    /// When the guest broke the protocol, or, once all events were given, closed the connection.
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        while let Some(message) = self.decoder.next().map_err(Error::Frame)? {
            if let Some(event) = self.event(message)? {
                return Ok(Some(event));
            }
        }
        if self.closed { Err(Error::Closed) } else { Ok(None) }
    }

    /// Checks a message against what the guest may say now.
    fn event(&mut self, message: ToHost) -> Result<Option<Event>, Error> {
        match message {
            ToHost::Ready => {
                self.booted()?;
                Ok(Some(Event::Ready))
            }
            ToHost::Failed { what } => {
                self.booted()?;
                let plain = |c: char| if c.is_control() { '?' } else { c };
                Ok(Some(Event::Failed(what.chars().take(SENTENCE_MAX).map(plain).collect())))
            }
            ToHost::Started { id } => {
                let entry = self.entry(id, false)?;
                entry.started = true;
                Ok(Some(Event::Started { id }))
            }
            ToHost::NotStarted { id, reason } => {
                self.entry(id, false)?;
                self.processes.remove(&id);
                Ok(Some(Event::NotStarted { id, reason }))
            }
            ToHost::Output { id, output, data } => {
                let incoming = self.entry(id, true)?.output(output);
                match u32::try_from(data.len()) {
                    Ok(length) if length > 0 && length <= incoming.allowed => {
                        incoming.allowed -= length;
                        incoming.held += length;
                    }
                    _ => return Err(Error::Protocol("output of a length that was not allowed")),
                }
                Ok(Some(Event::Output { id, output, data }))
            }
            ToHost::Credit { id, bytes } => {
                let entry = self.entry(id, true)?;
                let before = entry.stdin;
                entry.stdin = before
                    .checked_add(bytes)
                    .filter(|&stdin| stdin <= WINDOW)
                    .ok_or(Error::Protocol("credit for input that was never sent"))?;
                Ok((before == 0 && bytes > 0).then_some(Event::StdinRoom { id }))
            }
            ToHost::Exited { id, status, oom } => {
                self.entry(id, true)?;
                self.processes.remove(&id);
                Ok(Some(Event::Exited { id, status, oom }))
            }
        }
    }

    fn booted(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.booting) {
            Ok(())
        } else {
            Err(Error::Protocol("an answer to what was not asked"))
        }
    }

    fn entry(&mut self, id: u32, started: bool) -> Result<&mut Entry, Error> {
        match self.processes.get_mut(&id) {
            Some(entry) if entry.started == started => Ok(entry),
            _ => Err(Error::Protocol("news of a process that is not there")),
        }
    }

    fn queued(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Sends a message about a process, unless that is gone.
    fn tell(&mut self, id: u32, message: &ToGuest) -> Result<(), Error> {
        if self.processes.contains_key(&id) { self.send(message) } else { Ok(()) }
    }

    fn send(&mut self, message: &ToGuest) -> Result<(), Error> {
        if self.queued() > QUEUE_MAX {
            return Err(Error::Stalled);
        }
        encode(message, &mut self.queue).map_err(Error::TooLong)?;
        self.flush()
    }

    /// Lets the guest send more of what was consumed. A guest that does not take messages gets no
    /// credit, or it could have them pile up here without end.
    fn grant(&mut self) -> Result<(), Error> {
        for (&id, entry) in &mut self.processes {
            for output in [Output::Stdout, Output::Stderr] {
                if self.queue.len() - self.sent > QUEUE_MAX {
                    return Ok(());
                }
                let incoming = entry.output(output);
                if incoming.owed >= CREDIT_MIN {
                    let bytes = std::mem::take(&mut incoming.owed);
                    incoming.allowed += bytes;
                    let credit = ToGuest::Credit { id, output, bytes };
                    encode(&credit, &mut self.queue).map_err(Error::TooLong)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
