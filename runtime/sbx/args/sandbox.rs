//! The flags of the verbs for sandboxes that outlive their command. Names and short forms are docker's.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use sbx_core::units::{parse_duration, parse_size};
use sbx_supervisor::{Restart, Time};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::observe::{EventsArgs, StatsArgs, TopArgs};
use super::{Format, RunArgs, parse_env};

/// What a sandbox that is kept is called and how it lives.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Sandboxes that are kept")]
pub(crate) struct KeepArgs {
    /// Call it so, instead of by two random words
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Remember this about it, for ps --filter
    #[arg(short, long = "label", value_name = "NAME[=VALUE]", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Remove it at its end
    #[arg(long)]
    pub(crate) rm: bool,
    /// Write its identification to a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Start it again after its end: no, always, on-failure or on-failure:N
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = parse_restart)]
    pub(crate) restart: Restart,
    /// Bytes of its output that are kept [default: 16M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) log_size: Option<u64>,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        Err("a label needs a name".into())
    } else {
        Ok((name.into(), value.into()))
    }
}

fn parse_restart(text: &str) -> Result<Restart, String> {
    text.parse()
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a sandbox, to be started later, and print its identification
    Create(Box<CreateArgs>),
    /// Start sandboxes that do not run
    Start(StartArgs),
    /// List sandboxes
    #[command(visible_alias = "ls")]
    Ps(PsArgs),
    /// Print what a workload has written
    Logs(LogsArgs),
    /// Make a workload's standard streams the caller's; with a terminal, Ctrl-P Ctrl-Q detaches
    Attach(AttachArgs),
    /// Run something further in a sandbox that runs: a process in a microVM, or another WebAssembly module
    /// with the same grants
    Exec(Box<ExecArgs>),
    /// End sandboxes: by a signal, and by SIGKILL if that does not end them in time
    Stop(StopArgs),
    /// Send the workload a signal
    Kill(KillArgs),
    /// Hold sandboxes where they are
    Pause(Names),
    /// Let sandboxes go on that are held
    #[command(visible_alias = "unpause")]
    Resume(Names),
    /// Wait for the end of sandboxes, and print their exit statuses
    Wait(Names),
    /// Remove sandboxes that have ended, and all that is kept of them
    Rm(RmArgs),
    /// Print all that is known of sandboxes, as JSON
    Inspect(Names),
    Stats(StatsArgs),
    Top(TopArgs),
    Events(EventsArgs),
    /// Print what all sandboxes use, in the text format of Prometheus
    Metrics,
    /// Give a sandbox another name
    Rename {
        /// Its name or identification
        sandbox: String,
        /// What it is called from now on
        name: String,
    },
}

/// `create`: as `run`, without beginning.
#[derive(Debug, Parser)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Sandboxes by name.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Names, identifications, or beginnings of these
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) names: Vec<String>,
}

/// `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Be attached to it from its first byte on, and end with its exit status; one sandbox only
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// With --attach: pass standard input on, if it was made for that
    #[arg(short, long)]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) names: Names,
}

/// `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Pass no standard input on
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Its name or identification
    pub(crate) sandbox: String,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable, or pass the caller's on
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(parse_env))]
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    /// Start in this directory of the guest's [default: the workload's]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user of the guest: a name, UID or UID:GID [default: the workload's]
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Call this function of the WebAssembly sandbox's own module, and print what it returns
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) invoke: Option<String>,
    /// Its name or identification
    pub(crate) sandbox: String,
    /// The program in the guest, or a module's file, and its arguments
    #[arg(
        required_unless_present = "invoke",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<OsString>,
}

/// `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Identifications only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Whole identifications
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only those for which it holds: name=TEXT, id=BEGINNING, status=STATE, label=NAME[=VALUE]
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = parse_filter)]
    pub(crate) filters: Vec<Filter>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What `ps --filter` asks for.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    Name(String),
    Id(String),
    Status(String),
    Label(String, Option<String>),
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    match text.split_once('=') {
        Some(("name", value)) => Ok(Filter::Name(value.into())),
        Some(("id", value)) => Ok(Filter::Id(value.into())),
        Some(("status", value)) => Ok(Filter::Status(value.into())),
        Some(("label", value)) => Ok(match value.split_once('=') {
            Some((name, value)) => Filter::Label(name.into(), Some(value.into())),
            None => Filter::Label(value.into(), None),
        }),
        _ => Err("a filter is name=, id=, status= or label=".into()),
    }
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what is written from now on, until the sandbox ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only so many of the last lines, or all
    #[arg(short = 'n', long, value_name = "LINES", value_parser = parse_tail, default_value = "all")]
    pub(crate) tail: Tail,
    /// Only what was written since then: a time such as 2026-01-31T12:00:00Z, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Time>,
    /// When each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Its name or identification
    pub(crate) sandbox: String,
}

/// `--tail`: a number, or all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail(pub(crate) Option<usize>);

fn parse_tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail(None));
    }
    text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "that is no number of lines".into())
}

pub(super) fn parse_since(text: &str) -> Result<Time, String> {
    parse_duration(text).map(Time::before_now).or_else(|_| text.parse())
}

/// `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// How long the workload has to end by itself
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub(crate) time: Duration,
    #[command(flatten)]
    pub(crate) names: Names,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => parse_duration(text),
    }
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = parse_signal)]
    pub(crate) signal: i32,
    #[command(flatten)]
    pub(crate) names: Names,
}

fn parse_signal(text: &str) -> Result<i32, String> {
    sbx_host::signals::number(text)
        .ok_or_else(|| format!("'{text}' is no signal such as TERM or 15"))
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill those that run
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) names: Names,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_verbs_take() {
        assert!(matches!(parse_tail("5"), Ok(Tail(Some(5)))));
        assert!(parse_tail("-1").is_err() && parse_since("then").is_err());
        assert!(parse_since("10m").unwrap() < Time::now());
        assert_eq!(parse_seconds("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_seconds("200ms"), Ok(Duration::from_millis(200)));
        assert!(parse_filter("x=y").is_err() && parse_label("=x").is_err());
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
    }
}
