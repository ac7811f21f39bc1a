//! [`sbx_core::Backend`] for WebAssembly: prepares in sbx's process, runs in a child.
//!
//! `create` does all that can fail by the user's doing: it loads and links the program and opens the
//! volumes. `start` forks, and the child instantiates and runs. The child has one thread and no way
//! back; what it can still tell goes through its exit status and report.

use sbx_core::{
    Backend, Command, Ending, Error, Exit, Result, Sandbox, Signal, Spec, Waited, limits::Limits,
};
use sbx_host::{Cgroup, Process, ProcessLimits, landlock, process};
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{InstancePre, Store, Trap};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

use crate::compile::{CompileLimits, Progress};
use crate::engine::Variant;
use crate::invoke::Unprinted;
use crate::memory::MemoryBudget;
use crate::network::NetworkRules;
use crate::notes::Notes;
use crate::program::{self, Compiler, Program};
use crate::seccomp::{self, Guest};
use crate::stdio::{Input, Output, OutputSpent};
use crate::volumes::{self, Open};
use crate::{invoke, preview1, preview2};
use sbx_core::quota::Quota;

/// A WebAssembly page, in bytes.
const PAGE: u64 = 65_536;

/// Runs WASI programs.
pub struct WasmBackend {
    /// What compiling a workload may cost.
    pub compile: CompileLimits,
    /// Who is shown that a compilation takes long.
    pub progress: Box<dyn Progress>,
}

impl Backend for WasmBackend {
    fn create(&self, spec: &Spec) -> Result<Box<dyn Sandbox>> {
        if let Some(flag) = spec.machine.named().first() {
            return Err(Error::Refused(format!(
                "{flag} is about a machine, and a WASI program runs without one; leave it out"
            )));
        }
        let cgroup = enforceable(&spec.limits)?;
        let texts = Texts::of(spec)?;
        let volumes = volumes::open(spec)?;
        let compiler = Compiler { limits: &self.compile, progress: &*self.progress };
        let (program, _) = program::load(&spec.workload, variant(&spec.limits), &compiler)?;
        let linked = Linked::new(program, spec)?;
        let prepared = Prepared { linked, spec: spec.clone(), texts, volumes };
        Ok(Box::new(WasmSandbox { prepared: Some(prepared), cgroup, process: None }))
    }
}

pub(crate) fn variant(limits: &Limits) -> Variant {
    Variant { fuel: limits.fuel.is_some() }
}

/// Says what is done with each limit; makes the control group, if one is needed.
fn enforceable(limits: &Limits) -> Result<Option<Cgroup>> {
    let Limits {
        memory: _,   // MemoryBudget
        timeout: _,  // the core's clock
        cpu_time: _, // the kernel's, on the child
        cpus,
        pids,
        fds: _,    // RLIMIT_NOFILE on the child
        output: _, // stdio
        disk: _,   // Quota
        fuel: _,   // the engine's
    } = limits;
    if *pids == Some(0) {
        return Err(Error::Refused("--pids 0 leaves no process to run the workload in".into()));
    }
    // A WASI program is one thread, and cannot make another: it never holds more than one pid, and
    // never uses more than one processor. Only a part of one has to be measured out.
    cpus.filter(|cpus| *cpus < 1000).map(Cgroup::with_cpus).transpose()
}

