//! What is known of a sandbox, as it is stored.
//!
//! [`Config`] is what was asked, and [`Status`] how it stands. Both are JSON with the version of their form;
//! a file of another version is not read, since guessing at a stranger's meaning could start the wrong thing.

use sbx_core::route::Kind;
use sbx_core::{Exit, Spec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Time;

/// The version of the form that is written here.
pub const VERSION: u32 = 1;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// 64 hexadecimal digits, random.
    pub id: String,
    /// What users call it.
    pub name: String,
    /// What users remember about it.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Time,
    /// What holds it.
    pub kind: Kind,
    /// What executes its machine, if it is one: `kvm` or `tcg`.
    pub accelerator: Option<String>,
    /// The workload, its grants and limits.
    pub spec: Spec,
    /// Where the caller was: relative paths start there.
    pub cwd: PathBuf,
    /// Whether it is started again after its end.
    pub restart: Restart,
    /// Whether it is removed at its end.
    pub remove: bool,
    /// Bytes of log that are kept at least; twice as much is there at most.
    pub log_size: u64,
    /// What compiling the workload may cost: bytes of memory.
    pub compile_memory: u64,
    /// The same: processor time.
    pub compile_time: Duration,
}

/// Whether a sandbox is started again after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is not.
    #[default]
    No,
    /// If it failed, at most so often in all.
    OnFailure(Option<u32>),
    /// However it ended, unless a user ended it.
    Always,
}

impl Restart {
    /// Whether it is to be started again after this end, having been so often.
    pub fn wants(self, exit: &Exit, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => exit.status() != 0 && most.is_none_or(|most| restarts < most),
            Self::Always => true,
        }
    }
}

impl FromStr for Restart {
    type Err = String;

    /// Reads `no`, `always`, `on-failure` or `on-failure:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "no" => Ok(Self::No),
            None if text == "always" => Ok(Self::Always),
            None if text == "on-failure" => Ok(Self::OnFailure(None)),
            Some(("on-failure", most)) if most.parse::<u32>().is_ok() => {
                Ok(Self::OnFailure(most.parse().ok()))
            }
            _ => Err(format!("'{text}' is none of no, always, on-failure and on-failure:N")),
        }
    }
}

/// Where a sandbox is in its life, by docker's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not begun.
    Created,
    /// The workload runs.
    Running,
    /// The workload is held.
    Paused,
    /// It has ended, and waits to be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// Its supervisor is gone, and it ended with that; nobody knows how it would have.
    Dead,
}

impl State {
    /// Whether there is a supervisor in this state.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// How a sandbox stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Where it is in its life.
    pub state: State,
    /// The process that holds the workload.
    pub process: Option<u32>,
    /// Its supervisor.
    pub supervisor: Option<u32>,
    /// When the workload last began.
    pub started: Option<Time>,
    /// When it last ended.
    pub finished: Option<Time>,
    /// How it last ended.
    pub exit: Option<Exit>,
    /// Sentences about that.
    pub notes: Vec<String>,
    /// How often it was started again.
    pub restarts: u32,
}

impl Status {
    /// That of a sandbox that was just made.
    pub fn created() -> Self {
        Self {
            version: VERSION,
            state: State::Created,
            process: None,
            supervisor: None,
            started: None,
            finished: None,
            exit: None,
            notes: Vec::new(),
            restarts: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts() {
        let policy = |text: &str| text.parse::<Restart>();
        assert_eq!(policy("no"), Ok(Restart::No));
        assert_eq!(policy("on-failure:3"), Ok(Restart::OnFailure(Some(3))));
        for wrong in ["", "yes", "always:3", "on-failure:", "on-failure:-1"] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
        let (good, bad) = (Exit::Code(0), Exit::Signal(9));
        assert!(!Restart::No.wants(&bad, 0) && Restart::Always.wants(&good, 99));
        assert!(!Restart::OnFailure(None).wants(&good, 0));
        assert!(Restart::OnFailure(Some(2)).wants(&bad, 1));
        assert!(!Restart::OnFailure(Some(2)).wants(&bad, 2));
    }
}
