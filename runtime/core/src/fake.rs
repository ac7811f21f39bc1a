//! A backend without a workload, to test what sits above one.
//!
//! It plays back the [`Step`]s it was given, one for each wait, and records every [`Call`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

use crate::{Backend, Command, Error, Exit, Result, Sandbox, Signal, Spec, Waited};

/// What the next wait finds.
#[derive(Clone, Debug)]
pub enum Step {
    /// The workload has ended.
    End(Exit),
    /// sbx is sent a signal.
    Interrupt(Signal),
    /// The deadline comes first.
    TimeOut,
}

/// What the fake sandbox was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "one for each method of Sandbox")]
pub enum Call {
    Start,
    Signal(Signal),
    Pause,
    Resume,
    Wait,
}

/// A backend whose sandboxes do as they are told.
#[derive(Default)]
pub struct FakeBackend {
    steps: RefCell<VecDeque<Step>>,
    calls: Rc<RefCell<Vec<Call>>>,
    start_fails: bool,
}

impl FakeBackend {
    /// A backend for one sandbox, whose waits find `steps` in this order.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: RefCell::new(steps.into_iter().collect()), ..Self::default() }
    }

    /// Makes the sandbox fail to start.
    pub fn failing_to_start(mut self) -> Self {
        self.start_fails = true;
        self
    }

    /// What the sandbox was asked to do so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }
}

impl Backend for FakeBackend {
    fn create(&self, _: &Spec) -> Result<Box<dyn Sandbox>> {
        Ok(Box::new(FakeSandbox {
            steps: self.steps.take(),
            calls: Rc::clone(&self.calls),
            start_fails: self.start_fails,
        }))
    }
}

struct FakeSandbox {
    steps: VecDeque<Step>,
    calls: Rc<RefCell<Vec<Call>>>,
    start_fails: bool,
}

impl FakeSandbox {
    fn record(&self, call: Call) -> Result<()> {
        self.calls.borrow_mut().push(call);
        Ok(())
    }
}

impl Sandbox for FakeSandbox {
    fn start(&mut self, _private: &[BorrowedFd<'_>]) -> Result<()> {
        if self.start_fails {
            return Err(Error::Refused("told to fail".into()));
        }
        self.record(Call::Start)
    }

    fn process(&self) -> Option<u32> {
        None
    }

    fn ended(&self) -> Result<OwnedFd> {
        Err(Error::Refused("there is no process to wait for".into()))
    }

    fn exec(&mut self, _command: &Command, _connection: UnixStream) -> Result<()> {
        Err(Error::Refused("there is nothing to run it in".into()))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.record(Call::Signal(signal))
    }

    fn pause(&mut self) -> Result<()> {
        self.record(Call::Pause)
    }

    fn resume(&mut self) -> Result<()> {
        self.record(Call::Resume)
    }

    fn wait(&mut self, _: Option<Instant>) -> Result<Waited> {
        self.record(Call::Wait)?;
        match self.steps.pop_front() {
            Some(Step::End(exit)) => Ok(Waited::Ended(exit.into())),
            Some(Step::Interrupt(signal)) => Ok(Waited::Interrupted(signal)),
            Some(Step::TimeOut) => Ok(Waited::TimedOut),
            None => Err(Error::Refused("there is no further step to wait for".into())),
        }
    }
}
