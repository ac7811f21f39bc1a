//! A machine with sbx's init: boots it, starts the workload, and carries its streams and signals.
//!
//! Nothing is lost at the end: what the workload wrote before it ended comes before the news of that, and
//! is written before the process goes. A machine that has files of the host's to write to is shut down in
//! order; any other is left where it stands.

use rustix::event::{PollFd, PollFlags};
use sbx_core::{Ending, Exit};
use sbx_host::signals::{self, Received, Signals};
use sbx_proto::{Boot, Process, Reason, Root, Status, Terminal};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exec::Others;
use super::output::{STDERR, STDOUT};
use super::{Log, Output, ended, ending_of, is_ready, with_console};
use crate::agent::{Agent, Error as AgentError, Event};
use crate::end::End;
use crate::machine::Processors;

/// A guest that has not come up by then will not; emulated processors are slow.
const BOOT: Duration = Duration::from_secs(120);
/// How long a guest may take to shut down, having written what it must.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// How long the news of the machine's end may lag behind the end of its connection, and the other way.
const NEWS: Duration = Duration::from_secs(2);
/// How much of standard input is read at a time.
const CHUNK: usize = 64 << 10;

/// What the session is to do.
pub(crate) struct Task {
    /// How the guest's system is to look.
    pub(crate) boot: Boot,
    /// The workload.
    pub(crate) process: Process,
    /// Whether the guest has files of the host's to write to.
    pub(crate) writes: bool,
    /// Bytes of guest memory.
    pub(crate) memory: u64,
    /// `--cpu-time`.
    pub(crate) cpu_time: Option<Duration>,
    /// `--output`.
    pub(crate) output: Option<u64>,
}

/// A session under way.
pub(crate) struct Session {
    task: Task,
    agent: Agent,
    /// The connection has ended.
    closed: bool,
    end: Arc<End>,
    signals: Signals,
    parent: u32,
    log: Log,
    id: u32,
    started: bool,
    exit: Option<Ending>,
    stdin: bool,
    output: Output,
    deadline: Option<Instant>,
    processors: Processors,
    others: Others,
}

impl Session {
    /// A session over `agent`, whose guest need not have connected yet.
    pub(crate) fn new(
        task: Task,
        agent: Agent,
        end: Arc<End>,
        signals: Signals,
        log: Log,
        processors: Processors,
        orders: OwnedFd,
    ) -> Result<Self, AgentError> {
        let mut agent = agent;
        agent.boot(task.boot.clone())?;
        let id = agent.exec(task.process.clone())?;
        let stdin = task.process.stdin;
        let others = Others::new(orders, task.process.clone());
        let output = Output::new(task.output);
        let parent = std::os::unix::process::parent_id();
        let deadline = Some(Instant::now() + BOOT);
        let (closed, started, exit) = (false, false, None);
        Ok(Self {
            task,
            agent,
            closed,
            end,
            signals,
            parent,
            log,
            id,
            started,
            exit,
            stdin,
            output,
            deadline,
            processors,
            others,
        })
    }

    /// Carries on until the workload's end.
    pub(crate) fn run(mut self) -> Ending {
        let ending = loop {
            match self.round() {
                Ok(None) => {}
                Ok(Some(ending)) | Err(ending) => break ending,
            }
        };
        self.others.end_all();
        if self.task.writes && self.end.cause().is_none() && !self.closed {
            self.shut_down();
        }
        ending
    }

    /// One wait, and what came of it: an ending, if it is all over.
    fn round(&mut self) -> Result<Option<Ending>, Ending> {
        self.wait();
        self.write_output()?;
        self.answer_signals()?;
        self.hear_agent()?;
        self.turn_to_others()?;
        self.read_input()?;
        if self.output.is_empty() {
            if let Some(spent) = self.output.spent() {
                return Ok(Some(spent.into()));
            }
            if let Some(ending) = self.exit.take() {
                return Ok(Some(ending));
            }
        }
        self.look_at_end()
    }

