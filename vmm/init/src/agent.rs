//! The loop: messages of the host, output of processes, and children that ended.
//!
//! Nothing blocks but the start of a program. What is kept is bounded: for each process a window of
//! input, and [`QUEUE_MAX`] bytes for the host, beyond which no output is read, so that processes wait in
//! their writes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, ioctl_fionread, read, write};
use rustix::process::{Pid, WaitOptions, wait};

use sbx_proto::frame::{self, Decoder, encode};
use sbx_proto::{Boot, DATA_MAX, Output, Process, SENTENCE_MAX, Status, ToGuest, ToHost, WINDOW};

use crate::cgroup::Workload;
use crate::process::{self, Running};
use crate::sys;

/// What may wait for the host before output is left where it is, in bytes.
const QUEUE_MAX: usize = 256 << 10;

/// How much a terminal can hold that was written before its process ended, in bytes.
const TERMINAL_MAX: u64 = 64 << 10;

/// What ends a terminal's input, where a pipe is closed.
const END_OF_TRANSMISSION: u8 = 4;

/// How long killed processes may take to be gone, in milliseconds.
const KILL_WAIT: u32 = 1000;

/// The status of a shell whose command was killed.
const KILLED: u8 = 128 + sys::SIGKILL;

/// What goes into a process.
struct Stdin {
    fd: OwnedFd,
    /// What came from the host and was not taken.
    queue: VecDeque<u8>,
    /// Nothing more comes.
    ended: bool,
}

/// One of its outputs.
struct Outgoing {
    fd: OwnedFd,
    output: Output,
    /// What the host still takes, in bytes.
    credit: u32,
    /// Once the process has ended: what of its output is left, in bytes.
    left: Option<u64>,
}

/// One process.
struct Child {
    pid: Pid,
    terminal: bool,
    stdin: Option<Stdin>,
    /// Input that was taken, or dropped, and the host was not told, in bytes.
    owed: u32,
    outputs: Vec<Outgoing>,
    ended: Option<(Status, bool)>,
}

/// Why the loop cannot go on: the host is gone, or not to be understood.
struct Lost;

impl From<frame::Error> for Lost {
    fn from(_: frame::Error) -> Self {
        Self
    }
}

/// The agent.
pub struct Agent {
    stream: OwnedFd,
    /// Tells of children that ended.
    signals: OwnedFd,
    decoder: Decoder<ToGuest>,
    queue: Vec<u8>,
    sent: usize,
    workload: Workload,
    children: BTreeMap<u32, Child>,
    /// Whether the system is set up.
    booted: bool,
    /// How the host wants it to end, once it does: the time between SIGTERM and SIGKILL.
    shutdown: Option<u32>,
    /// Room to read output into.
    piece: Vec<u8>,
}

impl Agent {
    /// An agent that serves the host at the other end of `stream`, which does not block. `signals` is from
    /// [`sys::child_signals`].
    #[must_use]
    pub fn new(stream: OwnedFd, signals: OwnedFd, workload: Workload) -> Self {
        Self {
            stream,
            signals,
            decoder: Decoder::default(),
            queue: Vec::new(),
            sent: 0,
            workload,
            children: BTreeMap::new(),
            booted: false,
            shutdown: None,
            piece: vec![0; DATA_MAX],
        }
    }

    /// Serves until the host wants it to end, or is gone. Returns how long processes have then to end by
    /// themselves, in milliseconds. `set_up` makes the system what the host asks for.
    pub fn run(&mut self, mut set_up: impl FnMut(&Boot) -> Result<Workload, String>) -> u32 {
        loop {
            let Ok(()) = self.turn(&mut set_up) else { return 0 };
            if let Some(grace) = self.shutdown {
                return grace;
            }
        }
    }

