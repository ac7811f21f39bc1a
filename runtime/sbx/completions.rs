//! `sbx completions`: a completion script on standard output.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::print;

pub(crate) fn completions(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sbx", &mut script);
    print::answer(String::from_utf8_lossy(&script))?;
    Ok(0)
}
