//! `sbx`: runs a workload in the lightest sandbox that can hold it.
//!
//! This file only finds the subcommand; each has a file of its own, and [`args`] has the flags of
//! them all.

#![no_main]

mod args;
mod attach;
mod cache;
mod compile;
mod completions;
mod create;
mod doctor;
mod events;
mod exec;
mod inspect;
mod kill;
mod logs;
mod man;
mod metrics;
mod pause;
mod print;
mod progress;
mod ps;
mod rename;
mod rm;
mod run;
mod sandbox;
mod start;
mod stats;
mod stop;
mod top;
mod wait;

use args::sandbox::Verb;
use args::{Cli, Command, RunArgs};
use clap::Parser;
use std::ffi::{OsString, c_char, c_int};

/// The C library's entry point. Rust's own first reads the stack's bounds from /proc and installs
/// signal handlers: 15 system calls that sbx does not need, since a guest's stack overflow is
/// wasmtime's to catch and a closed pipe's signal may end sbx.
#[allow(unsafe_code, reason = "the C library finds the function by its name")]
// SAFETY: no other function of this program is called main.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    sbx()
}

fn sbx() -> ! {
    sbx_host::process::own_files();
    std::panic::set_hook(Box::new(|panic| {
        // A defect of sbx's own: one line, and enough in it to report.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        print::sentence(format_args!("internal error at {place}; please report this"));
        sbx_host::process::exit_now(125);
    }));
    let args: Vec<OsString> = std::env::args_os().collect();
    let outcome = if args.get(1).is_some_and(|word| word == "run") {
        // The path that cold start depends on: what other subcommands parse is not built.
        RunArgs::read(&args[1..]).map(run::run)
    } else {
        Cli::try_parse_from(&args).map(dispatch)
    };
    let status = match outcome {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            print::sentence(words(&error));
            error.downcast_ref::<sbx_core::Error>().map_or(125, sbx_core::Error::status)
        }
        Err(usage) => {
            let _ = usage.print();
            if usage.use_stderr() { 125 } else { 0 }
        }
    };
    sbx_host::process::exit_now(status)
}

/// An error and what is behind it, as one sentence. One of sbx's own has the words of its cause in its own.
fn words(error: &anyhow::Error) -> String {
    let mut words = Vec::new();
    for cause in error.chain() {
        words.push(cause.to_string());
        if cause.is::<sbx_core::Error>() {
            break;
        }
    }
    words.join(": ")
}

fn sandbox(verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Create(args) => create::create(args.run),
        Verb::Start(args) => start::start(&args),
        Verb::Ps(args) => ps::ps(&args),
        Verb::Logs(args) => logs::logs(&args),
        Verb::Attach(args) => attach::attach(&args),
        Verb::Exec(args) => exec::exec(*args),
        Verb::Stop(args) => stop::stop(&args),
        Verb::Kill(args) => kill::kill(&args),
        Verb::Pause(args) => pause::pause(&args),
        Verb::Resume(args) => pause::resume(&args),
        Verb::Wait(args) => wait::wait(&args),
        Verb::Rm(args) => rm::rm(&args),
        Verb::Inspect(args) => inspect::inspect(&args),
        Verb::Stats(args) => stats::stats(&args),
        Verb::Top(args) => top::top(&args),
        Verb::Events(args) => events::events(&args),
        Verb::Metrics => metrics::metrics(),
        Verb::Rename { sandbox, name } => rename::rename(&sandbox, &name),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Sandbox(verb) => sandbox(verb),
        Command::Doctor { format } => doctor::doctor(format),
        Command::Compile(args) => compile::compile(&args),
        Command::Cache(command) => cache::cache(command),
        Command::Completions { shell } => completions::completions(shell),
        Command::Man { dir } => man::man(&dir),
    }
}