    fn wait(&self) {
        let agent = PollFlags::IN | flag(PollFlags::OUT, self.agent.wants_write());
        let mut files = vec![PollFd::new(&self.signals, PollFlags::IN)];
        // Whatever is over is not waited for: it would be ready for ever.
        if self.end.cause().is_none() {
            files.push(PollFd::from_borrowed_fd(self.end.file(), PollFlags::IN));
        }
        if !self.closed && self.exit.is_none() && self.output.spent().is_none() {
            files.push(PollFd::new(&self.agent, agent));
        }
        if self.wants_input() {
            files.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        // As long as they have their turn: what is ready and left alone would be ready for ever.
        if !self.closed && self.exit.is_none() {
            self.others.files(&self.agent, &mut files);
        }
        for stream in [STDOUT, STDERR] {
            if let Some((fd, flags)) = self.output.waiting(stream) {
                files.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        super::wait(&mut files, self.deadline);
    }

    fn write_output(&mut self) -> Result<(), Ending> {
        for (stream, output) in
            [(STDOUT, sbx_proto::Output::Stdout), (STDERR, sbx_proto::Output::Stderr)]
        {
            while let Some((fd, flags)) = self.output.waiting(stream) {
                if !is_ready(fd, flags) {
                    break;
                }
                let count = self.output.write(stream).map_err(Ending::from)?;
                let _ = self.agent.consumed(self.id, output, count);
            }
        }
        Ok(())
    }

    fn answer_signals(&mut self) -> Result<(), Ending> {
        while let Some(Received { signal, sender }) = self.signals.next() {
            match signal {
                signals::WINDOW => {
                    if let (Some(_), Some((cols, rows))) =
                        (self.task.process.terminal, sbx_host::terminal::size())
                    {
                        let _ = self.agent.resize(self.id, Terminal { rows, cols });
                    }
                }
                signals::CPU_TIME | libc::SIGXCPU => {
                    let limit = self.task.cpu_time.unwrap_or_default();
                    return Err(Exit::CpuTime(limit).into());
                }
                // A terminal's own go to every process of its group; sbx passes them on.
                _ if sender != self.parent => {}
                signals::PAUSE => self.processors.pause(true),
                signals::RESUME => self.processors.pause(false),
                signals::LAST_WORDS if self.started => return Err(Exit::Signal(9).into()),
                signals::LAST_WORDS => return Err(with_console(Exit::Signal(9), &self.log)),
                other if !self.started => return Err(Exit::Signal(other).into()),
                other => {
                    let number = u8::try_from(other).unwrap_or_default();
                    let _ = self.agent.signal(self.id, number);
                }
            }
        }
        Ok(())
    }

    fn hear_agent(&mut self) -> Result<(), Ending> {
        if self.closed || self.exit.is_some() || self.output.spent().is_some() {
            return Ok(());
        }
        match self.hear() {
            Ok(()) => Ok(()),
            // Whether the guest's end is behind this is known in a moment.
            Err(AgentError::Closed) => {
                self.closed = true;
                self.deadline = Some(Instant::now() + NEWS);
                Ok(())
            }
            Err(e) => {
                Err(with_console(Exit::Failed(format!("the guest went wrong: {e}")), &self.log))
            }
        }
    }

    /// Those beside the workload have their turn, as long as there is one.
    fn turn_to_others(&mut self) -> Result<(), Ending> {
        if self.closed || self.exit.is_some() {
            return Ok(());
        }
        match self.others.turn(&mut self.agent) {
            // Whoever reads from the connection sees that it has failed.
            Ok(()) | Err(AgentError::Closed | AgentError::Io(_)) => Ok(()),
            Err(e) => {
                Err(with_console(Exit::Failed(format!("the guest went wrong: {e}")), &self.log))
            }
        }
    }

    fn hear(&mut self) -> Result<(), AgentError> {
        self.agent.flush()?;
        self.agent.receive()?;
        while let Some(event) = self.agent.next_event()? {
            match event.process() {
                Some(id) if id != self.id => self.others.take(event, &mut self.agent)?,
                _ => self.take(event),
            }
            if self.exit.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ready | Event::StdinRoom { .. } => {}
            Event::Failed(what) => {
                self.exit = Some(Exit::Failed(format!("the guest did not come up: {what}")).into());
            }
            Event::Started { .. } => {
                self.started = true;
                self.deadline = None;
                let limit = self.task.cpu_time;
                let armed = limit.map_or(Ok(()), |limit| self.processors.limit(limit));
                if let Err(e) = armed {
                    self.exit = Some(Exit::Failed(e.to_string()).into());
                }
            }
            Event::NotStarted { reason, .. } => self.exit = Some(self.not_started(&reason)),
            Event::Output { output, data, .. } => {
                let stream = match output {
                    sbx_proto::Output::Stdout => STDOUT,
                    sbx_proto::Output::Stderr => STDERR,
                };
                self.output.take(stream, &data);
            }
            Event::Exited { status, oom, .. } => {
                self.exit = Some(Ending::from(match status {
                    _ if oom => Exit::OutOfMemory(self.task.memory),
                    Status::Code(code) => Exit::Code(code),
                    Status::Signal(signal) => Exit::Signal(signal.into()),
                }));
            }
        }
    }

    fn wants_input(&self) -> bool {
        self.stdin && self.started && !self.closed && self.agent.stdin_room(self.id) > 0
    }

    fn read_input(&mut self) -> Result<(), Ending> {
        if !self.wants_input() || !is_ready(rustix::stdio::stdin(), PollFlags::IN) {
            return Ok(());
        }
        let mut bytes = vec![0; self.agent.stdin_room(self.id).min(CHUNK)];
        let sent = match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            // What cannot be read has ended, as far as the workload is concerned.
            Ok(0) | Err(_) => {
                self.stdin = false;
                self.agent.stdin_end(self.id)
            }
            Ok(count) => self.agent.stdin(self.id, &bytes[..count]).map(drop),
        };
        // A connection that has failed is seen by whoever reads from it.
        let _ = sent;
        Ok(())
    }

    /// Whether the machine, or the time for it to come up, has ended.
    fn look_at_end(&mut self) -> Result<Option<Ending>, Ending> {
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let Some(cause) = ended(&self.end) else {
            return Ok(late.then(|| self.late()));
        };
        // The guest's last words may still be on their way through its device.
        if !self.closed && self.exit.is_none() && self.started {
            if !late {
                self.deadline.get_or_insert(Instant::now() + NEWS / 10);
                return Ok(None);
            }
        } else if !self.output.is_empty() {
            return Ok(None);
        }
        let started = self.started;
        let failed = || {
            let what = "the guest went down before the workload had begun";
            with_console(Exit::Failed(what.into()), &self.log)
        };
        let shut_down = || Ending {
            exit: Exit::Code(0),
            notes: vec!["the guest was shut down from inside".into()],
        };
        let reset = || if started { shut_down() } else { failed() };
        Ok(Some(ending_of(&cause, &self.log, reset)))
    }

    fn late(&self) -> Ending {
        let what = if self.closed {
            "the guest's init is gone".into()
        } else {
            format!("the guest did not come up within {} s", BOOT.as_secs())
        };
        with_console(Exit::Failed(what), &self.log)
    }

    fn not_started(&self, reason: &Reason) -> Ending {
        let program = self.task.process.argv.first().map(|name| String::from_utf8_lossy(name));
        let program = program.unwrap_or_default();
        let hint = match self.task.boot.root {
            Root::Initramfs => "; give it a root with programs with --rootfs or --disk",
            _ => "",
        };
        let (exit, note) = match reason {
            Reason::NotFound => {
                (Exit::Code(127), format!("there is no program {program} in the guest{hint}"))
            }
            Reason::NotExecutable => {
                (Exit::Code(126), format!("{program} in the guest must not be executed"))
            }
            Reason::WrongFormat => (
                Exit::Code(126),
                format!("{program} in the guest is not a program for this processor"),
            ),
            Reason::NoInterpreter => (
                Exit::Code(127),
                format!("the interpreter that {program} names is not in the guest{hint}"),
            ),
            Reason::NoSuchUser => {
                let user = self.task.process.user.as_deref().unwrap_or_default();
                return Exit::Failed(format!("there is no user {user} in the guest")).into();
            }
            Reason::NoSuchDirectory => {
                let dir = &self.task.process.cwd;
                return Exit::Failed(format!("there is no directory {dir} in the guest")).into();
            }
            Reason::TooManyProcesses => {
                return Exit::Failed("--pids leaves no process for the workload".into()).into();
            }
            Reason::Other(number) => {
                let why = std::io::Error::from_raw_os_error(*number);
                (Exit::Code(126), format!("{program} cannot be started in the guest: {why}"))
            }
        };
        Ending { exit, notes: vec![note] }
    }

    /// Has the guest write what it must, and waits for that.
    fn shut_down(&mut self) {
        let deadline = Instant::now() + SHUTDOWN;
        if self.agent.shutdown(0).is_err() {
            return;
        }
        while self.end.cause().is_none() && Instant::now() < deadline {
            let agent = flag(PollFlags::OUT, self.agent.wants_write());
            let mut files = [
                PollFd::from_borrowed_fd(self.end.file(), PollFlags::IN),
                PollFd::new(&self.agent, agent),
            ];
            let files = if agent.is_empty() { &mut files[..1] } else { &mut files[..] };
            super::wait(files, Some(deadline));
            if self.agent.flush().is_err() {
                return;
            }
        }
    }
}

fn flag(flag: PollFlags, set: bool) -> PollFlags {
    if set { flag } else { PollFlags::empty() }
}
