//! The command line, as clap types: every flag and its help, and nothing else.
//!
//! Names and short forms are docker's and podman's where they have one. Options before WORKLOAD are
//! sbx's; all behind it belongs to the workload.

pub(crate) mod observe;
pub(crate) mod sandbox;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueHint};
use sbx_core::machine::{Accel, Disk, DiskRate, Tap};
use sbx_core::net::NetRule;
use sbx_core::route::Kind;
use sbx_core::units::{parse_cpus, parse_duration, parse_rate, parse_size};
use sbx_core::{Limits, Machine, Volume};
use sbx_wasm::CompileLimits;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Run a workload in the lightest sandbox that can hold it.
#[derive(Debug, Parser)]
#[command(name = "sbx", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `sbx` can be told to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    #[command(flatten)]
    Sandbox(sandbox::Verb),
    /// Say what this host can do, and how to mend what it cannot
    ///
    /// Exit status: 0 when both WebAssembly sandboxes and microVMs can run, 1 when one cannot.
    Doctor {
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    Compile(CompileArgs),
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell that will read it
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// The directory to write them to
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// Run a workload and wait for its end
///
/// The workload sees no file, no variable and no network unless it is granted here. Its standard
/// output and error are the caller's; its input is empty without --interactive.
#[derive(Debug, Default, Parser)]
#[command(
    name = "run",
    bin_name = "sbx run",
    after_help = "Exit status: the workload's own; 124 when a time limit ended it, 125 when sbx \
                  failed, 126 when the workload cannot be run, 127 when there is none, 134 after a \
                  trap, 137 out of memory, 128+N killed by signal N."
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) compile: CompileLimitArgs,
    #[command(flatten)]
    pub(crate) keep: sandbox::KeepArgs,
    /// Run in the background, and print the sandbox's identification
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Call this exported function of a core module, and print what it returns
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) invoke: Option<String>,
    /// Say what would be run and with which grants, and do not run it
    #[arg(long)]
    pub(crate) explain: bool,
    /// Leave out notices and progress; what went wrong is said all the same
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The program, and the arguments for it. In a microVM it may also be a Linux kernel with the
    /// guest's program behind it, or with --rootfs or a --disk image the path of a program in there
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_names = ["WORKLOAD", "ARGS"],
        value_hint = ValueHint::CommandWithArguments
    )]
    pub(crate) command: Vec<OsString>,
}

impl RunArgs {
    /// Reads the words behind `sbx`, `run` being the first.
    ///
    /// Where no option stands before the workload there is nothing to parse, and building a parser for
    /// thirty options would be a tenth of what the start executes.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let plain = |word: &OsString| !word.is_empty() && word.as_bytes()[0] != b'-';
        match &words[1..] {
            command @ [workload, ..] if plain(workload) => {
                Ok(Self { command: command.to_vec(), ..Self::default() })
            }
            _ => Self::try_parse_from(words),
        }
    }
}

/// What the workload is given.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Grants")]
pub(crate) struct GrantArgs {
    /// Share a host directory, read-only with :ro
    #[arg(short, long = "volume", value_name = "HOST:GUEST[:ro]")]
    pub(crate) volumes: Vec<Volume>,
    /// Set a variable, or pass the caller's on
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(parse_env))]
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    /// Set the variables that a file lists, one NAME[=VALUE] a line
    #[arg(long = "env-file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_files: Vec<PathBuf>,
    /// Start in this directory, which is in a volume
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Allow connections to, and lookups of, a host; HOST may be a network such as 10.0.0.0/8 or *,
    /// PORT a range such as 8000-8999 or *
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) allow_net: Vec<NetRule>,
    /// Allow accepting connections on an address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Let the workload see that its standard streams are a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Take grants and limits from a file; flags win over it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
}

/// What the workload may use.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Memory, such as 64M
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Time on the clock, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Processor time, such as 10s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) cpu_time: Option<Duration>,
    /// Processors, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    pub(crate) cpus: Option<u32>,
    /// Processes and threads
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids: Option<u32>,
    /// Open files and sockets, beside standard streams and volumes
    #[arg(long, value_name = "NUMBER")]
    pub(crate) fds: Option<u32>,
    /// Bytes written to standard output and error
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) output: Option<u64>,
    /// A SIZE: bytes written to volumes; a new file, directory or link counts as 4K. A FILE: a disk
    /// image for the microVM, read-only with :ro
    #[arg(long, value_name = "SIZE|FILE[:ro]", value_parser = parse_disk)]
    pub(crate) disk: Vec<DiskArg>,
    /// WebAssembly instructions, counted alike on every run
    #[arg(long, value_name = "NUMBER")]
    pub(crate) fuel: Option<u64>,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        let Self { memory, timeout, cpu_time, cpus, pids, fds, output, ref disk, fuel } = *self;
        let disk = disk.iter().rev().find_map(|disk| match disk {
            DiskArg::Limit(bytes) => Some(*bytes),
            DiskArg::Image(_) => None,
        });
        Limits { memory, timeout, cpu_time, cpus, pids, fds, output, disk, fuel }
    }

    pub(crate) fn images(&self) -> Vec<Disk> {
        let images = self.disk.iter().filter_map(|disk| match disk {
            DiskArg::Limit(_) => None,
            DiskArg::Image(image) => Some(image.clone()),
        });
        images.collect()
    }
}

