//! Core modules: WASI preview 1, linked function by function.
//!
//! wasmtime-wasi implements the functions. Its own linkers define all 46 of them, as asynchronous
//! ones that need a second stack for every call into the guest, or as synchronous ones that start a
//! pool of threads. Here only what a module imports is defined, synchronously: nearly every future
//! below is ready when it is first polled, since files may block this thread and the standard
//! streams are ours. `poll_oneoff` is the one that truly waits; a reactor is made for it when it is
//! first called.
//!
//! Standing between the module and the implementation is also what makes `--disk` and the notes
//! about missing grants possible.

use sbx_core::{Error, Result, Spec};
use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Runtime;
use wasmparser::{Parser, Payload};
use wasmtime::{Caller, Engine, Extern, InstancePre, Linker, Module};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as wasi, WasiSnapshotPreview1 as _};
use wiggle::GuestMemory;

use crate::memory::MemoryBudget;
use crate::notes::Notes;
use sbx_core::quota::{ENTRY, Quota};

const MODULE: &str = "wasi_snapshot_preview1";

/// The errors of preview 1 that this file gives or looks for (its `errno` type).
mod errno {
    pub(super) const IO: i32 = 29;
    pub(super) const MFILE: i32 = 33;
    pub(super) const NOSPC: i32 = 51;
    pub(super) const PERM: i32 = 63;
}

/// `oflags` of `path_open`: create the file.
const O_CREAT: i32 = 1;

/// The state of a store that runs a core module.
pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: MemoryBudget,
    pub(crate) quota: Quota,
    pub(crate) notes: Notes,
    /// For each volume in order, where it is seen if it is read-only.
    pub(crate) read_only: Vec<Option<String>>,
    /// Whether descriptors 0 to 2 may have been made to name files.
    pub(crate) stdio_moved: bool,
    pub(crate) reactor: Option<Runtime>,
}

/// Links what `module` imports.
///
/// # Errors
/// Names the first import that sbx does not provide.
pub(crate) fn link(module: &Module) -> Result<InstancePre<State>> {
    let mut linker = Linker::new(module.engine());
    provide(&mut linker, module.imports().map(|i| (i.module(), i.name())))?;
    linker.instantiate_pre(module).map_err(|e| {
        let e = e.root_cause().to_string();
        Error::NotRunnable(format!("the module's imports do not fit what sbx provides: {e}"))
    })
}

/// Refuses the module in `bytes` if it imports what sbx does not provide, before any time goes into
/// compiling it. What is not valid is the compiler's to refuse.
///
/// # Errors
/// Names the first import that sbx does not provide.
pub(crate) fn check_imports(engine: &Engine, bytes: &[u8]) -> Result<()> {
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::ImportSection(imports)) => {
                let imports = imports.into_imports().map_while(std::result::Result::ok);
                return provide(&mut Linker::new(engine), imports.map(|i| (i.module, i.name)));
            }
            // Imports stand before these two.
            Ok(Payload::FunctionSection(_) | Payload::CodeSectionStart { .. }) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Defines all that `imports` (of a module and a name each) name.
fn provide<'a>(
    linker: &mut Linker<State>,
    imports: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    // Go's linker writes one import for each place that uses it.
    let mut seen = HashSet::new();
    for (module, name) in imports {
        if !seen.insert((module, name)) {
            continue;
        }
        let known = match module {
            MODULE => define(linker, name),
            _ => Ok(false),
        };
        let known =
            known.map_err(|e| Error::NotRunnable(format!("cannot link the module: {e}")))?;
        if !known {
            return Err(unknown(module, name));
        }
    }
    Ok(())
}

fn unknown(module: &str, name: &str) -> Error {
    let (module, name) = (module.escape_debug(), name.escape_debug());
    let next = match &*module.to_string() {
        "wasi_unstable" => "it was built for WASI preview 0; build it with a newer toolchain",
        "wasi" => "it wants threads, which sbx does not give; build it without them",
        "env" => {
            "it was built for a host of its own, such as a JavaScript engine; build it for WASI"
        }
        "wasi_snapshot_preview1" => "preview 1 has no such function",
        _ => "sbx provides WASI preview 1 to core modules",
    };
    Error::NotRunnable(format!("the module imports {module}.{name}, which is unknown: {next}"))
}

/// Runs `future` to its end on this thread.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // A future that is pending here has blocked this thread as long as it had to, and asks to be
        // polled again.
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Gives `body` the guest's memory and the store's state.
fn with_memory<R>(
    caller: &mut Caller<'_, State>,
    body: impl FnOnce(&mut State, &mut GuestMemory<'_>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    let fuel = wasmtime::AsContextMut::as_context_mut(caller).hostcall_fuel();
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg("the module exports no memory for WASI to use"));
    };
    let (bytes, state) = memory.data_and_store_mut(caller);
    state.wasi.set_hostcall_fuel(fuel);
    body(state, &mut GuestMemory::Unshared(bytes))
}

