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
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::args::sandbox::KeepArgs;
use crate::print;
use crate::progress::Spinner;

/// How long a supervisor may take to be there or gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What holds the workload of `spec`.
pub(crate) fn kind_of(spec: &Spec) -> Kind {
    let mut room = [0; HEAD];
    route(spec, workload::head(&spec.workload, &mut room)).kind
}

/// What holds a sandbox, for people: `wasm`, or `vm` with what executes it.
pub(crate) fn backend(config: &Config) -> String {
    match (config.kind, &config.accelerator) {
        (Kind::Wasm, _) => "wasm".into(),
        (Kind::Vm, Some(accelerator)) => format!("vm ({accelerator})"),
        (Kind::Vm, None) => "vm".into(),
    }
}

/// Prepares a sandbox, as for a run in the foreground.
pub(crate) fn prepare(config: &Config, quiet: bool) -> sbx_core::Result<Lifecycle> {
    let Config { spec, compile_memory: memory, compile_time: cpu_time, .. } = config;
    match config.kind {
        Kind::Wasm => {
            let compile = CompileLimits { memory: *memory, cpu_time: *cpu_time };
            let progress = Box::new(Spinner::new(quiet));
            Lifecycle::create(&WasmBackend { compile, progress }, spec)
        }
        Kind::Vm => Lifecycle::create(&VmBackend::default(), spec),
    }
}

/// What was asked of a sandbox.
pub(crate) struct Asked {
    pub(crate) spec: Spec,
    pub(crate) keep: KeepArgs,
    pub(crate) compile: CompileLimits,
}

/// A sandbox, its lock, and the file that was asked for with its identification.
type Made = (Entry, Lock, Option<CidFile>);

/// Makes a sandbox of what was asked, and holds its lock.
pub(crate) fn keep(store: &Store, asked: Asked, quiet: bool) -> Result<Made> {
    let Asked { mut spec, keep, compile } = asked;
    let KeepArgs { name, labels, rm, cidfile, restart, log_size } = keep;
    let kind = kind_of(&spec);
    let mut accelerator = None;
    if kind == Kind::Vm {
        let found = Accelerator::find(spec.machine.accel)?;
        accelerator = Some(found.name().to_owned());
        if let Some(notice) = found.notice(spec.machine.accel).filter(|_| !quiet) {
            print::sentence(notice);
        }
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
        compile_memory: compile.memory,
        compile_time: compile.cpu_time,
    };
    // Before there is a sandbox that nobody would know of.
    let cidfile = cidfile.map(|path| {
        let file = File::create_new(&path)
            .map_err(|e| Error::host(format!("make the new file {}", path.display()), e))?;
        Ok::<_, Error>(CidFile { path, file, stays: false })
    });
    let mut cidfile = cidfile.transpose()?;
    let (entry, lock) = store.create(&mut config)?;
    if let Some(CidFile { file, .. }) = &mut cidfile
        && let Err(e) = write!(file, "{}", entry.id())
    {
        store.remove(&entry, lock)?;
        return Err(Error::host("write the identification to its file", e).into());
    }
    Ok((entry, lock, cidfile))
}

/// A file with the identification of a sandbox; removed again if that comes to nothing, lest it stand in the
/// way of the next try.
pub(crate) struct CidFile {
    path: PathBuf,
    file: File,
    stays: bool,
}

impl CidFile {
    /// The sandbox is there.
    pub(crate) fn stay(&mut self) {
        self.stays = true;
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.stays {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Starts a sandbox whose lock is held.
pub(crate) fn start(store: &Store, entry: &Entry, lock: Lock, quiet: bool) -> sbx_core::Result<()> {
    supervisor::start(store, entry, lock, &|config| prepare(config, quiet))
}

/// Asks a sandbox; none answers if it is not alive.
pub(crate) fn try_ask(entry: &Entry, request: &Request) -> sbx_core::Result<Option<Reply>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = control::ask(entry, request)?;
        // A supervisor that was killed, or is about to listen, is a moment later known to be so.
        if reply.is_some() || !entry.status()?.state.is_alive() || Instant::now() >= deadline {
            return Ok(reply);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks a sandbox that has to run for it.
pub(crate) fn ask(entry: &Entry, request: &Request, verb: &str) -> sbx_core::Result<Reply> {
    match try_ask(entry, request)? {
        Some(reply) => Ok(reply),
        None => {
            let state = entry.status()?.state.name();
            Err(Error::Refused(format!("cannot {verb} a sandbox that is {state}")))
        }
    }
}

/// Does something with one sandbox. The exit status.
pub(crate) fn one(
    name: &str,
    act: impl FnOnce(&Store, &Entry) -> sbx_core::Result<()>,
) -> Result<u8> {
    let store = Store::open()?;
    let done = store.find(name).and_then(|entry| act(&store, &entry));
    Ok(done.map_or_else(
        |e| {
            print::sentence(e);
            1
        },
        |()| 0,
    ))
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
