//! `sbx stop`: asks the workload to end, and ends it if it does not.

use anyhow::Result;
use sbx_supervisor::control::Request;

use crate::args::sandbox::StopArgs;
use crate::sandbox;

/// `SIGTERM`.
const TERM: i32 = 15;

pub(crate) fn stop(args: &StopArgs) -> Result<u8> {
    let grace = u64::try_from(args.time.as_millis()).unwrap_or(u64::MAX);
    sandbox::each(&args.names.names, |_, entry| {
        // One that does not run is as was asked.
        sandbox::try_ask(entry, &Request::Stop { signal: TERM, grace })?;
        Ok(None)
    })
}