/// Defines the function that is wanted, if it is among these; each has its body behind it.
macro_rules! functions {
    ($linker:ident, $wanted:ident, $state:ident, $memory:ident:
     $($name:ident($($arg:ident: $ty:ty),*) $body:expr;)*) => {
        match $wanted {
            $(stringify!($name) => {
                $linker.func_wrap(MODULE, $wanted, |mut caller: Caller<'_, State>, $($arg: $ty),*| {
                    with_memory(&mut caller, |$state, $memory| $body)
                })?;
                return Ok(true);
            })*
            _ => {}
        }
    };
}

/// Functions that are passed through as they are; `ready` ones are futures in name only.
macro_rules! pass_through {
    ($linker:ident, $wanted:ident: $($kind:ident $name:ident($($arg:ident: $ty:ty),*);)*) => {
        functions! { $linker, $wanted, state, memory: $($name($($arg: $ty),*)
            pass_through!(@$kind wasi::$name(&mut state.wasi, memory, $($arg),*));
        )* }
    };
    (@now $call:expr) => { $call };
    (@ready $call:expr) => { finish($call) };
}

/// Functions that change a volume: what each adds to it in directory entries, and the descriptor
/// whose volume it changes.
macro_rules! changing {
    ($linker:ident, $wanted:ident: $($name:ident($($arg:ident: $ty:ty),*) adds $entries:expr, in $dir:ident;)*) => {
        functions! { $linker, $wanted, state, memory: $($name($($arg: $ty),*) {
            let bytes = ENTRY * $entries;
            if state.quota.take(bytes).is_err() {
                return Ok(errno::NOSPC);
            }
            let answer = finish(wasi::$name(&mut state.wasi, memory, $($arg),*))?;
            if answer != 0 {
                state.quota.give_back(bytes);
            }
            Ok(state.explain($dir, answer))
        };)* }
    };
}

/// Defines the function `name`, and says whether there is one.
fn define(linker: &mut Linker<State>, name: &str) -> wasmtime::Result<bool> {
    pass_through! { linker, name:
        now args_get(a: i32, b: i32);
        now args_sizes_get(a: i32, b: i32);
        now environ_get(a: i32, b: i32);
        now environ_sizes_get(a: i32, b: i32);
        now clock_res_get(a: i32, b: i32);
        now clock_time_get(a: i32, b: i64, c: i32);
        ready fd_advise(a: i32, b: i64, c: i64, d: i32);
        now fd_allocate(a: i32, b: i64, c: i64);
        ready fd_datasync(a: i32);
        ready fd_fdstat_get(a: i32, b: i32);
        now fd_fdstat_set_flags(a: i32, b: i32);
        now fd_fdstat_set_rights(a: i32, b: i64, c: i64);
        ready fd_filestat_get(a: i32, b: i32);
        ready fd_pread(a: i32, b: i32, c: i32, d: i64, e: i32);
        now fd_prestat_get(a: i32, b: i32);
        now fd_prestat_dir_name(a: i32, b: i32, c: i32);
        ready fd_read(a: i32, b: i32, c: i32, d: i32);
        ready fd_readdir(a: i32, b: i32, c: i32, d: i64, e: i32);
        ready fd_seek(a: i32, b: i64, c: i32, d: i32);
        ready fd_sync(a: i32);
        now fd_tell(a: i32, b: i32);
        ready path_filestat_get(a: i32, b: i32, c: i32, d: i32, e: i32);
        ready path_readlink(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32);
        now proc_raise(a: i32);
        now sched_yield();
        now random_get(a: i32, b: i32);
        now sock_accept(a: i32, b: i32, c: i32);
        now sock_recv(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32);
        now sock_send(a: i32, b: i32, c: i32, d: i32, e: i32);
        now sock_shutdown(a: i32, b: i32);
    }
    define_changing(linker, name)
}

fn define_changing(linker: &mut Linker<State>, name: &str) -> wasmtime::Result<bool> {
    changing! { linker, name:
        fd_filestat_set_size(a: i32, b: i64) adds 0, in a;
        fd_filestat_set_times(a: i32, b: i64, c: i64, d: i32) adds 0, in a;
        path_create_directory(a: i32, b: i32, c: i32) adds 1, in a;
        path_filestat_set_times(a: i32, b: i32, c: i32, d: i32, e: i64, f: i64, g: i32) adds 0, in a;
        path_link(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32) adds 1, in e;
        path_open(a: i32, b: i32, c: i32, d: i32, e: i32, f: i64, g: i64, h: i32, i: i32)
            adds u64::from(e & O_CREAT != 0), in a;
        path_remove_directory(a: i32, b: i32, c: i32) adds 0, in a;
        path_rename(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32) adds 0, in a;
        path_symlink(a: i32, b: i32, c: i32, d: i32, e: i32) adds 1, in c;
        path_unlink_file(a: i32, b: i32, c: i32) adds 0, in a;
    }
    define_special(linker, name)
}

