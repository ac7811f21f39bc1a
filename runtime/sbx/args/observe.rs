//! The flags of the verbs that only look: what sandboxes use, and what happens to them. Names and short forms
//! are docker's.

use clap::Args;
use sbx_supervisor::Time;
use sbx_supervisor::events::What;

use super::Format;
use super::sandbox::parse_since;

/// Show what sandboxes use, again every second
///
/// Measured from outside, on the host: the process that holds the sandbox, and all that it has started.
/// CPU % is of one processor. MEM USAGE counts memory that processes share once. BLOCK I/O is what was
/// read from disks and written to them. PIDS counts the host's threads, in a microVM those of the machine
/// and not the guest's processes. UPTIME is since the workload last began.
///
/// On a terminal the table is drawn anew in place; elsewhere there is one a second. With JSON, there is a
/// list a line, with raw numbers since the workload began.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Print it once, and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Those that do not run too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Names, identifications, or beginnings of these [default: all that run]
    #[arg(value_name = "SANDBOX")]
    pub(crate) names: Vec<String>,
}

/// List the host's processes that work for a sandbox
///
/// The process that holds the sandbox, and all that it has started, with their threads. What runs inside
/// of a microVM is not among them: the host sees its processors as threads.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Its name or identification
    pub(crate) sandbox: String,
}

/// Print what happens to sandboxes, as it happens
///
/// As with docker and podman, it begins with what happens from now on and goes on until it is interrupted,
/// so that there is no --follow; -f is --filter, as theirs is. With --since, --until or --no-stream it begins
/// with what has been, as far as that is kept. Events are create, start, pause, resume, restart, kill, oom,
/// die, rename and remove. With JSON, each is an object in a line of its own.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Print what has happened, and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Only from then on: a time such as 2026-01-31T12:00:00Z, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Time>,
    /// Only until then, and end when that has come
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) until: Option<Time>,
    /// Only those for which it holds: event=EVENT, sandbox=SANDBOX, label=NAME[=VALUE]; of several events
    /// or sandboxes, one has to
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = parse_filter)]
    pub(crate) filters: Vec<EventFilter>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What `events --filter` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventFilter {
    Event(String),
    Sandbox(String),
    Label(String, Option<String>),
}

fn parse_filter(text: &str) -> Result<EventFilter, String> {
    match text.split_once('=') {
        Some(("event", value)) if What::NAMES.contains(&value) => {
            Ok(EventFilter::Event(value.into()))
        }
        Some(("event", _)) => Err(format!("an event is one of {}", What::NAMES.join(", "))),
        Some(("sandbox", value)) if !value.is_empty() => Ok(EventFilter::Sandbox(value.into())),
        Some(("label", value)) => Ok(match value.split_once('=') {
            Some((name, value)) => EventFilter::Label(name.into(), Some(value.into())),
            None => EventFilter::Label(value.into(), None),
        }),
        _ => Err("a filter is event=, sandbox= or label=".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        assert_eq!(parse_filter("event=die"), Ok(EventFilter::Event("die".into())));
        assert_eq!(
            parse_filter("label=a=b=c"),
            Ok(EventFilter::Label("a".into(), Some("b=c".into())))
        );
        for wrong in ["", "die", "event=dies", "event=", "name=x", "sandbox="] {
            assert!(parse_filter(wrong).is_err(), "{wrong}");
        }
    }
}
