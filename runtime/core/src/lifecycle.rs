//! The life of a sandbox, the same for every backend.
//!
//! ```text
//!              start            pause
//!   created ----------> running ------> paused
//!      |                   |    <------    |
//!      |                   |     resume    |
//!      | kill              | ends, kill    | kill
//!      v                   v               v
//!   stopped(exit) <--------+---------------+
//! ```
//!
//! These are the states of the OCI runtime specification and `paused`. Every move is checked here;
//! one that the drawing does not show is [`Error::State`] and leaves the sandbox as it was. The wall
//! clock ([`crate::Limits::timeout`]) is kept here too, so that it means the same everywhere: it
//! starts with `start` and does not stop while a sandbox is paused.
//!
//! Not here: where the state of a detached sandbox is stored, and who supervises it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::{Backend, Command, Ending, Error, Exit, Result, Sandbox, Signal, Spec, Waited};

/// Where a sandbox is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Prepared; the workload has not begun.
    Created,
    /// The workload runs.
    Running,
    /// The workload is held, and can go on.
    Paused,
    /// The workload has ended.
    Stopped(Exit),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        })
    }
}

/// A sandbox and its state: the only way that sbx handles one.
pub struct Lifecycle {
    sandbox: Box<dyn Sandbox>,
    state: State,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    /// What the end will be called if the kill that the clock brought is what ends it.
    timed_out: Option<Exit>,
    notes: Vec<String>,
}

impl Lifecycle {
    /// Has `backend` prepare a sandbox.
    pub fn create(backend: &dyn Backend, spec: &Spec) -> Result<Self> {
        Ok(Self {
            sandbox: backend.create(spec)?,
            state: State::Created,
            timeout: spec.limits.timeout,
            deadline: None,
            timed_out: None,
            notes: Vec::new(),
        })
    }

    /// The present state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What sbx can tell the user about the end, beside the exit itself.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Begins the workload; its wall clock runs from here.
    pub fn start(&mut self) -> Result<()> {
        self.start_apart(&[])
    }

    /// The same, for a caller with files of its own that the sandbox must not have open.
    pub fn start_apart(&mut self, private: &[BorrowedFd<'_>]) -> Result<()> {
        self.require("start", matches!(self.state, State::Created))?;
        self.sandbox.start(private)?;
        // A timeout beyond what the clock can tell never comes.
        self.deadline = self.timeout.and_then(|t| Instant::now().checked_add(t));
        self.state = State::Running;
        Ok(())
    }

    /// Runs a further process beside the workload; see [`Sandbox::exec`].
    pub fn exec(&mut self, command: &Command, connection: UnixStream) -> Result<()> {
        self.require("exec in", matches!(self.state, State::Running))?;
        self.sandbox.exec(command, connection)
    }

    /// Holds the workload.
    pub fn pause(&mut self) -> Result<()> {
        self.require("pause", matches!(self.state, State::Running))?;
        self.sandbox.pause()?;
        self.state = State::Paused;
        Ok(())
    }

    /// Lets a held workload go on.
    pub fn resume(&mut self) -> Result<()> {
        self.require("resume", matches!(self.state, State::Paused))?;
        self.sandbox.resume()?;
        self.state = State::Running;
        Ok(())
    }

    /// Sends the workload a signal; one that has not begun is stopped by any.
    pub fn kill(&mut self, signal: Signal) -> Result<()> {
        self.require("kill", !matches!(self.state, State::Stopped(_)))?;
        if self.state == State::Created {
            self.state = State::Stopped(Exit::Signal(signal.0));
            return Ok(());
        }
        self.sandbox.signal(signal)
    }

    /// Waits for the end, passing on every signal that sbx is sent and keeping the wall clock.
    /// Waiting for what has stopped already answers at once.
    pub fn wait(&mut self) -> Result<Exit> {
        if let State::Stopped(exit) = &self.state {
            return Ok(exit.clone());
        }
        self.require("wait for", !matches!(self.state, State::Created))?;
        loop {
            match self.sandbox.wait(self.deadline)? {
                Waited::Ended(ending) => return Ok(self.stopped(ending)),
                Waited::Interrupted(signal) => self.sandbox.signal(signal)?,
                Waited::TimedOut => self.time_out()?,
            }
        }
    }

    /// A file that is readable once the workload has ended, for a caller that waits for other things
    /// too and then asks [`Self::look`].
    pub fn ended(&self) -> Result<OwnedFd> {
        self.sandbox.ended()
    }

    /// The process that holds the workload, once it has started.
    pub fn process(&self) -> Option<u32> {
        self.sandbox.process()
    }

    /// When [`Self::look`] is to be asked at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Looks whether the workload has ended, without waiting, and whether its time is up.
    pub fn look(&mut self) -> Result<Option<Exit>> {
        if let State::Stopped(exit) = &self.state {
            return Ok(Some(exit.clone()));
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.time_out()?;
        }
        loop {
            match self.sandbox.wait(Some(now))? {
                Waited::Ended(ending) => return Ok(Some(self.stopped(ending))),
                Waited::Interrupted(signal) => self.sandbox.signal(signal)?,
                Waited::TimedOut => return Ok(None),
            }
        }
    }

    fn time_out(&mut self) -> Result<()> {
        self.sandbox.signal(Signal::KILL)?;
        self.deadline = None;
        self.timed_out = self.timeout.map(Exit::Timeout);
        Ok(())
    }

    fn stopped(&mut self, ending: Ending) -> Exit {
        // A workload that ended by itself just before the kill keeps its own ending.
        let exit = match (ending.exit, self.timed_out.take()) {
            (Exit::Signal(n), Some(timeout)) if n == Signal::KILL.0 => timeout,
            (exit, _) => exit,
        };
        self.notes = ending.notes;
        self.state = State::Stopped(exit.clone());
        exit
    }

    fn require(&self, verb: &'static str, allowed: bool) -> Result<()> {
        if allowed { Ok(()) } else { Err(Error::State { verb, state: self.state.clone() }) }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
