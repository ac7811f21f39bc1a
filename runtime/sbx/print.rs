//! What sbx itself prints. The standard macros panic when a stream cannot be written; here a full disk
//! behind standard output is an error like others, and one behind standard error cannot be told.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::Write;

/// Prints an answer to what was asked, as it is.
pub(crate) fn answer(text: impl Display) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Prints a sentence of sbx's own on standard error.
pub(crate) fn sentence(text: impl Display) {
    // In one piece, lest those of several commands get mixed.
    let _ = std::io::stderr().write_all(format!("sbx: {text}\n").as_bytes());
}
