//! `sbx stats`: what sandboxes use, once or again every second.
//!
//! A percentage of a processor is of the time between two looks, so that a table always begins with a wait.

use anyhow::Result;
use sbx_core::route::Kind;
use sbx_host::usage::{Processes, Usage};
use sbx_supervisor::store::short;
use sbx_supervisor::{Entry, State, Store, Time};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use crate::args::Format;
use crate::args::observe::StatsArgs;
use crate::{print, ps, sandbox};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// What a terminal is told before a table that replaces the one before: to go to the upper left corner,
/// and clear all from there.
const REDRAW: &str = "\x1b[H\x1b[2J";
/// What is shown of what is not known.
const UNKNOWN: &str = "-";

/// What one sandbox uses. What is not known of one that does not run is nothing.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) backend: String,
    accelerator: Option<String>,
    pub(crate) state: State,
    time: Time,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_limit_bytes: Option<u64>,
    pub(crate) read_bytes: Option<u64>,
    pub(crate) write_bytes: Option<u64>,
    pub(crate) pids: Option<u64>,
    pub(crate) uptime_seconds: Option<f64>,
    pub(crate) restarts: u32,
    #[serde(skip)]
    process: Option<u32>,
    #[serde(skip)]
    looked: Instant,
}

pub(crate) fn stats(args: &StatsArgs) -> Result<u8> {
    let store = Store::open()?;
    let named = args.names.iter().map(|name| store.find(name));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    let look = || -> sbx_core::Result<Vec<Row>> {
        if named.is_empty() { rows(&store.list()?, args.all) } else { rows(&named, true) }
    };
    let redraw = !args.no_stream && stdout().is_terminal();
    let mut before = if args.format == Format::Table { look()? } else { Vec::new() };
    let mut wait = args.format == Format::Table;
    loop {
        if wait {
            std::thread::sleep(INTERVAL);
        }
        let now = look()?;
        // All that were asked for are gone.
        if now.is_empty() && !named.is_empty() {
            return Ok(0);
        }
        print::answer(match args.format {
            Format::Table if redraw => format!("{REDRAW}{}", table(&now, &before)),
            Format::Table => table(&now, &before),
            Format::Json if args.no_stream => serde_json::to_string_pretty(&now)? + "\n",
            Format::Json => serde_json::to_string(&now)? + "\n",
        })?;
        if args.no_stream {
            return Ok(0);
        }
        before = now;
        wait = true;
    }
}

/// What these use now, the newest sandbox first. One that was removed meanwhile has no line, nor has one
/// whose record is damaged.
pub(crate) fn rows(entries: &[Entry], all: bool) -> sbx_core::Result<Vec<Row>> {
    let processes = Processes::now()?;
    let mut rows = Vec::new();
    for entry in entries {
        let (Ok(config), Ok(status)) = (entry.config(), entry.status()) else { continue };
        if !all && !status.state.is_alive() {
            continue;
        }
        let workers = status.process.map(|process| processes.of(process)).unwrap_or_default();
        let usage = Usage::of(&workers);
        let blocks = usage.as_ref().and_then(|usage| usage.blocks);
        let default = (config.kind == Kind::Vm).then_some(sbx_vmm::MEMORY);
        let begun = status.started.filter(|_| usage.is_some());
        let row = Row {
            backend: sandbox::backend(&config),
            accelerator: config.accelerator,
            state: status.state,
            time: Time::now(),
            cpu_seconds: usage.as_ref().map(|usage| usage.cpu.as_millis() as f64 / 1000.0),
            memory_bytes: usage.as_ref().map(|usage| usage.memory),
            memory_limit_bytes: config.spec.limits.memory.or(default),
            read_bytes: blocks.map(|blocks| blocks.0),
            write_bytes: blocks.map(|blocks| blocks.1),
            pids: usage.as_ref().map(|usage| usage.tasks),
            uptime_seconds: begun.map(|begun| begun.ago().as_secs_f64()),
            restarts: status.restarts,
            process: status.process,
            looked: Instant::now(),
            id: config.id,
            name: config.name,
        };
        rows.push((config.created, row));
    }
    rows.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn table(rows: &[Row], before: &[Row]) -> String {
    let before: BTreeMap<_, _> = before.iter().map(|row| (&row.id, row)).collect();
    let headings = [
        "SANDBOX ID",
        "NAME",
        "BACKEND",
        "CPU %",
        "MEM USAGE / LIMIT",
        "BLOCK I/O",
        "PIDS",
        "UPTIME",
    ];
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.into());
    let pair = |a: Option<u64>, b: Option<u64>| {
        format!("{} / {}", known(a.map(print::size)), known(b.map(print::size)))
    };
    let mut lines = vec![headings.map(String::from).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let percent = before.get(&row.id).and_then(|before| percent(row, before));
        let uptime = row.uptime_seconds.map(Duration::from_secs_f64);
        vec![
            short(&row.id).into(),
            row.name.clone(),
            row.backend.clone(),
            known(percent.map(|percent| format!("{percent:.2}%"))),
            pair(row.memory_bytes, row.memory_limit_bytes),
            pair(row.read_bytes, row.write_bytes),
            known(row.pids.map(|pids| pids.to_string())),
            known(uptime.map(ps::coarse)),
        ]
    }));
    print::columns(&lines)
}

/// How much of a processor was used between two looks at the same process.
fn percent(now: &Row, before: &Row) -> Option<f64> {
    let used = now.cpu_seconds? - before.cpu_seconds?;
    let time = now.looked.saturating_duration_since(before.looked).as_secs_f64();
    (now.process == before.process && time > 0.0).then(|| used.max(0.0) / time * 100.0)
}
