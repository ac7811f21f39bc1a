//! `sbx metrics`: what all sandboxes use, for Prometheus: its text exposition format, version 0.0.4.
//!
//! There is no daemon to be scraped: the output is for the textfile collector of a node exporter, or for
//! whatever else runs a command. Counters begin anew when a workload does.

use anyhow::Result;
use sbx_supervisor::{State, Store};

use crate::print;
use crate::stats::{self, Row};

/// A metric of each sandbox: its name, its kind, what it is, and its value.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Row) -> Option<f64>,
}

const METRICS: [Metric; 8] = [
    Metric {
        name: "sbx_cpu_seconds_total",
        kind: "counter",
        help: "Processor time used since the workload began.",
        value: |row| row.cpu_seconds,
    },
    Metric {
        name: "sbx_memory_bytes",
        kind: "gauge",
        help: "Memory, that which processes share counted once.",
        value: |row| number(row.memory_bytes),
    },
    Metric {
        name: "sbx_memory_limit_bytes",
        kind: "gauge",
        help: "The most memory that the workload may have.",
        value: |row| number(row.memory_limit_bytes),
    },
    Metric {
        name: "sbx_read_bytes_total",
        kind: "counter",
        help: "Bytes read from disks since the workload began.",
        value: |row| number(row.read_bytes),
    },
    Metric {
        name: "sbx_written_bytes_total",
        kind: "counter",
        help: "Bytes written to disks since the workload began.",
        value: |row| number(row.write_bytes),
    },
    Metric {
        name: "sbx_tasks",
        kind: "gauge",
        help: "Threads of the host that work for the sandbox.",
        value: |row| number(row.pids),
    },
    Metric {
        name: "sbx_uptime_seconds",
        kind: "gauge",
        help: "Time since the workload last began.",
        value: |row| row.uptime_seconds,
    },
    Metric {
        name: "sbx_restarts_total",
        kind: "counter",
        help: "How often the workload was started again.",
        value: |row| Some(f64::from(row.restarts)),
    },
];

const STATES: [State; 6] =
    [State::Created, State::Running, State::Paused, State::Restarting, State::Exited, State::Dead];

pub(crate) fn metrics() -> Result<u8> {
    print::answer(text(&stats::rows(&Store::open()?.list()?, true)?))?;
    Ok(0)
}

// 2^53 bytes are more than any sandbox has, and no number below that is changed.
fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    };
    head(&mut text, "sbx_sandboxes", "gauge", "How many sandboxes are in this state.");
    for state in STATES {
        let count = rows.iter().filter(|row| row.state == state).count();
        text.push_str(&format!("sbx_sandboxes{{state=\"{}\"}} {count}\n", state.name()));
    }
    for Metric { name, kind, help, value } in METRICS {
        head(&mut text, name, kind, help);
        for row in rows.iter().filter(|row| row.state.is_alive()) {
            if let Some(value) = value(row) {
                let Row { id, name: sandbox, backend, .. } = row;
                // Identifications and names have nothing in them that needs escaping.
                let labels = format!("id=\"{id}\",name=\"{sandbox}\",backend=\"{backend}\"");
                text.push_str(&format!("{name}{{{labels}}} {value}\n"));
            }
        }
    }
    text
}
