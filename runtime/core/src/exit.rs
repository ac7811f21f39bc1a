//! How a workload ended: one enum for every backend, with the exit status and the sentence that a
//! user sees for it.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::units;

/// The reason a sandbox is no longer running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// The workload ended by itself, with this status.
    Code(u8),
    /// The workload, or the process that held it, was killed by this signal.
    Signal(i32),
    /// The workload did what its machine does not allow (a wasm trap, a guest kernel's panic).
    Trap(String),
    /// The workload failed after its memory limit (in bytes) refused it more.
    OutOfMemory(u64),
    /// The wall-clock limit was reached.
    Timeout(Duration),
    /// The limit on processor time was reached.
    CpuTime(Duration),
    /// The deterministic instruction budget was spent.
    Fuel(u64),
    /// The workload wrote more than its output limit (in bytes).
    Output(u64),
    /// sbx itself failed while the workload ran.
    Failed(String),
}

/// `SIGXFSZ`: what a kernel sends to a process that writes past its file size limit.
const SIGXFSZ: u8 = 25;
/// `SIGKILL`.
const SIGKILL: u8 = 9;

impl Exit {
    /// The exit status `sbx run` ends with; 124 to 127 as in docker and coreutils' `timeout`,
    /// 128 + n for signal n as in every shell.
    pub fn status(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128u8.wrapping_add((*signal & 0x7f) as u8),
            Self::Trap(_) => 134,
            Self::OutOfMemory(_) => 128 + SIGKILL,
            Self::Timeout(_) | Self::CpuTime(_) | Self::Fuel(_) => 124,
            Self::Output(_) => 128 + SIGXFSZ,
            Self::Failed(_) => 125,
        }
    }

    /// One sentence for the user, or nothing where the status says it all.
    pub fn message(&self) -> Option<String> {
        Some(match self {
            Self::Code(_) => return None,
            // A workload that was interrupted, or whose reader went away, ended as asked.
            Self::Signal(1 | 2 | 13 | 15) => return None,
            Self::Signal(signal) => format!("the workload was killed by signal {signal}"),
            Self::Trap(why) => format!("the workload trapped: {why}"),
            Self::OutOfMemory(limit) => format!(
                "the workload ran out of memory: --memory is {}; give it more with --memory",
                units::format_size(*limit)
            ),
            Self::Timeout(limit) => format!(
                "the workload was stopped after its --timeout of {}",
                humantime::format_duration(*limit)
            ),
            Self::CpuTime(limit) => format!(
                "the workload was stopped after using its --cpu-time of {}",
                humantime::format_duration(*limit)
            ),
            Self::Fuel(limit) => {
                format!("the workload was stopped after using its --fuel of {limit}")
            }
            Self::Output(limit) => format!(
                "the workload was stopped after writing its --output limit of {}",
                units::format_size(*limit)
            ),
            Self::Failed(why) => format!("the sandbox failed: {why}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_the_contract() {
        assert_eq!(Exit::Code(7).status(), 7);
        assert_eq!(Exit::Signal(15).status(), 143);
        assert_eq!(Exit::Trap(String::new()).status(), 134);
        assert_eq!(Exit::OutOfMemory(1).status(), 137);
        assert_eq!(Exit::Timeout(Duration::ZERO).status(), 124);
        assert_eq!(Exit::CpuTime(Duration::ZERO).status(), 124);
        assert_eq!(Exit::Fuel(1).status(), 124);
        assert_eq!(Exit::Output(1).status(), 153);
        assert_eq!(Exit::Failed(String::new()).status(), 125);
    }

    #[test]
    fn an_ending_the_user_asked_for_is_silent() {
        assert_eq!(Exit::Code(1).message(), None);
        assert_eq!(Exit::Signal(2).message(), None);
        assert!(Exit::Signal(9).message().is_some());
    }
}
