//! `sbx rename`: another name for a sandbox, whatever it does at the time.

use anyhow::Result;
use sbx_supervisor::Store;

pub(crate) fn rename(sandbox: &str, name: &str) -> Result<u8> {
    let store = Store::open()?;
    store.rename(&store.find(sandbox)?, name)?;
    Ok(0)
}
