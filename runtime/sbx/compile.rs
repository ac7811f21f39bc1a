//! `sbx compile`: fills the cache ahead of the first run.

use anyhow::Result;

use crate::args::CompileArgs;
use crate::print;
use crate::progress::Spinner;

pub(crate) fn compile(args: &CompileArgs) -> Result<u8> {
    let progress = Spinner::default();
    for workload in &args.workloads {
        let origin =
            sbx_wasm::program::warm(workload, args.fuel, &args.limits.limits(), &progress)?;
        print::answer(format_args!("{}: {origin}\n", workload.display()))?;
    }
    Ok(0)
}
