//! `sbx rm`: removes sandboxes, and all that is kept of them.

use anyhow::Result;
use sbx_core::Error;
use sbx_supervisor::control::{self, Request};
use sbx_supervisor::{Entry, Lock, Store};
use std::time::{Duration, Instant};

use crate::args::sandbox::RmArgs;
use crate::sandbox;

/// How long a supervisor may take to end once its workload has.
const PATIENCE: Duration = Duration::from_secs(10);
/// `SIGKILL`.
const KILL: i32 = 9;

pub(crate) fn rm(args: &RmArgs) -> Result<u8> {
    sandbox::each(&args.names.names, |store, entry| {
        let removed = remove(store, entry, args.force);
        // One that removes itself at its end may have been quicker, which is as was asked.
        if args.force && !entry.dir().exists() { Ok(None) } else { removed.map(|()| None) }
    })
}

fn remove(store: &Store, entry: &Entry, force: bool) -> sbx_core::Result<()> {
    let lock = match entry.lock()? {
        Some(lock) => lock,
        None if force => ended(entry)?,
        None => {
            return Err(Error::Refused(
                "cannot remove a sandbox that runs; stop it first, or use rm -f".into(),
            ));
        }
    };
    store.remove(entry, lock)
}

/// Ends a sandbox, and returns its lock once its supervisor has let that go.
fn ended(entry: &Entry) -> sbx_core::Result<Lock> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Again, should it have been started anew in between.
        control::ask(entry, &Request::Stop { signal: KILL, grace: 0 })?;
        if let Some(lock) = entry.lock()? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(Error::Refused("its supervisor does not end; kill that by hand".into()));
        }
    }
}
