//! What can go wrong before a workload has run, in the words a user reads.
//!
//! How a *running* workload ends is [`crate::Exit`], never an error.

/// The result of everything that may fail before a workload runs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to run a workload: one sentence with the cause and, where there is one, the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such workload (exit status 127).
    #[error("{0}")]
    NotFound(String),
    /// The workload is there and cannot be run (exit status 126).
    #[error("{0}")]
    NotRunnable(String),
    /// What was asked for is wrong, or cannot be granted or enforced here (exit status 125).
    #[error("{0}")]
    Refused(String),
    /// The host failed sbx (exit status 125).
    #[error("cannot {action}: {source}")]
    Host {
        /// What sbx was doing, as a verb phrase: "open the volume ./data".
        action: String,
        /// What the operating system answered.
        source: std::io::Error,
    },
    /// sbx was sent this signal before the workload ran (exit status 128 + its number).
    #[error("interrupted by signal {}", .0.0)]
    Interrupted(crate::Signal),
    /// A verb that the sandbox's state does not allow (exit status 125).
    #[error("cannot {verb} a sandbox that is {state}")]
    State {
        /// The verb that was asked for.
        verb: &'static str,
        /// The state the sandbox is in.
        state: crate::State,
    },
}

impl Error {
    /// An error of the host's while `action` (a verb phrase) was under way.
    pub fn host(action: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Host { action: action.into(), source: source.into() }
    }

    /// The exit status `sbx run` ends with, as docker and podman number them.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotRunnable(_) => 126,
            Self::Interrupted(signal) => 128u8.wrapping_add(signal.0 as u8),
            Self::Refused(_) | Self::Host { .. } | Self::State { .. } => 125,
        }
    }
}
