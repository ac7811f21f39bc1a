//! `sbx exec`: something further in a sandbox that runs, with streams and an exit status of its own.
//!
//! In a microVM that is a process of the guest's, which its agent starts. A WebAssembly sandbox has no
//! processes: there it is another instance, of another module or another function, with the same grants,
//! volumes and limits, in a process beside the sandbox's; it ends with that. What is held by `pause` is the
//! workload, and not such an instance.

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sbx_core::route::Kind;
use sbx_core::{Command, Error, Exit, Signal, Spec};
use sbx_host::signals::Signals;
use sbx_host::terminal;
use sbx_supervisor::attach::{self, Left, Options};
use sbx_supervisor::{Config, Entry, Store, control};
use std::time::Instant;

use crate::args::sandbox::ExecArgs;
use crate::{print, run, sandbox};

/// A terminal's size, where the caller has none.
const USUAL: (u16, u16) = (80, 24);

pub(crate) fn exec(args: ExecArgs) -> Result<u8> {
    let entry = Store::open()?.find(&args.sandbox)?;
    let config = entry.config()?;
    match config.kind {
        Kind::Vm => process(&entry, args),
        Kind::Wasm => instance(&entry, config, args),
    }
}

fn not_running(entry: &Entry) -> Error {
    match entry.status() {
        Ok(status) => {
            Error::Refused(format!("cannot exec in a sandbox that is {}", status.state.name()))
        }
        Err(e) => e,
    }
}

/// A process of the guest's.
fn process(entry: &Entry, args: ExecArgs) -> Result<u8> {
    let ExecArgs { interactive, tty, env, workdir, user, invoke, sandbox: _, command } = args;
    if invoke.is_some() {
        let why =
            "--invoke calls a function of a WebAssembly module, and this sandbox is a microVM";
        return Err(Error::Refused(why.into()).into());
    }
    let command = Command {
        argv: command,
        env: run::resolve(env),
        workdir,
        user,
        stdin: interactive,
        terminal: tty.then(|| terminal::size().unwrap_or(USUAL)),
    };
    let signals = Signals::of_attached()?;
    let connection = attach::exec(entry, command)?.ok_or_else(|| not_running(entry))?;
    let options = Options { stdin: interactive, raw: interactive && tty, tty };
    match attach::run(connection, options, signals)? {
        Left::Detached => Ok(0),
        Left::Ended(end) => Ok(told(&end.exit, &end.notes)),
    }
}

fn told(exit: &Exit, notes: &[String]) -> u8 {
    for line in notes.iter().chain(&exit.message()) {
        print::sentence(line);
    }
    exit.status()
}

/// Another instance with the sandbox's grants.
fn instance(entry: &Entry, config: Config, args: ExecArgs) -> Result<u8> {
    // Before there is an instance, lest one of them end this process alone.
    let signals = Signals::of_callers()?;
    let waiting = control::await_end(entry)?.ok_or_else(|| not_running(entry))?;
    std::env::set_current_dir(&config.cwd)
        .map_err(|e| Error::host(format!("go to {}", config.cwd.display()), e))?;
    let config = Config { spec: spec(config.spec.clone(), args)?, ..config };
    let mut sandbox = sandbox::prepare(&config, false)?;
    sandbox.start()?;
    let ended = sandbox.ended()?;
    loop {
        let mut files = [
            PollFd::new(&ended, PollFlags::IN),
            PollFd::new(&waiting, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        let left = sandbox.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let _ = poll(&mut files, left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
        let is_over = !files[1].revents().is_empty();
        while let Some(received) = signals.next() {
            sandbox.kill(Signal(received.signal))?;
        }
        if let Some(exit) = sandbox.look()? {
            return Ok(told(&exit, sandbox.notes()));
        }
        if is_over {
            sandbox.kill(Signal::KILL)?;
            sandbox.wait()?;
            return Ok(told(&Exit::Signal(Signal::KILL.0), &["the sandbox has ended".into()]));
        }
    }
}

/// What the instance is: what was asked for, and all else as the sandbox's workload.
fn spec(like: Spec, args: ExecArgs) -> sbx_core::Result<Spec> {
    let ExecArgs { interactive, tty, env, workdir, user, invoke, sandbox: _, mut command } = args;
    if user.is_some() {
        let why = "--user is of a guest's users, and a WebAssembly sandbox knows none";
        return Err(Error::Refused(why.into()));
    }
    let workload = match (&invoke, command.is_empty()) {
        // Another function of the same module.
        (Some(_), _) => like.workload,
        (None, false) => command.remove(0).into(),
        (None, true) => {
            let why = "name a module, or a function of the sandbox's own with --invoke";
            return Err(Error::Refused(why.into()));
        }
    };
    let mut variables = like.env;
    for (name, value) in run::resolve(env) {
        variables.retain(|(old, _)| *old != name);
        variables.push((name, value));
    }
    let workdir = workdir.or(like.workdir);
    let (stdin, args, env) = (interactive, command, variables);
    Ok(Spec { workload, args, env, workdir, invoke, stdin, tty, ..like })
}
