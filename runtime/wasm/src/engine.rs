//! The one configuration of wasmtime that sbx uses, for compiling and for running.
//!
//! Code is only ever loaded by the configuration that made it: wasmtime checks its version, the
//! processor's features and these settings when it loads an artifact.

use sbx_core::{Error, Result};
use wasmtime::{Config, Engine};

/// What changes the machine code that is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Whether the code counts its instructions (`--fuel`).
    pub(crate) fuel: bool,
}

impl Variant {
    /// A short name for cache keys.
    pub(crate) fn name(self) -> &'static str {
        if self.fuel { "fuel" } else { "plain" }
    }
}

/// An engine that loads and runs code and cannot compile: building Cranelift's tables is time that
/// every start would pay.
pub(crate) fn runner(variant: Variant) -> Result<Engine> {
    let mut config = common(variant);
    config.enable_compiler(false);
    build(&config)
}

/// An engine that compiles.
pub(crate) fn compiler(variant: Variant) -> Result<Engine> {
    build(&common(variant))
}

fn common(variant: Variant) -> Config {
    let mut config = Config::new();
    config
        // Traps are told without a backtrace, so nobody reads the tables behind one.
        .generate_address_map(false)
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(None)
        .consume_fuel(variant.fuel)
        // Preview 3 is not linked; most advisories of 2026 are about its machinery.
        .concurrency_support(false);
    config
}

fn build(config: &Config) -> Result<Engine> {
    Engine::new(config)
        .map_err(|e| Error::Refused(format!("cannot set up the WebAssembly engine: {e}")))
}