/// What `--disk` is about: how much may be written, or an image to write to.
#[derive(Clone, Debug)]
pub(crate) enum DiskArg {
    Limit(u64),
    Image(Disk),
}

/// Reads what can be a size as one; a file of such a name is `./64M`.
fn parse_disk(text: &str) -> Result<DiskArg, String> {
    match parse_size(text) {
        Ok(bytes) => Ok(DiskArg::Limit(bytes)),
        Err(_) => text.parse().map(DiskArg::Image),
    }
}

/// The machine around a workload that needs one.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Machine, for workloads that need one")]
pub(crate) struct MachineArgs {
    /// Run in a microVM, whatever the workload is
    #[arg(long, conflicts_with = "wasm")]
    vm: bool,
    /// Run in a WebAssembly sandbox, whatever the workload is
    #[arg(long)]
    wasm: bool,
    /// The guest's kernel, for workloads that are none [default: an installed one]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,
    /// Make a directory the guest's root; what the guest writes there stays in its memory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    rootfs: Option<PathBuf>,
    /// Let each disk image move so many bytes a second
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    disk_bps: Option<NonZeroU64>,
    /// Let each disk image answer so many requests a second
    #[arg(long, value_name = "NUMBER")]
    disk_iops: Option<NonZeroU64>,
    /// Boot this initial RAM disk in place of sbx's own, on the console
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    initrd: Option<PathBuf>,
    /// Add these words to the kernel's command line
    #[arg(long, value_name = "WORDS")]
    cmdline: Option<String>,
    /// Run as this user of the guest: a name, UID or UID:GID
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The guest's name for itself
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Give the guest an interface: none, or tap=NAME[,ip=ADDRESS/PREFIX][,gateway=ADDRESS]
    #[arg(long, value_name = "NETWORK", value_parser = parse_net)]
    net: Option<Net>,
    /// What executes the guest: kvm, tcg (software emulation by QEMU, many times slower), or auto,
    /// which takes the first of them that this host has
    #[arg(long, value_name = "ACCEL", default_value = "auto", value_parser = parse_accel)]
    accel: Accel,
}

impl MachineArgs {
    /// The kind of sandbox that was asked for.
    pub(crate) fn backend(&self) -> Option<Kind> {
        match (self.vm, self.wasm) {
            (true, _) => Some(Kind::Vm),
            (_, true) => Some(Kind::Wasm),
            _ => None,
        }
    }

    pub(crate) fn machine(self, disks: Vec<Disk>) -> Machine {
        let Self { kernel, rootfs, initrd, cmdline, user, hostname, net, accel, .. } = self;
        let disk_rate = DiskRate { bytes: self.disk_bps, operations: self.disk_iops };
        let net = net.and_then(|Net(tap)| tap);
        Machine { kernel, rootfs, disks, disk_rate, initrd, cmdline, user, hostname, net, accel }
    }
}

/// `--net`: nothing, or an interface.
#[derive(Clone, Debug)]
struct Net(Option<Tap>);

fn parse_net(text: &str) -> Result<Net, String> {
    if text == "none" { Ok(Net(None)) } else { text.parse().map(|tap| Net(Some(tap))) }
}

fn parse_accel(text: &str) -> Result<Accel, String> {
    text.parse()
}

/// What compiling the workload may cost.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Compilation, which the first run of a workload needs")]
pub(crate) struct CompileLimitArgs {
    /// Memory of the compiler [default: 4G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    compile_memory: Option<u64>,
    /// Processor time of the compiler [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    compile_time: Option<Duration>,
}

impl CompileLimitArgs {
    pub(crate) fn limits(&self) -> CompileLimits {
        let CompileLimits { memory, cpu_time } = CompileLimits::default();
        CompileLimits {
            memory: self.compile_memory.unwrap_or(memory),
            cpu_time: self.compile_time.unwrap_or(cpu_time),
        }
    }
}

/// Compile workloads into the cache, so that their first run is as fast as the next
#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    #[command(flatten)]
    pub(crate) limits: CompileLimitArgs,
    /// Compile for runs with --fuel
    #[arg(long)]
    pub(crate) fuel: bool,
    /// The programs
    #[arg(required = true, value_name = "WORKLOAD", value_hint = ValueHint::FilePath)]
    pub(crate) workloads: Vec<PathBuf>,
}

/// Look at and clear the cache of compiled code
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List what is cached
    Ls {
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove what has not been run for a while
    Prune {
        /// How long ago it was last run; 0s removes everything
        #[arg(long, value_name = "DURATION", default_value = "30days",
              value_parser = humantime::parse_duration)]
        older_than: Duration,
    },
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// Reads `NAME[=VALUE]`, which need not be text.
pub(crate) fn parse_env(text: OsString) -> Result<(OsString, Option<OsString>), String> {
    let bytes = text.as_bytes();
    let equals = bytes.iter().position(|b| *b == b'=');
    let name = &bytes[..equals.unwrap_or(bytes.len())];
    if name.is_empty() {
        return Err("a variable needs a name: NAME or NAME=VALUE".into());
    }
    let value = equals.map(|at| OsStr::from_bytes(&bytes[at + 1..]).to_owned());
    Ok((OsStr::from_bytes(name).to_owned(), value))
}
