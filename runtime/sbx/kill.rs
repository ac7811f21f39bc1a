//! `sbx kill`: sends the workload a signal.

use anyhow::Result;
use sbx_core::Error;
use sbx_core::route::Kind;
use sbx_host::signals;
use sbx_supervisor::control::Request;

use crate::args::sandbox::KillArgs;
use crate::sandbox;

pub(crate) fn kill(args: &KillArgs) -> Result<u8> {
    sandbox::each(&args.names.names, |_, entry| {
        let is_vm = entry.config().is_ok_and(|config| config.kind == Kind::Vm);
        if is_vm && !signals::reaches_a_machine(args.signal) {
            return Err(Error::Refused(format!(
                "a microVM passes no signal {} on; it does HUP, INT, QUIT, KILL, USR1, USR2 and TERM",
                args.signal
            )));
        }
        sandbox::ask(entry, &Request::Signal(args.signal), "kill")?;
        Ok(None)
    })
}
