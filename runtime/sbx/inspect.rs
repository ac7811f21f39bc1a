//! `sbx inspect`: all that is known of sandboxes, as JSON.

use anyhow::Result;
use sbx_core::Error;
use sbx_supervisor::{Config, Entry, Status, Store};
use serde::Serialize;

use crate::args::sandbox::Names;
use crate::print;

/// One sandbox: what was asked, how it stands, and where that is kept.
#[derive(Serialize)]
struct Known {
    #[serde(flatten)]
    config: Config,
    status: Status,
    log: String,
}

pub(crate) fn inspect(args: &Names) -> Result<u8> {
    let store = Store::open()?;
    let known = |entry: Entry| -> Result<Known, Error> {
        let (config, status) = (entry.config()?, entry.status()?);
        Ok(Known { config, status, log: entry.dir().join("log").display().to_string() })
    };
    let mut all = Vec::new();
    let mut status = 0;
    for name in &args.names {
        match store.find(name).and_then(known) {
            Ok(known) => all.push(known),
            Err(e) => {
                print::sentence(e);
                status = 1;
            }
        }
    }
    print::answer(serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(status)
}
