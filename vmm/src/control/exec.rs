//! Further processes in a guest: what the supervisor orders, and the connections that their streams go
//! over.
//!
//! An order is one message with the connection of whoever asked for it. From there on this process speaks
//! with that: output as far as it is read, input as far as the guest has room.

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sbx_core::{Command, Exit};
use sbx_host::frame::{Connection, End, Frame};
use sbx_proto::{Output, Process, Reason, Status, Terminal};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use crate::agent::{Agent, Error, Event};

/// The longest order.
const ORDER_MAX: usize = 128 << 10;
/// How much input is taken off a connection before the guest has room for it.
const AHEAD: usize = 64 << 10;

/// The processes that are there beside the workload.
pub(crate) struct Others {
    orders: OwnedFd,
    /// What a process is unless its order says otherwise: as the workload.
    like: Process,
    running: BTreeMap<u32, Other>,
    /// They have ended; the news has yet to be read.
    ended: Vec<Connection>,
}

struct Other {
    connection: Connection,
    argv: Vec<Vec<u8>>,
    /// Bytes of its outputs that were not told as consumed.
    untold: [usize; 2],
}

const OUTPUTS: [Output; 2] = [Output::Stdout, Output::Stderr];

impl Others {
    pub(crate) fn new(orders: OwnedFd, like: Process) -> Self {
        Self { orders, like, running: BTreeMap::new(), ended: Vec::new() }
    }

