//! Components: WASI 0.2 commands, linked interface by interface.
//!
//! wasmtime-wasi implements the interfaces; only those that the component imports are put into the
//! linker. Two are not taken as they are: name lookup ([`crate::network`]) and the file system
//! ([`filesystem`]), which counts `--disk` and notes missing grants.

mod filesystem;

use sbx_core::{Error, Result};
use std::sync::Arc;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{CommandPre, cli, clocks, random, sockets};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_io::bindings::wasi::io;

use crate::memory::MemoryBudget;
use crate::network::{self, NetworkRules, NetworkView};
use crate::notes::Notes;
use sbx_core::quota::Quota;

/// The state of a store that runs a component.
pub(crate) struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) memory: MemoryBudget,
    pub(crate) quota: Quota,
    pub(crate) notes: Notes,
    pub(crate) network: Arc<NetworkRules>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl NetworkView for State {
    fn network(&self) -> &Arc<NetworkRules> {
        &self.network
    }
}

/// Links what `component` imports.
///
/// # Errors
/// Names the first import that sbx does not provide, or says that the component is no command.
pub(crate) fn link(component: &Component) -> Result<CommandPre<State>> {
    let mut linker = Linker::new(component.engine());
    for (name, _) in component.component_type().imports(component.engine()) {
        let known = define(&mut linker, name)
            .map_err(|e| Error::NotRunnable(format!("cannot link the component: {e}")))?;
        if !known {
            return Err(Error::NotRunnable(format!(
                "the component imports {}, which sbx does not provide; it provides the world \
                 wasi:cli/command of WASI 0.2",
                name.escape_debug()
            )));
        }
    }
    let pre = linker.instantiate_pre(component).map_err(|e| {
        let e = e.root_cause().to_string();
        Error::NotRunnable(format!("the component's imports do not fit what sbx provides: {e}"))
    })?;
    CommandPre::new(pre).map_err(|_| {
        Error::NotRunnable(
            "the component is a library: it does not export wasi:cli/run, which a program does"
                .into(),
        )
    })
}

/// The version of WASI that wasmtime-wasi's own interfaces have; a component that was built for
/// another 0.2 finds them all the same.
const LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.6";

/// Defines the interface that an import names, and says whether there is one.
fn define(l: &mut Linker<State>, import: &str) -> wasmtime::Result<bool> {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    if !version.starts_with("0.2.") {
        return Ok(false);
    }
    type S = State;
    match interface {
        "wasi:io/error" => io::error::add_to_linker::<S, HasTable>(l, |t| &mut t.table),
        "wasi:io/poll" => io::poll::add_to_linker::<S, HasTable>(l, |t| &mut t.table),
        "wasi:io/streams" => io::streams::add_to_linker::<S, HasTable>(l, |t| &mut t.table),
        "wasi:cli/environment" => cli::environment::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/exit" => cli::exit::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/stdin" => cli::stdin::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/stdout" => cli::stdout::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/stderr" => cli::stderr::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/terminal-input" => cli::terminal_input::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/terminal-output" => cli::terminal_output::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/terminal-stdin" => cli::terminal_stdin::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/terminal-stdout" => cli::terminal_stdout::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:cli/terminal-stderr" => cli::terminal_stderr::add_to_linker::<S, WasiCli>(l, S::cli),
        "wasi:clocks/wall-clock" => {
            clocks::wall_clock::add_to_linker::<S, WasiClocks>(l, S::clocks)
        }
        "wasi:clocks/monotonic-clock" => {
            clocks::monotonic_clock::add_to_linker::<S, WasiClocks>(l, S::clocks)
        }
        "wasi:random/random" => {
            random::random::add_to_linker::<S, WasiRandom>(l, |t| t.wasi.random())
        }
        "wasi:random/insecure" => {
            random::insecure::add_to_linker::<S, WasiRandom>(l, |t| t.wasi.random())
        }
        "wasi:random/insecure-seed" => {
            random::insecure_seed::add_to_linker::<S, WasiRandom>(l, |t| t.wasi.random())
        }
        "wasi:filesystem/types" => filesystem::add_to_linker(l),
        "wasi:filesystem/preopens" => {
            wasmtime_wasi::p2::bindings::filesystem::preopens::add_to_linker::<S, WasiFilesystem>(
                l,
                S::filesystem,
            )
        }
        _ => return define_sockets(l, interface),
    }?;
    Ok(true)
}

fn define_sockets(l: &mut Linker<State>, interface: &str) -> wasmtime::Result<bool> {
    type S = State;
    match interface {
        "wasi:sockets/network" => {
            sockets::network::add_to_linker::<S, WasiSockets>(l, &Default::default(), S::sockets)
        }
        "wasi:sockets/instance-network" => {
            sockets::instance_network::add_to_linker::<S, WasiSockets>(l, S::sockets)
        }
        "wasi:sockets/tcp" => sockets::tcp::add_to_linker::<S, WasiSockets>(l, S::sockets),
        "wasi:sockets/tcp-create-socket" => {
            sockets::tcp_create_socket::add_to_linker::<S, WasiSockets>(l, S::sockets)
        }
        "wasi:sockets/udp" => sockets::udp::add_to_linker::<S, WasiSockets>(l, S::sockets),
        "wasi:sockets/udp-create-socket" => {
            sockets::udp_create_socket::add_to_linker::<S, WasiSockets>(l, S::sockets)
        }
        "wasi:sockets/ip-name-lookup" => network::add_name_lookup(l.instance(LOOKUP)?),
        _ => return Ok(false),
    }?;
    Ok(true)
}

/// Marks interfaces that need nothing of a store but its table of resources.
struct HasTable;

impl wasmtime::component::HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}
