//! `sbx logs`: what a workload has written, and with `-f` what it writes.

use sbx_core::Error;
use sbx_supervisor::Entry;
use sbx_supervisor::log::{Line, Reader, Stream};
use std::io::Write;
use std::time::Duration;

use crate::args::sandbox::LogsArgs;
use crate::sandbox;

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn logs(args: &LogsArgs) -> anyhow::Result<u8> {
    sandbox::one(&args.sandbox, |_, entry| show_all(args, entry))
}

fn show_all(args: &LogsArgs, entry: &Entry) -> Result<(), Error> {
    // A sandbox that is none is told, and not an empty log.
    entry.config()?;
    let mut lines = Lines { timestamps: args.timestamps, begun: [false; 2] };
    let mut reader = Reader::open(entry.dir());
    for line in reader.last(args.tail.0, args.since)? {
        lines.show(&line)?;
    }
    if args.follow {
        follow(entry, &mut reader, &mut lines)?;
    }
    Ok(())
}

/// Shows what is written until the sandbox has ended and all of it is shown.
fn follow(entry: &Entry, reader: &mut Reader, lines: &mut Lines) -> Result<(), Error> {
    loop {
        // Looked at before the log, lest what is written last be missed.
        let alive = is_alive(entry);
        let mut any = false;
        while let Some(line) = reader.next_line()? {
            lines.show(&line)?;
            any = true;
        }
        if !alive && !any {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_alive(entry: &Entry) -> bool {
    entry.status().is_ok_and(|status| status.state.is_alive())
}

/// What is shown: each line goes to the stream that it was written to.
struct Lines {
    timestamps: bool,
    /// Whether a line of standard output, and of standard error, has begun and not ended.
    begun: [bool; 2],
}

impl Lines {
    fn show(&mut self, line: &Line) -> Result<(), Error> {
        let mut text = Vec::new();
        let begun = &mut self.begun[usize::from(line.stream == Stream::Stderr)];
        // When a line began to be written, and not when each part of it was.
        if self.timestamps && !*begun {
            text.extend(format!("{} ", line.time).bytes());
        }
        *begun = !line.is_whole();
        text.extend(&line.text);
        let shown = match line.stream {
            Stream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(&text).and_then(|()| out.flush())
            }
            Stream::Stderr => std::io::stderr().write_all(&text),
        };
        shown.map_err(|e| Error::host("write to standard output", e))
    }
}
