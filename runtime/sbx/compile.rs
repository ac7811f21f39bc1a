//! `sbx compile`: fills the cache ahead of the first run.

use anyhow::Result;

use crate::args::CompileArgs;
use crate::progress::Spinner;

pub(crate) fn compile(args: &CompileArgs) -> Result<u8> {
    let progress = Spinner::default();
    for workload in &args.workloads {
        let origin =
            sbx_wasm::program::warm(workload, args.fuel, &args.limits.limits(), &progress)?;
        println!("{}: {origin}", workload.display());
    }
    Ok(0)
}
