//! `sbx wait`: waits for the end of sandboxes, and prints their exit statuses.

use anyhow::Result;
use sbx_core::Error;
use sbx_supervisor::State;
use sbx_supervisor::control::{Reply, Request};

use crate::args::sandbox::Names;
use crate::sandbox;

pub(crate) fn wait(args: &Names) -> Result<u8> {
    sandbox::each(&args.names, |_, entry| {
        if let Some(Reply::Ended(exit)) = sandbox::try_ask(entry, &Request::Wait)? {
            return Ok(Some(exit.status().to_string()));
        }
        let status = entry.status()?;
        match (status.state, status.exit) {
            (State::Exited, Some(exit)) => Ok(Some(exit.status().to_string())),
            // As for a process that was killed from outside.
            (State::Dead, _) => Ok(Some("137".into())),
            (state, _) => Err(Error::Refused(format!(
                "cannot wait for a sandbox that is {}; start it first",
                state.name()
            ))),
        }
    })
}
