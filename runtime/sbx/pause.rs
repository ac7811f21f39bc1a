//! `sbx pause` and `sbx resume`: hold a workload where it is, and let it go on.

use anyhow::Result;
use sbx_supervisor::control::Request;

use crate::args::sandbox::Names;
use crate::sandbox;

pub(crate) fn pause(args: &Names) -> Result<u8> {
    all(args, &Request::Pause, "pause")
}

pub(crate) fn resume(args: &Names) -> Result<u8> {
    all(args, &Request::Resume, "resume")
}

fn all(args: &Names, request: &Request, verb: &str) -> Result<u8> {
    sandbox::each(&args.names, |_, entry| {
        sandbox::ask(entry, request, verb)?;
        Ok(None)
    })
}
