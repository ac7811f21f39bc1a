//! The start of a supervisor: in a process of its own, which tells the command that asked how it went.

use sbx_core::{Error, Lifecycle, Result};
use sbx_host::process;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::Supervisor;
use crate::record::Config;
use crate::store::{Entry, Lock, Store};

/// Prepares a sandbox, as a command in the foreground would.
pub type Make<'a> = &'a dyn Fn(&Config) -> Result<Lifecycle>;

/// How a start went, as it is told to the command that asked for it.
#[derive(Serialize, Deserialize)]
enum Report {
    Started,
    Failed { status: u8, why: String },
}

/// Starts a sandbox in the background, and returns once its workload has begun.
///
/// # Errors
/// Why it could not begin; there is no supervisor then.
pub fn start(store: &Store, entry: &Entry, lock: Lock, make: Make<'_>) -> Result<()> {
    start_attached(store, entry, lock, make, None)
}

/// The same, for one who is attached before the workload writes its first byte, and for whom it waits
/// when it writes faster than is read: the other end of `attached` is for [`crate::attach`].
///
/// # Errors
/// As for [`start`].
pub fn start_attached(
    store: &Store,
    entry: &Entry,
    lock: Lock,
    make: Make<'_>,
    attached: Option<UnixStream>,
) -> Result<()> {
    let config = entry.config()?;
    let mut report = process::background(|report| {
        let mut report = File::from(report);
        let begun = Supervisor::begin(entry, &config, &lock, make, &report, attached);
        let said = match &begun {
            Ok(_) => Report::Started,
            Err(e) => Report::Failed { status: e.status(), why: e.to_string() },
        };
        let text = serde_json::to_vec(&said).unwrap_or_default();
        // Nobody hears it only if whoever asked was killed.
        let _ = report.write_all(&text);
        drop(report);
        if let Ok(supervisor) = begun
            && supervisor.run()
            && config.remove
        {
            let _ = store.remove(entry, lock);
        }
    })?;
    let mut text = Vec::new();
    let read = report.read_to_end(&mut text);
    let failed = || Error::Refused("the sandbox's supervisor failed to start".into());
    read.map_err(|_| failed())?;
    match serde_json::from_slice(&text).map_err(|_| failed())? {
        Report::Started => Ok(()),
        Report::Failed { status: 127, why } => Err(Error::NotFound(why)),
        Report::Failed { status: 126, why } => Err(Error::NotRunnable(why)),
        Report::Failed { why, .. } => Err(Error::Refused(why)),
    }
}
