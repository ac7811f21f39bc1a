//! What a backend implements. It obeys; [`crate::Lifecycle`] decides when, and keeps the time.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::{Exit, Result, Spec};

/// A way to hold a workload.
pub trait Backend {
    /// Prepares a sandbox that is ready to start.
    ///
    /// # Errors
    /// Everything that the user can be told before the workload runs: what is not a workload, a
    /// grant that cannot be given, a limit that cannot be enforced.
    fn create(&self, spec: &Spec) -> Result<Box<dyn Sandbox>>;
}

/// One sandbox. Calls come in the order that [`crate::Lifecycle`] allows, and in no other.
pub trait Sandbox {
    /// Starts the workload. The files in `private` are the caller's own, and nothing of the sandbox's
    /// may have them open.
    fn start(&mut self, private: &[BorrowedFd<'_>]) -> Result<()>;

    /// The process that holds the workload, once it has started.
    fn process(&self) -> Option<u32>;

    /// A file that is readable once the workload has ended, for those who wait for other things too.
    fn ended(&self) -> Result<OwnedFd>;

    /// Runs a further process beside the workload, whose streams and end go over `connection`, which does
    /// not block, in the pieces of sbx-host's `frame`.
    fn exec(&mut self, command: &Command, connection: UnixStream) -> Result<()>;

    /// Sends the workload a signal. One that has ended already is not an error.
    fn signal(&mut self, signal: Signal) -> Result<()>;

    /// Stops the workload's clock: it runs no instruction until [`Sandbox::resume`].
    fn pause(&mut self) -> Result<()>;

    /// Lets a paused workload go on.
    fn resume(&mut self) -> Result<()>;

    /// Waits until the workload ends, the caller of sbx is sent a signal, or `until` has come.
    fn wait(&mut self, until: Option<Instant>) -> Result<Waited>;
}

/// A further process in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments.
    #[serde(with = "crate::text::words")]
    pub argv: Vec<OsString>,
    /// Variables beside those of the workload.
    #[serde(with = "crate::text::pairs")]
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts; as the workload if not named.
    pub workdir: Option<String>,
    /// Who runs it; as the workload if not named.
    pub user: Option<String>,
    /// Whether it has an input.
    pub stdin: bool,
    /// The size of its terminal, columns and lines, if it has one.
    pub terminal: Option<(u16, u16)>,
}

/// Why [`Sandbox::wait`] returned.
#[derive(Debug)]
pub enum Waited {
    /// The workload has ended.
    Ended(Ending),
    /// sbx was sent this signal, which is the workload's to answer.
    Interrupted(Signal),
    /// The moment came first.
    TimedOut,
}

/// The end of a workload, and what sbx can tell the user about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The reason.
    pub exit: Exit,
    /// Sentences worth telling: which grant was missing.
    pub notes: Vec<String>,
}

impl From<Exit> for Ending {
    fn from(exit: Exit) -> Self {
        Self { exit, notes: Vec::new() }
    }
}

/// A signal by its Linux number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// Ends a process without asking it.
    pub const KILL: Self = Self(9);
    /// Lets a stopped process go on.
    pub const CONT: Self = Self(18);
    /// Stops a process without asking it.
    pub const STOP: Self = Self(19);
}
