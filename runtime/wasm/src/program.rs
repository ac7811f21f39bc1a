//! From a file to machine code that is mapped and ready: by the cache, or by compiling.

use sbx_core::{Error, Result};
use sbx_host::cache::{Cache, Key};
use sbx_host::workload;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use crate::compile::{self, CompileLimits, Progress, Source};
use crate::engine::{self, Variant};
use crate::form::Form;
use crate::preview1;

/// The cache's words for what wasmtime makes.
const MODULE: &str = "module";
const COMPONENT: &str = "component";
const KINDS: &[&str] = &[MODULE, COMPONENT];

/// A program's machine code.
pub(crate) enum Program {
    Module(Module),
    Component(Component),
}

/// Where the code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the cache.
    Cache,
    /// It was compiled just now.
    Compiled,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cache => "in the cache",
            Self::Compiled => "compiled just now",
        })
    }
}

/// Makes sure that the cache holds the program in the file at `path`, for runs with `fuel` or
/// without.
///
/// # Errors
/// When there is no such program, or no cache to put it into.
pub fn warm(
    path: &Path,
    fuel: bool,
    limits: &CompileLimits,
    progress: &dyn Progress,
) -> Result<Origin> {
    Cache::open()?;
    Ok(load(path, Variant { fuel }, &Compiler { limits, progress })?.1)
}

/// What compiles, and who is shown.
pub(crate) struct Compiler<'a> {
    pub(crate) limits: &'a CompileLimits,
    pub(crate) progress: &'a dyn Progress,
}

/// Makes the program in the file at `path` ready.
///
/// # Errors
/// When there is no such file, or it is not a program that sbx runs.
pub(crate) fn load(
    path: &Path,
    variant: Variant,
    compiler: &Compiler<'_>,
) -> Result<(Program, Origin)> {
    let (file, meta) = workload::open(path)?;
    let engine = engine::runner(variant)?;
    // Without a cache sbx works as well, only slower.
    let cache = Cache::open().ok();
    let file_key = Key::of_file(&meta, variant.name());
    let hit = |key: &Key| map(&engine, cache.as_ref()?.find(key, KINDS)?);
    if let Some(program) = file_key.as_ref().and_then(hit) {
        return Ok((program, Origin::Cache));
    }
    let bytes = workload::read(&file, path)?;
    let source = Source { path, bytes: &bytes, form: Form::of(&bytes, path)? };
    let key = Key::of_bytes(&bytes, variant.name());
    let found = match hit(&key) {
        Some(program) => (program, Origin::Cache),
        None => {
            // Whoever comes second finds what the first has compiled.
            let lock = cache.as_ref().and_then(|cache| cache.lock(&key).ok());
            match lock.as_ref().and_then(|_| hit(&key)) {
                Some(program) => (program, Origin::Cache),
                None => {
                    let code = make(&engine, &source, variant, compiler, cache.as_ref(), &key)?;
                    (code, Origin::Compiled)
                }
            }
        }
    };
    if let (Some(cache), Some(file_key)) = (&cache, &file_key) {
        // The next start reads and hashes the file again if this fails.
        let _ = cache.alias(file_key, &key);
    }
    Ok(found)
}

/// Compiles, into the cache if there is one.
fn make(
    engine: &Engine,
    source: &Source<'_>,
    variant: Variant,
    compiler: &Compiler<'_>,
    cache: Option<&Cache>,
    key: &Key,
) -> Result<Program> {
    if source.form == Form::Module {
        preview1::check_imports(engine, source.bytes)?;
    }
    let compile = |out: &File| {
        compile::compile(source, variant, compiler.limits, compiler.progress, out)?;
        kind_of(out)
    };
    let lost = || Error::Refused("the code that was just compiled cannot be loaded".into());
    if let Some((cache, draft)) = cache.and_then(|c| c.draft(key).ok().map(|draft| (c, draft))) {
        let kind = compile(&draft.file)?;
        if cache.publish(key, kind, &draft).is_ok() {
            // A cache on a file system that forbids execution is of no use; memory is next.
            if let Some(program) = cache.find(key, KINDS).and_then(|found| map(engine, found)) {
                return Ok(program);
            }
        }
    }
    let memory = rustix::fs::memfd_create("sbx-code", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| Error::host("hold compiled code in memory", e))?;
    let file = File::from(memory);
    let kind = compile(&file)?;
    map(engine, (kind, file)).ok_or_else(lost)
}

fn kind_of(code: &File) -> Result<&'static str> {
    match Engine::detect_precompiled_file(path_of(code)) {
        Ok(Some(Precompiled::Component)) => Ok(COMPONENT),
        Ok(Some(Precompiled::Module)) => Ok(MODULE),
        _ => Err(Error::Refused("the compiler wrote no code".into())),
    }
}

/// Maps code; nothing if this engine did not make it.
#[allow(unsafe_code, reason = "running machine code from a file cannot be made safe by types")]
fn map(engine: &Engine, (kind, file): (&str, File)) -> Option<Program> {
    // SAFETY: the file was written by sbx's own compiler process and has been neither written to nor
    // replaced since: it lies in a directory that only this user can enter and has the identity that
    // it had when it was put there (`Cache::find`), or it is an unnamed file that only this process
    // has. Code from an image or from a user's file never comes here.
    let module = |file| unsafe { Module::deserialize_open_file(engine, file) };
    // SAFETY: as above; the path names the open file, not a name that could be replaced.
    let component = |path: String| unsafe { Component::deserialize_file(engine, path) };
    if kind == MODULE {
        module(file).map(Program::Module).ok()
    } else {
        component(path_of(&file)).map(Program::Component).ok()
    }
}

/// A path that names an open file.
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