    /// Waits, and does all there is to do.
    fn turn(
        &mut self,
        set_up: &mut impl FnMut(&Boot) -> Result<Workload, String>,
    ) -> Result<(), Lost> {
        let (from_host, ended) = self.wait()?;
        if from_host {
            match read(&self.stream, self.decoder.room()) {
                Ok(0) => return Err(Lost),
                Ok(count) => self.decoder.filled(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Err(Lost),
            }
            while let Some(message) = self.decoder.next()? {
                self.handle(message, set_up)?;
            }
        }
        if ended {
            // What is in it only says that children ended; `reap` finds out which.
            let mut info = [0_u8; 128];
            let _ = read(&self.signals, &mut info);
            self.reap();
        }
        self.serve()?;
        self.flush()
    }

    /// Waits for something to do, and tells whether that is of the host and of children that ended.
    fn wait(&self) -> Result<(bool, bool), Lost> {
        let mut to_host = PollFlags::IN;
        if self.sent < self.queue.len() {
            to_host |= PollFlags::OUT;
        }
        let mut fds =
            vec![PollFd::new(&self.stream, to_host), PollFd::new(&self.signals, PollFlags::IN)];
        for child in self.children.values() {
            let stdin = child.stdin.as_ref().filter(|stdin| !stdin.queue.is_empty());
            fds.extend(stdin.map(|stdin| PollFd::new(&stdin.fd, PollFlags::OUT)));
            if self.queue.len() - self.sent < QUEUE_MAX {
                let ready = child.outputs.iter().filter(|outgoing| outgoing.credit > 0);
                fds.extend(ready.map(|outgoing| PollFd::new(&outgoing.fd, PollFlags::IN)));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok((false, false)),
            Err(_) => return Err(Lost),
        }
        let told = |at: usize| {
            let interesting = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            fds.get(at).is_some_and(|fd: &PollFd<'_>| fd.revents().intersects(interesting))
        };
        Ok((told(0), told(1)))
    }

    fn handle(
        &mut self,
        message: ToGuest,
        set_up: &mut impl FnMut(&Boot) -> Result<Workload, String>,
    ) -> Result<(), Lost> {
        match message {
            ToGuest::Boot(boot) => match set_up(&boot) {
                Ok(workload) => {
                    self.workload = workload;
                    self.booted = true;
                    self.send(&ToHost::Ready)?;
                }
                Err(mut what) => {
                    let end = (0..=SENTENCE_MAX.min(what.len())).rev();
                    what.truncate(
                        end.into_iter().find(|&at| what.is_char_boundary(at)).unwrap_or(0),
                    );
                    self.send(&ToHost::Failed { what })?;
                }
            },
            ToGuest::Exec { id, process } if self.booted => self.start(id, &process)?,
            // The host was told that there is no system to start it in.
            ToGuest::Exec { .. } => {}
            ToGuest::Shutdown { grace } => self.shutdown = Some(grace),
            ToGuest::Stdin { id, .. }
            | ToGuest::StdinEnd { id }
            | ToGuest::Resize { id, .. }
            | ToGuest::Signal { id, .. }
            | ToGuest::Credit { id, .. } => {
                // It may have ended while this was on its way.
                if let Some(child) = self.children.get_mut(&id) {
                    child.handle(message);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, id: u32, process: &Process) -> Result<(), Lost> {
        match process::start(process, &self.workload) {
            Ok(running) => {
                self.send(&ToHost::Started { id })?;
                self.children.insert(id, Child::new(running, process.terminal.is_some()));
                Ok(())
            }
            Err(reason) => self.send(&ToHost::NotStarted { id, reason }),
        }
    }

    /// Takes the children that ended, those of others' that were left to init too.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let found = self.children.values_mut().find(|child| child.pid == pid);
            let Some(child) = found else { continue };
            let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
            let status = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Status::Code(byte(code)),
                (None, Some(signal)) => Status::Signal(byte(signal)),
                (None, None) => continue,
            };
            let killed = matches!(status, Status::Signal(sys::SIGKILL) | Status::Code(KILLED));
            child.end(status, killed && self.workload.ran_out());
        }
    }

    /// Moves input and output, and tells of processes that ended when there is no more of theirs.
    fn serve(&mut self) -> Result<(), Lost> {
        let ids: Vec<u32> = self.children.keys().copied().collect();
        for id in ids {
            let Some(child) = self.children.get_mut(&id) else { continue };
            child.feed();
            let owed = child.take_owed();
            let ended = child.ended.is_some();
            if let Some(bytes) = owed {
                self.send(&ToHost::Credit { id, bytes })?;
            }
            while self.move_output(id)? && ended {}
            let done = self.children.get(&id).filter(|child| child.outputs.is_empty());
            if let Some((status, oom)) = done.and_then(|child| child.ended) {
                self.children.remove(&id);
                self.send(&ToHost::Exited { id, status, oom })?;
            }
        }
        Ok(())
    }

    /// Reads each output of a process once; says whether there was anything.
    fn move_output(&mut self, id: u32) -> Result<bool, Lost> {
        let mut moved = false;
        let Some(child) = self.children.get_mut(&id) else { return Ok(false) };
        let mut closed = Vec::new();
        for (at, outgoing) in child.outputs.iter_mut().enumerate() {
            if self.queue.len() - self.sent >= QUEUE_MAX {
                break;
            }
            match outgoing.read(&mut self.piece) {
                Taken::Bytes(count) => {
                    let data = self.piece.get(..count).unwrap_or_default().to_vec();
                    let message = ToHost::Output { id, output: outgoing.output, data };
                    encode(&message, &mut self.queue)?;
                    moved = true;
                }
                Taken::Nothing => {}
                Taken::End => closed.push(at),
            }
        }
        for at in closed.into_iter().rev() {
            child.outputs.remove(at);
        }
        Ok(moved)
    }

    fn send(&mut self, message: &ToHost) -> Result<(), Lost> {
        encode(message, &mut self.queue)?;
        Ok(())
    }

    /// Sends what the host takes.
    fn flush(&mut self) -> Result<(), Lost> {
        while let Some(rest) = self.queue.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match write(&self.stream, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => {
                    self.queue.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(_) => return Err(Lost),
            }
        }
        self.queue.clear();
        self.sent = 0;
        Ok(())
    }

    /// Ends every process but init: with SIGTERM, and SIGKILL after `grace` milliseconds. As the first
    /// process only, since it means all there are.
    pub fn end_all(&mut self, grace: u32) {
        if grace > 0 {
            sys::kill(None, sys::SIGTERM);
            if self.wait_for_all(grace) {
                return;
            }
        }
        sys::kill(None, sys::SIGKILL);
        self.wait_for_all(KILL_WAIT);
    }

    /// Waits at most so many milliseconds for all children to end.
    fn wait_for_all(&self, milliseconds: u32) -> bool {
        let tick = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        for _ in 0..milliseconds.div_ceil(10).max(1) {
            loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return true,
                }
            }
            let mut info = [0_u8; 128];
            let _ = read(&self.signals, &mut info);
            let _ = poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&tick));
        }
        false
    }
}