    /// What is to be waited for.
    pub(crate) fn files<'a>(&'a self, agent: &Agent, files: &mut Vec<PollFd<'a>>) {
        files.push(PollFd::new(&self.orders, PollFlags::IN));
        for (id, other) in &self.running {
            let reads = other.connection.waiting() < AHEAD && agent.stdin_room(*id) > 0;
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, other.connection.owed() > 0);
            files.push(PollFd::new(&other.connection, flags));
        }
        let ended = self.ended.iter();
        files.extend(ended.map(|connection| PollFd::new(connection, PollFlags::OUT)));
    }

    /// Does what there is to do without waiting.
    pub(crate) fn turn(&mut self, agent: &mut Agent) -> Result<(), Error> {
        while super::is_ready(self.orders.as_fd(), PollFlags::IN) && self.take_order(agent)? {}
        let mut gone = Vec::new();
        for (id, other) in &mut self.running {
            other.turn(*id, agent)?;
            if other.connection.is_gone() {
                gone.push(*id);
            }
        }
        for id in gone {
            // As in docker, a process goes on without whoever asked for it.
            if let Some(other) = self.running.get_mut(&id) {
                other.drop_output(id, agent)?;
            }
        }
        self.ended.iter_mut().for_each(Connection::flush);
        self.ended.retain(|connection| connection.owed() > 0 && !connection.is_gone());
        Ok(())
    }

    /// Takes one order; false if the supervisor gives none any more.
    fn take_order(&mut self, agent: &mut Agent) -> Result<bool, Error> {
        let mut bytes = vec![0; ORDER_MAX];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let Ok(message) = recvmsg(&self.orders, &mut room, &mut ancillary, flags) else {
            return Ok(false);
        };
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let Some(file) = file else { return Ok(false) };
        let connection = Connection::new(UnixStream::from(file));
        match serde_json::from_slice(&bytes[..message.bytes]) {
            Ok(command) => self.start(command, connection, agent)?,
            Err(_) => self.end(connection, Exit::Failed("that is no order".into()), Vec::new()),
        }
        Ok(true)
    }

    fn start(
        &mut self,
        command: Command,
        connection: Connection,
        agent: &mut Agent,
    ) -> Result<(), Error> {
        let process = self.process(command);
        let argv = process.argv.clone();
        match agent.exec(process) {
            Ok(id) => {
                self.running.insert(id, Other { connection, argv, untold: [0; 2] });
            }
            Err(e @ (Error::TooManyProcesses | Error::TooLong(_))) => {
                self.end(connection, Exit::Failed(e.to_string()), Vec::new());
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn process(&self, command: Command) -> Process {
        let Command { argv, env, workdir, user, stdin, terminal } = command;
        let mut all = self.like.env.clone();
        for (name, value) in env {
            let name = [name.into_vec(), b"=".to_vec()].concat();
            all.retain(|old| !old.starts_with(&name));
            all.push([name, value.into_vec()].concat());
        }
        Process {
            argv: argv.into_iter().map(OsString::into_vec).collect(),
            env: all,
            cwd: workdir.unwrap_or_else(|| self.like.cwd.clone()),
            user: user.or_else(|| self.like.user.clone()),
            terminal: terminal.map(|(cols, rows)| Terminal { rows, cols }),
            stdin,
            fds: self.like.fds,
        }
    }

    /// Takes what the guest told of one of them.
    pub(crate) fn take(&mut self, event: Event, agent: &mut Agent) -> Result<(), Error> {
        match event {
            Event::Output { id, output, data } => {
                let Some(other) = self.running.get_mut(&id) else { return Ok(()) };
                other.untold[usize::from(output == Output::Stderr)] += data.len();
                other.connection.send(&match output {
                    Output::Stdout => Frame::Output(data),
                    Output::Stderr => Frame::Error(data),
                });
                other.tell_consumed(id, agent)
            }
            Event::NotStarted { id, reason } => {
                if let Some(other) = self.running.remove(&id) {
                    let (exit, note) = not_started(&other.argv, &reason);
                    self.end(other.connection, exit, vec![note]);
                }
                Ok(())
            }
            Event::Exited { id, status, oom } => {
                if let Some(other) = self.running.remove(&id) {
                    let exit = match status {
                        _ if oom => Exit::Signal(9),
                        Status::Code(code) => Exit::Code(code),
                        Status::Signal(signal) => Exit::Signal(signal.into()),
                    };
                    self.end(other.connection, exit, Vec::new());
                }
                Ok(())
            }
            Event::Ready | Event::Failed(_) | Event::Started { .. } | Event::StdinRoom { .. } => {
                Ok(())
            }
        }
    }

    fn end(&mut self, mut connection: Connection, exit: Exit, notes: Vec<String>) {
        connection.send(&Frame::End(End { exit, notes }));
        self.ended.push(connection);
    }

    /// The workload has ended, and all others with it.
    pub(crate) fn end_all(&mut self) {
        for (_, mut other) in std::mem::take(&mut self.running) {
            let notes = vec!["the sandbox has ended".into()];
            other.connection.send(&Frame::End(End { exit: Exit::Signal(9), notes }));
        }
    }
}

impl Other {
    fn turn(&mut self, id: u32, agent: &mut Agent) -> Result<(), Error> {
        self.connection.flush();
        self.tell_consumed(id, agent)?;
        if self.connection.waiting() < AHEAD
            && super::is_ready(self.connection.as_fd(), PollFlags::IN)
        {
            self.connection.receive();
        }
        while agent.stdin_room(id) > 0
            && let Some(frame) = self.connection.next_frame()
        {
            match frame {
                Frame::Input(bytes) => self.input(id, &bytes, agent)?,
                Frame::InputEnd => agent.stdin_end(id)?,
                Frame::Size(cols, rows) => agent.resize(id, Terminal { rows, cols })?,
                Frame::Signal(number) => {
                    agent.signal(id, u8::try_from(number).unwrap_or_default())?;
                }
                // These are not for us.
                Frame::Output(_) | Frame::Error(_) | Frame::End(_) => {}
            }
        }
        Ok(())
    }

    /// A piece is of the sender's size, and the room the guest's: what does not fit is put back.
    fn input(&mut self, id: u32, bytes: &[u8], agent: &mut Agent) -> Result<(), Error> {
        let taken = agent.stdin(id, bytes)?;
        if taken < bytes.len() {
            self.connection.put_back(&Frame::Input(bytes[taken..].to_vec()));
        }
        Ok(())
    }

    /// What was read by whoever asked may be followed by as much.
    fn tell_consumed(&mut self, id: u32, agent: &mut Agent) -> Result<(), Error> {
        if self.connection.owed() == 0 { self.drop_output(id, agent) } else { Ok(()) }
    }

    fn drop_output(&mut self, id: u32, agent: &mut Agent) -> Result<(), Error> {
        for (output, untold) in OUTPUTS.into_iter().zip(&mut self.untold) {
            if *untold > 0 {
                agent.consumed(id, output, std::mem::take(untold))?;
            }
        }
        Ok(())
    }
}

/// The exit status of a process that could not be started, and why.
fn not_started(argv: &[Vec<u8>], reason: &Reason) -> (Exit, String) {
    let program = argv.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
    match reason {
        Reason::NotFound => {
            (Exit::Code(127), format!("there is no program {program} in the guest"))
        }
        Reason::NoInterpreter => {
            (Exit::Code(127), format!("the interpreter that {program} names is not in the guest"))
        }
        Reason::NotExecutable | Reason::WrongFormat => {
            (Exit::Code(126), format!("{program} in the guest cannot be executed"))
        }
        Reason::NoSuchUser => (Exit::Code(125), "there is no such user in the guest".into()),
        Reason::NoSuchDirectory => {
            (Exit::Code(125), "there is no such directory in the guest".into())
        }
        Reason::TooManyProcesses => (Exit::Code(125), "--pids leaves no process for it".into()),
        Reason::Other(number) => {
            let why = std::io::Error::from_raw_os_error(*number);
            (Exit::Code(126), format!("{program} cannot be started in the guest: {why}"))
        }
    }
}
