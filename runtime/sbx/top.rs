//! `sbx top`: the host's processes that work for a sandbox.

use anyhow::Result;
use sbx_core::Error;
use sbx_host::usage::{Processes, Worker};
use sbx_supervisor::Store;
use std::time::Duration;

use crate::args::observe::TopArgs;
use crate::print;

pub(crate) fn top(args: &TopArgs) -> Result<u8> {
    let status = Store::open()?.find(&args.sandbox)?.status()?;
    let Some(process) = status.process else {
        return Err(Error::Refused(format!(
            "cannot list the processes of a sandbox that is {}",
            status.state.name()
        ))
        .into());
    };
    let processes = Processes::now()?;
    let headings = ["PID", "PPID", "THREADS", "STATE", "CPU TIME", "RSS", "NAME"];
    let mut lines = vec![headings.map(String::from).to_vec()];
    lines.extend(processes.of(process).into_iter().map(line));
    print::answer(print::columns(&lines))?;
    Ok(0)
}

fn line(worker: &Worker) -> Vec<String> {
    let Worker { pid, parent, name, state, threads, cpu } = worker;
    vec![
        pid.to_string(),
        parent.to_string(),
        threads.to_string(),
        state.to_string(),
        clock(*cpu),
        // Nothing if it has just ended.
        print::size(worker.resident().unwrap_or(0)),
        // A process may call itself anything, and this may go to a terminal.
        name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    ]
}

/// A time to the hundredth of a second, as top(1) has it.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}.{:02}", seconds / 60, seconds % 60, time.subsec_millis() / 10)
}