impl Child {
    fn new(running: Running, terminal: bool) -> Self {
        let Running { pid, stdin, stdout, stderr } = running;
        let outgoing = |fd, output| Outgoing { fd, output, credit: WINDOW, left: None };
        let mut outputs = vec![outgoing(stdout, Output::Stdout)];
        outputs.extend(stderr.map(|fd| outgoing(fd, Output::Stderr)));
        let stdin = stdin.map(|fd| Stdin { fd, queue: VecDeque::new(), ended: false });
        Self { pid, terminal, stdin, owed: 0, outputs, ended: None }
    }

    fn handle(&mut self, message: ToGuest) {
        match message {
            ToGuest::Stdin { data, .. } => match &mut self.stdin {
                Some(stdin) if !stdin.ended => stdin.queue.extend(data),
                _ => self.owed = self.owed.saturating_add(length(data.len())),
            },
            ToGuest::StdinEnd { .. } => {
                if let Some(stdin) = &mut self.stdin {
                    stdin.ended = true;
                    stdin.queue.extend(self.terminal.then_some(END_OF_TRANSMISSION));
                }
            }
            ToGuest::Resize { terminal, .. } => {
                if let Some(stdin) = self.stdin.as_ref().filter(|_| self.terminal) {
                    let _ = process::resize(&stdin.fd, terminal);
                }
            }
            ToGuest::Signal { number, .. } => {
                // Once it has ended, the number may be another's.
                if self.ended.is_none() {
                    sys::kill(Some(self.pid), number);
                }
            }
            ToGuest::Credit { output, bytes, .. } => {
                for outgoing in self.outputs.iter_mut().filter(|each| each.output == output) {
                    outgoing.credit = outgoing.credit.saturating_add(bytes).min(WINDOW);
                }
            }
            ToGuest::Boot(_) | ToGuest::Exec { .. } | ToGuest::Shutdown { .. } => {}
        }
    }

    /// Gives the process what it takes of its input.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let mut gone = false;
        while let Some(next) = Some(stdin.queue.as_slices().0).filter(|next| !next.is_empty()) {
            match write(&stdin.fd, next) {
                Ok(count) => {
                    stdin.queue.drain(..count.min(stdin.queue.len()));
                    self.owed = self.owed.saturating_add(length(count));
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    // It closed it: nobody will read this, nor what comes.
                    self.owed = self.owed.saturating_add(length(stdin.queue.len()));
                    stdin.queue.clear();
                    gone = true;
                }
            }
        }
        // A terminal goes on showing, and changing its size.
        if !self.terminal && (gone || stdin.ended) {
            self.stdin = None;
        }
    }

    /// The credit for input that is worth telling.
    fn take_owed(&mut self) -> Option<u32> {
        let worth = self.owed >= WINDOW / 2 && self.ended.is_none();
        worth.then(|| core::mem::take(&mut self.owed).min(WINDOW))
    }

    fn end(&mut self, status: Status, oom: bool) {
        self.ended = Some((status, oom));
        self.stdin = None;
        for outgoing in &mut self.outputs {
            let left = if self.terminal { Ok(TERMINAL_MAX) } else { ioctl_fionread(&outgoing.fd) };
            outgoing.left = Some(left.unwrap_or(0));
        }
    }
}

/// What was read of an output.
enum Taken {
    Bytes(usize),
    /// Nothing now, or the host takes nothing now.
    Nothing,
    /// Nothing ever.
    End,
}

impl Outgoing {
    fn read(&mut self, piece: &mut [u8]) -> Taken {
        if self.left == Some(0) {
            return Taken::End;
        }
        let left = self.left.unwrap_or(u64::MAX);
        let most = u64::from(self.credit).min(left).min(DATA_MAX as u64);
        let most = usize::try_from(most).unwrap_or(DATA_MAX).min(piece.len());
        let Some(room) = piece.get_mut(..most).filter(|room| !room.is_empty()) else {
            return Taken::Nothing;
        };
        match read(&self.fd, room) {
            // A terminal whose last user closed it says EIO.
            Ok(0) | Err(Errno::IO) => Taken::End,
            Ok(count) => {
                self.credit = self.credit.saturating_sub(length(count));
                self.left = self.left.map(|left| left.saturating_sub(count as u64));
                Taken::Bytes(count)
            }
            // Nothing now, and once the process has ended, nothing more of it.
            Err(Errno::AGAIN) if self.left.is_some() => Taken::End,
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            Err(_) => Taken::End,
        }
    }
}

/// A length within a window.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
