//! `sbx rm`: removes sandboxes, and all that is kept of them.

use anyhow::Result;
use sbx_core::Error;
use sbx_supervisor::control::{self, Request};
use sbx_supervisor::{Entry, Lock};
use std::time::{Duration, Instant};

use crate::args::sandbox::RmArgs;
use crate::sandbox;

/// How long a supervisor may take to end once its workload has.
const PATIENCE: Duration = Duration::from_secs(10);
/// `SIGKILL`.
const KILL: i32 = 9;

pub(crate) fn rm(args: &RmArgs) -> Result<u8> {
    sandbox::each(&args.names.names, |store, entry| {
        let lock = match entry.try_lock()? {
            Some(lock) => lock,
            None if args.force => ended(entry)?,
            None => {
                return Err(Error::Refused(
                    "cannot remove a sandbox that runs; stop it first, or use rm -f".into(),
                ));
            }
        };
        store.remove(entry, lock)?;
        Ok(None)
    })
}

/// Ends a sandbox, and returns its lock once its supervisor has let that go.
fn ended(entry: &Entry) -> sbx_core::Result<Lock> {
    control::ask(entry, &Request::Stop { signal: KILL, grace: 0 })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(lock) = entry.try_lock()? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(Error::Refused("its supervisor does not end; kill that by hand".into()));
        }
    }
}
