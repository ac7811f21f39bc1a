//! `sbx start`: begins what was created, or begins what has ended anew.

use anyhow::Result;

use crate::args::sandbox::Names;
use crate::sandbox;

pub(crate) fn start(args: &Names) -> Result<u8> {
    sandbox::each(&args.names, |store, entry| {
        // As in docker, one that runs already is as was asked.
        if let Some(lock) = entry.try_lock()? {
            sandbox::start(store, entry, lock)?;
        }
        Ok(None)
    })
}
