//! `sbx man`: the manual pages, generated from the flags.

use anyhow::{Context, Result};
use clap::CommandFactory;
use std::path::Path;

use crate::args::Cli;

pub(crate) fn man(dir: &Path) -> Result<u8> {
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write the manual pages to {}", dir.display()))?;
    Ok(0)
}