/// Arguments and environment as WASI has them: text.
#[derive(Debug)]
struct Texts {
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Texts {
    fn of(spec: &Spec) -> Result<Self> {
        let text = |what: String, value: &OsString| {
            let value = value.to_str().ok_or_else(|| {
                Error::Refused(format!("{what} is not valid UTF-8, which WASI programs need"))
            })?;
            Ok(value.to_owned())
        };
        let mut args = vec![name_of(spec)];
        for (i, arg) in spec.args.iter().enumerate() {
            args.push(text(format!("argument {}", i + 1), arg)?);
        }
        let mut env = Vec::new();
        for (key, value) in &spec.env {
            let name = key.to_string_lossy();
            let key = text(format!("the name of the variable {name}"), key)?;
            env.push((key, text(format!("the value of the variable {name}"), value)?));
        }
        let tell = |env: &mut Vec<(String, String)>, key: &str, value: String| {
            if env.iter().all(|(k, _)| k != key) {
                env.push((key.into(), value));
            }
        };
        if let Some(dir) = &spec.workdir {
            tell(&mut env, "PWD", dir.clone());
        }
        // WASI has no call that asks a terminal for its size; these variables are how programs
        // learn it otherwise.
        if let Some((columns, lines)) = spec.tty.then(sbx_host::terminal::size).flatten() {
            tell(&mut env, "COLUMNS", columns.to_string());
            tell(&mut env, "LINES", lines.to_string());
        }
        Ok(Self { args, env })
    }
}

/// `argv[0]`: the workload's file name, which is all of its path that the workload needs to know.
fn name_of(spec: &Spec) -> String {
    spec.workload.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A program with its imports resolved.
enum Linked {
    Module(InstancePre<preview1::State>),
    Component(CommandPre<preview2::State>),
}

impl Linked {
    fn new(program: Program, spec: &Spec) -> Result<Self> {
        match program {
            Program::Module(module) => {
                preview1::check(spec)?;
                invoke::check(&module, spec)?;
                fits(module.resources_required().max_initial_memory_size, spec)?;
                preview1::link(&module).map(Self::Module)
            }
            Program::Component(component) => {
                if spec.invoke.is_some() {
                    return Err(Error::Refused(
                        "--invoke calls functions of core modules, and this is a component".into(),
                    ));
                }
                let needs = component.resources_required();
                fits(needs.and_then(|n| n.max_initial_memory_size), spec)?;
                preview2::link(&component).map(Self::Component)
            }
        }
    }
}

/// Refuses a program whose largest memory, of `pages`, is over the limit from the start.
fn fits(pages: Option<u64>, spec: &Spec) -> Result<()> {
    let needed = pages.map(|pages| pages.saturating_mul(PAGE));
    match (needed, spec.limits.memory) {
        (Some(needed), Some(limit)) if needed > limit => {
            let (needed, limit) =
                (sbx_core::units::format_size(needed), sbx_core::units::format_size(limit));
            Err(Error::NotRunnable(format!(
                "the workload needs {needed} of memory to start, and --memory is {limit}"
            )))
        }
        _ => Ok(()),
    }
}

/// All that the child needs.
struct Prepared {
    linked: Linked,
    spec: Spec,
    texts: Texts,
    volumes: Vec<Open>,
}

struct WasmSandbox {
    prepared: Option<Prepared>,
    cgroup: Option<Cgroup>,
    process: Option<Process>,
}

impl WasmSandbox {
    fn running(&self) -> Result<&Process> {
        self.process.as_ref().ok_or_else(none)
    }
}

fn none() -> Error {
    Error::Refused("the sandbox has no process".into())
}

impl Sandbox for WasmSandbox {
    fn start(&mut self, private: &[BorrowedFd<'_>]) -> Result<()> {
        let prepared = self
            .prepared
            .take()
            .ok_or_else(|| Error::Refused("the sandbox has been started already".into()))?;
        let limits = ProcessLimits { cpu_time: prepared.spec.limits.cpu_time, data: None };
        let run = || prepared.run();
        self.process = Some(Process::spawn(&limits, self.cgroup.take(), private, run)?);
        Ok(())
    }

    fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn ended(&self) -> Result<OwnedFd> {
        self.running()?.ended()
    }

    fn exec(&mut self, _command: &Command, _connection: UnixStream) -> Result<()> {
        Err(Error::Refused(
            "a WebAssembly sandbox has no processes; what is to run beside its program is another \
             instance"
                .into(),
        ))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)
    }

    fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn wait(&mut self, until: Option<Instant>) -> Result<Waited> {
        self.process.as_mut().ok_or_else(none)?.wait(until)
    }
}

impl Prepared {
    /// Runs the workload to its end; the child's whole work.
    fn run(self) -> Ending {
        let notes = Notes::default();
        let exit = match &self.linked {
            Linked::Module(module) => self.run_module(module, &notes),
            Linked::Component(component) => self.run_component(component, &notes),
        };
        Ending { exit: exit.unwrap_or_else(Exit::Failed), notes: notes.take() }
    }

    fn run_module(
        &self,
        module: &InstancePre<preview1::State>,
        notes: &Notes,
    ) -> std::result::Result<Exit, String> {
        let limits = &self.spec.limits;
        let read_only = |v: &Open| v.read_only.then(|| v.guest.clone());
        let state = preview1::State {
            wasi: self.wasi()?.build_p1(),
            memory: MemoryBudget::new(limits.memory),
            quota: Quota::new(limits.disk),
            notes: notes.clone(),
            read_only: self.volumes.iter().map(read_only).collect(),
            stdio_moved: false,
            reactor: None,
        };
        let mut store = Store::new(module.module().engine(), state);
        store.limiter(|state| &mut state.memory);
        self.fuel(&mut store)?;
        if limits.fds.is_some() {
            // What sbx itself may still open must not come out of the workload's share.
            store.data_mut().reactor = Some(preview1::reactor().map_err(|e| e.to_string())?);
        }
        self.confine().map_err(|e| e.to_string())?;
        let called = module
            .instantiate(&mut store)
            .and_then(|instance| invoke::call(&mut store, &instance, &self.spec));
        let exit = self.exit(called, store.data().memory.refused(), notes);
        // The process ends next: what the store has mapped goes with it.
        std::mem::forget(store);
        Ok(exit)
    }

    fn run_component(
        &self,
        component: &CommandPre<preview2::State>,
        notes: &Notes,
    ) -> std::result::Result<Exit, String> {
        let limits = &self.spec.limits;
        let network = NetworkRules::new(&self.spec, notes.clone());
        let mut wasi = self.wasi()?;
        network.install(&mut wasi);
        let state = preview2::State {
            wasi: wasi.build(),
            table: ResourceTable::new(),
            memory: MemoryBudget::new(limits.memory),
            quota: Quota::new(limits.disk),
            notes: notes.clone(),
            network,
        };
        let mut store = Store::new(component.engine(), state);
        store.limiter(|state| &mut state.memory);
        self.fuel(&mut store)?;
        let reactor = preview1::reactor().map_err(|e| e.to_string())?;
        self.confine().map_err(|e| e.to_string())?;
        let called = reactor.block_on(async {
            let command = component.instantiate_async(&mut store).await?;
            let answer = command.wasi_cli_run().call_run(&mut store).await?;
            answer.map_err(|()| I32Exit(1).into())
        });
        let exit = self.exit(called, store.data().memory.refused(), notes);
        // The process ends next: what the store has mapped goes with it.
        std::mem::forget(store);
        Ok(exit)
    }

    /// What both previews grant alike.
    fn wasi(&self) -> std::result::Result<WasiCtxBuilder, String> {
        let Spec { stdin, tty, limits, workdir, .. } = &self.spec;
        let mut wasi = WasiCtxBuilder::new();
        let (stdout, stderr) = Output::both(*tty, limits.output);
        wasi.stdout(stdout).stderr(stderr);
        if *stdin {
            wasi.stdin(Input::new(*tty));
        }
        wasi.args(&self.texts.args).envs(&self.texts.env);
        if let Some(dir) = workdir {
            wasi.initial_cwd(dir);
        }
        // The sandbox is alone in its process: it may wait for its own files.
        wasi.allow_blocking_current_thread(true);
        volumes::preopen(&self.volumes, &mut wasi)
            .map_err(|e| format!("a volume cannot be shared: {e}"))?;
        Ok(wasi)
    }

    /// Has the kernel enforce the grants too, now that all is open that sbx itself needs.
    fn confine(&self) -> Result<()> {
        // Counted before /proc is out of reach, limited when landlock has closed its own files.
        let fds = self.spec.limits.fds;
        let end = fds.map(|fds| Ok(process::files_end()?.saturating_add(fds))).transpose()?;
        let network = !self.spec.allow_net.is_empty() || !self.spec.listen.is_empty();
        landlock::confine(volumes::reachable(&self.volumes), network)?;
        end.map_or(Ok(()), process::limit_files)?;
        let component = matches!(self.linked, Linked::Component(_));
        seccomp::confine(Guest { component, network })
    }

    fn fuel<T>(&self, store: &mut Store<T>) -> std::result::Result<(), String> {
        self.spec.limits.fuel.map_or(Ok(()), |fuel| store.set_fuel(fuel)).map_err(|e| e.to_string())
    }

    /// What the end of a call into the guest means.
    fn exit(
        &self,
        called: wasmtime::Result<()>,
        refused_memory: Option<u64>,
        notes: &Notes,
    ) -> Exit {
        let Err(error) = called else { return Exit::Code(0) };
        let Limits { output, fuel, .. } = self.spec.limits;
        if let Some(I32Exit(code)) = error.downcast_ref() {
            if let (Some(limit), 1..) = (refused_memory, *code as u8) {
                let limit = sbx_core::units::format_size(limit);
                notes
                    .add(format!("the workload was refused memory beyond its --memory of {limit}"));
            }
            return Exit::Code(*code as u8);
        }
        if let Some(unprinted) = error.downcast_ref::<Unprinted>() {
            return Exit::Failed(unprinted.to_string());
        }
        if error.downcast_ref::<OutputSpent>().is_some() {
            return Exit::Output(output.unwrap_or_default());
        }
        match (error.downcast_ref::<Trap>(), refused_memory) {
            (Some(Trap::OutOfFuel), _) => Exit::Fuel(fuel.unwrap_or_default()),
            (_, Some(limit)) => Exit::OutOfMemory(limit),
            (Some(trap), _) => Exit::Trap(trap.to_string().replace("wasm trap: ", "")),
            (None, _) => Exit::Trap(error.root_cause().to_string().replace('\n', " ")),
        }
    }
}