fn define_special(linker: &mut Linker<State>, name: &str) -> wasmtime::Result<bool> {
    functions! { linker, name, state, memory:
        fd_write(fd: i32, iovs: i32, count: i32, written: i32)
            state.write(fd, memory, (iovs, count), written, |wasi, memory| {
                finish(wasi::fd_write(wasi, memory, fd, iovs, count, written))
            });
        fd_pwrite(fd: i32, iovs: i32, count: i32, offset: i64, written: i32)
            state.write(fd, memory, (iovs, count), written, |wasi, memory| {
                finish(wasi::fd_pwrite(wasi, memory, fd, iovs, count, offset, written))
            });
        fd_close(fd: i32) {
            state.stdio_moved |= (0..=2).contains(&fd);
            finish(wasi::fd_close(&mut state.wasi, memory, fd))
        };
        fd_renumber(from: i32, to: i32) {
            state.stdio_moved |= (0..=2).contains(&to);
            finish(wasi::fd_renumber(&mut state.wasi, memory, from, to))
        };
        poll_oneoff(a: i32, b: i32, c: i32, d: i32) {
            let State { wasi, reactor: slot, .. } = state;
            let waiter = match slot.take() {
                Some(waiter) => waiter,
                None => reactor()?,
            };
            slot.insert(waiter).block_on(wasi::poll_oneoff(wasi, memory, a, b, c, d))
        };
    }
    if name != "proc_exit" {
        return Ok(false);
    }
    // wasmtime-wasi traps on a status of 126 and more; a process has 256 of them.
    linker.func_wrap(MODULE, name, |_: Caller<'_, State>, code: i32| -> wasmtime::Result<()> {
        Err(I32Exit(code).into())
    })?;
    Ok(true)
}

/// What waits for clocks and standard input. It has no threads.
pub(crate) fn reactor() -> wasmtime::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl State {
    /// Writes through `call` if the quota allows what the vectors hold.
    fn write(
        &mut self,
        fd: i32,
        memory: &mut GuestMemory<'_>,
        (iovs, count): (i32, i32),
        written: i32,
        call: impl FnOnce(&mut WasiP1Ctx, &mut GuestMemory<'_>) -> wasmtime::Result<i32>,
    ) -> wasmtime::Result<i32> {
        if self.quota.is_unlimited() || ((0..=2).contains(&fd) && !self.stdio_moved) {
            return call(&mut self.wasi, memory);
        }
        // An array that is not in memory fails in the call, and writes nothing.
        let wanted = first_length(memory, iovs, count).unwrap_or(0);
        if self.quota.take(wanted).is_err() {
            return Ok(errno::NOSPC);
        }
        let answer = call(&mut self.wasi, memory)?;
        let used =
            if answer == 0 { read_u32(memory, written).map_or(wanted, u64::from) } else { 0 };
        self.quota.give_back(wanted.saturating_sub(used));
        Ok(self.explain(fd, answer))
    }

    /// Looks at an error on its way to the guest: makes it more exact, and notes a missing grant.
    fn explain(&self, dir: i32, answer: i32) -> i32 {
        match answer {
            errno::PERM => {
                // Volumes are the first descriptors behind the standard streams.
                let volume = usize::try_from(dir - 3).ok().and_then(|i| self.read_only.get(i));
                if let Some(Some(guest)) = volume {
                    self.notes.add(format!(
                        "the workload was refused a change below {guest}, which is read-only; \
                         leave :ro out of its --volume to allow changes"
                    ));
                }
                answer
            }
            // wasmtime-wasi has no name for this one and calls it an input/output error.
            errno::IO if no_descriptor_left() => errno::MFILE,
            _ => answer,
        }
    }
}

fn no_descriptor_left() -> bool {
    matches!(
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3),
        Err(rustix::io::Errno::MFILE)
    )
}

/// The length of the first vector that is not empty in an array of `ciovec` (address and length, 32
/// bits each): wasmtime-wasi writes that one, and leaves the rest to the next call.
fn first_length(memory: &GuestMemory<'_>, iovs: i32, count: i32) -> Option<u64> {
    for i in 0..count as u32 {
        let length_at = (iovs as u32).checked_add(i.checked_mul(8)?)?.checked_add(4)?;
        match read_u32(memory, length_at as i32)? {
            0 => {}
            length => return Some(u64::from(length)),
        }
    }
    Some(0)
}

fn read_u32(memory: &GuestMemory<'_>, at: i32) -> Option<u32> {
    let GuestMemory::Unshared(bytes) = memory else { return None };
    let at = at as u32 as usize;
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// Refuses what preview 1 has no way to use.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    if spec.allow_net.is_empty() && spec.listen.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(
        "--allow-net and --listen need a component: WASI preview 1, which this core module uses, \
         has no way to open a socket; build the program for wasm32-wasip2, or leave the flags out"
            .into(),
    ))
}
