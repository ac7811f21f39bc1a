//! Compiling a workload, in a process of its own.
//!
//! A module can be made to cost the compiler any amount of time and memory, and a compiler is a large
//! thing to show a stranger's file to. So the workload is validated first, completely and cheaply,
//! and compiled in a child that the kernel holds to [`CompileLimits`]; sbx itself never runs the
//! compiler, and only learns whether the code was written.

use sbx_core::{Error, Exit, Result, Waited, units};
use sbx_host::{Process, ProcessLimits};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use wasmparser::{Parser, Validator};

use crate::engine::{self, Variant};
use crate::form::Form;

/// How often a long compilation is shown to go on.
const TICK: Duration = Duration::from_millis(100);

/// What compiling one workload may cost.
#[derive(Clone, Debug)]
pub struct CompileLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// Processor time over all cores.
    pub cpu_time: Duration,
}

impl Default for CompileLimits {
    /// Room for the largest real programs known (a 69 MB synthesis suite takes 1.9 GB and 150 s).
    fn default() -> Self {
        Self { memory: 4 << 30, cpu_time: Duration::from_secs(600) }
    }
}

/// Somebody who is shown that a compilation goes on.
pub trait Progress {
    /// It has gone on for `elapsed`.
    fn tick(&self, elapsed: Duration);
    /// It is over.
    fn done(&self);
}

/// The workload's bytes and what they are.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
    pub(crate) form: Form,
}

/// Compiles `source` into `out`.
///
/// # Errors
/// When the workload is not valid WebAssembly, or takes more than `limits`.
pub(crate) fn compile(
    source: &Source<'_>,
    variant: Variant,
    limits: &CompileLimits,
    progress: &dyn Progress,
    out: &File,
) -> Result<()> {
    let CompileLimits { memory, cpu_time } = limits;
    let held_to = ProcessLimits { data: Some(*memory), cpu_time: Some(*cpu_time) };
    let began = Instant::now();
    let mut process = Process::spawn(&held_to, None, &[], || {
        silence_stderr();
        match build(source, variant, out) {
            Ok(()) => Exit::Code(0),
            Err(why) => Exit::Failed(why),
        }
        .into()
    })?;
    let exit = loop {
        match process.wait(Some(Instant::now() + TICK))? {
            Waited::Ended(ending) => break ending.exit,
            Waited::TimedOut => progress.tick(began.elapsed()),
            Waited::Interrupted(signal) => {
                progress.done();
                return Err(Error::Interrupted(signal));
            }
        }
    };
    progress.done();
    judge(source.path, exit, limits)
}

fn judge(path: &Path, exit: Exit, limits: &CompileLimits) -> Result<()> {
    let path = path.display();
    let too_costly = |what: String, flag: &str| {
        Err(Error::NotRunnable(format!(
            "compiling {path} took more than {what}; allow it more with {flag}"
        )))
    };
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Failed(why) => Err(Error::NotRunnable(format!("{path} cannot be compiled: {why}"))),
        Exit::CpuTime(limit) => too_costly(
            format!("{} of processor time", humantime::format_duration(limit)),
            "--compile-time",
        ),
        // A Rust program that is refused memory aborts; one whose thread is refused panics.
        Exit::Signal(_) | Exit::Code(_) => too_costly(
            format!("{} of memory", units::format_size(limits.memory)),
            "--compile-memory",
        ),
        other => Err(Error::NotRunnable(format!("{path} cannot be compiled: {other:?}"))),
    }
}

/// Validates and compiles; the child's whole work. Errors are single lines.
fn build(source: &Source<'_>, variant: Variant, mut out: &File) -> std::result::Result<(), String> {
    let wasm = match source.form {
        Form::Text => wat::parse_bytes(source.bytes).map_err(|e| text_error(&e))?,
        Form::Module | Form::Component => source.bytes.into(),
    };
    let engine = engine::compiler(variant).map_err(|e| e.to_string())?;
    Validator::new_with_features(engine.get_wasm_features())
        .validate_all(&wasm)
        .map_err(|e| format!("it is not valid WebAssembly: {}", one_line(e.message())))?;
    let code = if Parser::is_component(&wasm) {
        engine.precompile_component(&wasm)
    } else {
        engine.precompile_module(&wasm)
    };
    let code = code.map_err(|e| one_line(&e.root_cause().to_string()))?;
    out.write_all(&code).map_err(|e| format!("its code cannot be stored: {e}"))
}

/// An error in text, without the drawing of the line it is in.
fn text_error(error: &wat::Error) -> String {
    let error = error.to_string();
    let mut lines = error.lines().map(str::trim);
    let what = lines.next().unwrap_or_default();
    let place = lines.next().and_then(|l| l.strip_prefix("--> <anon>:")).unwrap_or("1:1");
    format!("it is not valid WebAssembly text: {what} (line {})", place.replace(':', ", column "))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a compiler that runs out of memory prints is no sentence for users.
fn silence_stderr() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(null);
    }
}
