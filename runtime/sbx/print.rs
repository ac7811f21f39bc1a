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

/// Lines of cells in columns as wide as their widest, the first line being the headings.
pub(crate) fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// A size in its largest unit, as people read it: `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let found = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    found.map_or_else(
        || format!("{bytes} B"),
        |(shift, unit)| format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
    )
}

/// Prints a sentence of sbx's own on standard error.
pub(crate) fn sentence(text: impl Display) {
    // In one piece, lest those of several commands get mixed.
    let _ = std::io::stderr().write_all(format!("sbx: {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!([size(0), size(1023), size(1024)], ["0 B", "1023 B", "1.0 KiB"]);
        assert_eq!([size(256 << 20), size(3 << 39)], ["256.0 MiB", "1.5 TiB"]);
    }
}
