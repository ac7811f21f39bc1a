//! `sbx run`: one workload in the foreground, from its flags to its exit status.

use anyhow::{Context, Result};
use sbx_core::policy::Policy;
use sbx_core::route::{HEAD, Kind, route};
use sbx_core::{Lifecycle, Spec};
use sbx_host::workload;
use sbx_supervisor::{Restart, Store};
use sbx_vmm::VmBackend;
use sbx_wasm::WasmBackend;
use std::ffi::OsString;
use std::path::Path;

use crate::args::sandbox::KeepArgs;
use crate::args::{GrantArgs, RunArgs, parse_env};
use crate::progress::Spinner;
use crate::sandbox::Asked;
use crate::{attach, print, sandbox};

pub(crate) fn run(args: RunArgs) -> Result<u8> {
    let (explain, quiet) = (args.explain, args.quiet);
    if !explain && (args.detach || is_kept(&args.keep)) {
        return kept(args);
    }
    let wasm =
        WasmBackend { compile: args.compile.limits(), progress: Box::new(Spinner::new(quiet)) };
    let Asked { spec, .. } = asked(args)?;
    let mut room = [0; HEAD];
    let route = route(&spec, workload::head(&spec.workload, &mut room));
    if explain {
        print::answer(match route.kind {
            Kind::Wasm => sbx_wasm::explain::explain(&wasm, &spec)?,
            Kind::Vm => sbx_vmm::explain(&spec, &route.why)?,
        })?;
        return Ok(0);
    }
    let mut sandbox = match route.kind {
        Kind::Wasm => Lifecycle::create(&wasm, &spec)?,
        Kind::Vm => {
            let notice = (!quiet).then_some(notice as fn(&str));
            Lifecycle::create(&VmBackend { times: times(), notice }, &spec)?
        }
    };
    sandbox.start()?;
    let exit = sandbox.wait()?;
    for line in sandbox.notes().iter().chain(&exit.message()) {
        print::sentence(line);
    }
    Ok(exit.status())
}

/// Runs it as a sandbox that is kept: in the background, or with the caller attached.
fn kept(args: RunArgs) -> Result<u8> {
    let (detach, quiet) = (args.detach, args.quiet);
    let asked = asked(args)?;
    let store = Store::open()?;
    let (entry, lock, mut cidfile) = sandbox::keep(&store, asked, quiet)?;
    let begun = if detach {
        sandbox::start(&store, &entry, lock, quiet).map(|()| None).map_err(anyhow::Error::from)
    } else {
        attach::start(&store, &entry, lock, (true, quiet)).map(Some)
    };
    // One that never began is as if it had not been asked for.
    let never = begun.is_err() && entry.status().is_ok_and(|status| status.started.is_none());
    cidfile.iter_mut().filter(|_| !never).for_each(sandbox::CidFile::stay);
    match begun {
        Ok(Some(status)) => Ok(status),
        Ok(None) => {
            print::answer(format_args!("{}\n", entry.id()))?;
            Ok(0)
        }
        Err(e) => {
            if let (true, Ok(Some(lock))) = (never, entry.lock()) {
                store.remove(&entry, lock)?;
            }
            Err(e)
        }
    }
}

/// Whether anything is to be kept of a sandbox in the foreground. `--rm` asks for just the opposite.
fn is_kept(keep: &KeepArgs) -> bool {
    let KeepArgs { name, labels, rm: _, cidfile, restart, log_size } = keep;
    name.is_some()
        || !labels.is_empty()
        || cidfile.is_some()
        || *restart != Restart::No
        || log_size.is_some()
}

fn notice(text: &str) {
    print::sentence(text);
}

/// Whether a microVM is to tell the times of its start.
fn times() -> bool {
    std::env::var_os("SBX_TIMES").is_some_and(|value| value == "1")
}

/// What was asked for, of flags and a policy.
pub(crate) fn asked(args: RunArgs) -> Result<Asked> {
    let RunArgs { grants, limits, machine, compile, invoke, mut command, keep, .. } = args;
    let file = grants.policy.as_deref().map(Policy::read).transpose()?.unwrap_or_default();
    let backend = machine.backend();
    let machine = machine.machine(limits.images());
    let flags = Policy { limits: limits.limits(), machine, ..policy(grants)? };
    let workload = command.remove(0).into();
    let mut spec = Spec { workload, backend, invoke, ..Spec::default() };
    spec.args = command;
    file.overlay(flags).apply(&mut spec)?;
    Ok(Asked { spec, keep, compile: compile.limits() })
}

fn policy(grants: GrantArgs) -> Result<Policy> {
    let GrantArgs {
        volumes,
        env,
        env_files,
        workdir,
        allow_net,
        listen,
        interactive,
        tty,
        policy: _,
    } = grants;
    let mut variables = Vec::new();
    for file in &env_files {
        variables.extend(read_env_file(file)?);
    }
    variables.extend(env);
    Ok(Policy {
        volumes,
        env: resolve(variables),
        workdir,
        allow_net,
        listen,
        stdin: interactive,
        tty,
        ..Policy::default()
    })
}

type Variable = (OsString, Option<OsString>);

/// Reads docker's form: a variable a line, `#` starts a comment line.
fn read_env_file(path: &Path) -> Result<Vec<Variable>> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the variables in {name}"))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| (i, line.trim_start()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(i, line)| {
            parse_env(line.into()).map_err(|e| anyhow::anyhow!("{name}, line {}: {e}", i + 1))
        })
        .collect()
}

/// Takes the values of variables that are passed on; the last word on each name counts.
pub(crate) fn resolve(variables: Vec<Variable>) -> Vec<(OsString, OsString)> {
    let mut resolved: Vec<(OsString, OsString)> = Vec::new();
    for (name, value) in variables {
        let Some(value) = value.or_else(|| std::env::var_os(&name)) else { continue };
        match resolved.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => resolved.push((name, value)),
        }
    }
    resolved
}
