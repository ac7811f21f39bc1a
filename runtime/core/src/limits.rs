//! The table of limits, written once for every backend.
//!
//! A backend takes [`Limits`] apart without `..`, so that a new limit does not compile until each
//! backend has said what it does with it: enforce it, or refuse it with a reason. `None` is "not
//! limited". What a limit costs a workload that goes past it is in the documentation of each field.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a sandbox may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, summed over all that the workload can address. More is refused to it.
    pub memory: Option<u64>,
    /// Wall-clock time from start to end. The workload is killed ([`crate::Exit::Timeout`]).
    pub timeout: Option<Duration>,
    /// Processor time, user and system, of all threads. Killed ([`crate::Exit::CpuTime`]).
    pub cpu_time: Option<Duration>,
    /// Thousandths of a processor. The workload is slowed down.
    pub cpus: Option<u32>,
    /// Processes and threads. More are refused to it.
    pub pids: Option<u32>,
    /// Files and sockets open at once, beside standard streams and volumes. More are refused.
    pub fds: Option<u32>,
    /// Bytes written to standard output and error together. Killed ([`crate::Exit::Output`]).
    pub output: Option<u64>,
    /// Bytes added to its volumes, and to a root in a guest's memory. More are refused ("no space left on device").
    pub disk: Option<u64>,
    /// Instructions, counted the same on every run and machine. Killed ([`crate::Exit::Fuel`]).
    pub fuel: Option<u64>,
}

impl Limits {
    /// The limits that are set, as `--explain` shows them: flag name and value.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let Self { memory, timeout, cpu_time, cpus, pids, fds, output, disk, fuel } = self;
        let size = |s: &Option<u64>| s.map(crate::units::format_size);
        let time = |t: &Option<Duration>| t.map(|t| humantime::format_duration(t).to_string());
        [
            ("memory", size(memory)),
            ("timeout", time(timeout)),
            ("cpu-time", time(cpu_time)),
            ("cpus", cpus.map(|c| format!("{}", f64::from(c) / 1000.0))),
            ("pids", pids.map(|n| n.to_string())),
            ("fds", fds.map(|n| n.to_string())),
            ("output", size(output)),
            ("disk", size(disk)),
            ("fuel", fuel.map(|n| n.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }
}
