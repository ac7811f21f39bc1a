//! `sbx completions`: a completion script on standard output.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;

pub(crate) fn completions(shell: Shell) -> Result<u8> {
    clap_complete::generate(shell, &mut Cli::command(), "sbx", &mut std::io::stdout());
    Ok(0)
}
