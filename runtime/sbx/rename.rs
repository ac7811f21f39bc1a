//! `sbx rename`: another name for a sandbox, whatever it does at the time.

use anyhow::Result;

use crate::sandbox;

pub(crate) fn rename(sandbox: &str, name: &str) -> Result<u8> {
    sandbox::one(sandbox, |store, entry| store.rename(entry, name))
}
