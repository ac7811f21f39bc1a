//! `sbx kill`: sends the workload a signal.

use anyhow::Result;
use sbx_supervisor::control::Request;

use crate::args::sandbox::KillArgs;
use crate::sandbox;

pub(crate) fn kill(args: &KillArgs) -> Result<u8> {
    sandbox::each(&args.names.names, |_, entry| {
        sandbox::ask(entry, &Request::Signal(args.signal), "kill")?;
        Ok(None)
    })
}
