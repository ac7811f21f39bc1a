//! `sbx logs`: what a workload has written, and with `-f` what it writes.

use anyhow::Result;
use sbx_core::Error;
use sbx_supervisor::log::{Line, Reader, Stream};
use sbx_supervisor::{Entry, Store};
use std::io::Write;
use std::time::Duration;

use crate::args::sandbox::LogsArgs;

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn logs(args: &LogsArgs) -> Result<u8> {
    let entry = Store::open()?.find(&args.sandbox)?;
    // A sandbox that is none is told, and not an empty log.
    entry.config()?;
    let mut reader = Reader::open(entry.dir());
    for line in reader.last(args.tail.0, args.since)? {
        show(&line, args.timestamps)?;
    }
    if args.follow {
        follow(&entry, &mut reader, args.timestamps)?;
    }
    Ok(0)
}

/// Shows what is written until the sandbox has ended and all of it is shown.
fn follow(entry: &Entry, reader: &mut Reader, timestamps: bool) -> Result<()> {
    loop {
        // Looked at before the log, lest what is written last be missed.
        let alive = is_alive(entry);
        let mut any = false;
        while let Some(line) = reader.next_line()? {
            show(&line, timestamps)?;
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

/// Each line goes to the stream that it was written to.
fn show(line: &Line, timestamps: bool) -> Result<(), Error> {
    let mut text = Vec::new();
    if timestamps {
        text.extend(format!("{} ", line.time).bytes());
    }
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
