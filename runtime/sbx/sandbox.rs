//! What the verbs for kept sandboxes share: how one is made, found, started, and asked.

use anyhow::Result;
use sbx_core::machine::Accel;
use sbx_core::route::{HEAD, Kind, route};
use sbx_core::{Error, Lifecycle, Spec};
use sbx_host::workload;
use sbx_supervisor::control::{self, Reply, Request};
use sbx_supervisor::record::VERSION;
use sbx_supervisor::{Config, Entry, Lock, Store, Time, log, supervisor};
use sbx_vmm::VmBackend;
use sbx_vmm::accel::Accelerator;
use sbx_wasm::{CompileLimits, WasmBackend};
use std::io::Write;

use crate::args::sandbox::KeepArgs;
use crate::print;
use crate::progress::Spinner;

/// What holds the workload of `spec`.
pub(crate) fn kind_of(spec: &Spec) -> Kind {
    let mut room = [0; HEAD];
    route(spec, workload::head(&spec.workload, &mut room)).kind
}

/// Prepares a sandbox, as for a run in the foreground.
pub(crate) fn prepare(config: &Config) -> sbx_core::Result<Lifecycle> {
    let (spec, progress) = (&config.spec, Box::new(Spinner::default()));
    match config.kind {
        Kind::Wasm => {
            Lifecycle::create(&WasmBackend { compile: CompileLimits::default(), progress }, spec)
        }
        Kind::Vm => Lifecycle::create(&VmBackend::default(), spec),
    }
}

/// Makes a sandbox of what was asked, and holds its lock.
pub(crate) fn keep(store: &Store, mut spec: Spec, keep: KeepArgs) -> Result<(Entry, Lock)> {
    let KeepArgs { name, labels, rm, cidfile, restart, log_size } = keep;
    let kind = kind_of(&spec);
    let mut accelerator = None;
    if kind == Kind::Vm {
        let found = Accelerator::find(spec.machine.accel)?;
        accelerator = Some(found.name().to_owned());
        // What is shown of it stays true.
        spec.machine.accel = if found.name() == "tcg" { Accel::Tcg } else { Accel::Kvm };
    }
    let cwd = std::env::current_dir().map_err(|e| Error::host("find the current directory", e))?;
    let mut config = Config {
        version: VERSION,
        id: String::new(),
        name: name.unwrap_or_default(),
        labels: labels.into_iter().collect(),
        created: Time::now(),
        kind,
        accelerator,
        spec,
        cwd,
        restart,
        remove: rm,
        log_size: log_size.unwrap_or(log::SIZE),
    };
    // Before there is a sandbox that nobody would know of.
    let cidfile = cidfile.map(|path| {
        let file = std::fs::File::create_new(&path);
        file.map_err(|e| Error::host(format!("make the new file {}", path.display()), e))
    });
    let cidfile = cidfile.transpose()?;
    let (entry, lock) = store.create(&mut config)?;
    if let Some(mut file) = cidfile {
        let written = write!(file, "{}", entry.id());
        written.map_err(|e| Error::host("write the identification to its file", e))?;
    }
    Ok((entry, lock))
}

/// Starts a sandbox whose lock is held.
pub(crate) fn start(store: &Store, entry: &Entry, lock: Lock) -> sbx_core::Result<()> {
    supervisor::start(store, entry, lock, &prepare)
}

/// Asks a sandbox that has to run for it.
pub(crate) fn ask(entry: &Entry, request: &Request, verb: &str) -> sbx_core::Result<Reply> {
    match control::ask(entry, request)? {
        Some(reply) => Ok(reply),
        None => {
            let state = entry.status()?.state.name();
            Err(Error::Refused(format!("cannot {verb} a sandbox that is {state}")))
        }
    }
}

/// Does something to each sandbox, and prints what comes of it; goes on behind one that it cannot be done
/// to. The exit status.
pub(crate) fn each(
    names: &[String],
    mut act: impl FnMut(&Store, &Entry) -> sbx_core::Result<Option<String>>,
) -> Result<u8> {
    let store = Store::open()?;
    let mut status = 0;
    for name in names {
        let done = store.find(name).and_then(|entry| act(&store, &entry));
        match done {
            Ok(said) => print::answer(said.unwrap_or_else(|| name.clone()) + "\n")?,
            Err(e) => {
                print::sentence(format_args!("{name}: {e}"));
                status = 1;
            }
        }
    }
    Ok(status)
}
