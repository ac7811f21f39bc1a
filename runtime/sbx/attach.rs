//! `sbx attach`, and what `run` and `start -a` do once a sandbox that is kept has begun: its standard streams
//! are the caller's, until it ends or the caller detaches.

use anyhow::Result;
use sbx_core::route::Kind;
use sbx_core::{Error, Lifecycle};
use sbx_host::signals::Signals;
use sbx_supervisor::attach::{self, Left, Options};
use sbx_supervisor::{Config, Entry, Lock, Store, supervisor};
use std::os::unix::net::UnixStream;

use crate::args::sandbox::AttachArgs;
use crate::{print, sandbox};

pub(crate) fn attach(args: &AttachArgs) -> Result<u8> {
    let entry = Store::open()?.find(&args.sandbox)?;
    let config = entry.config()?;
    let signals = Signals::of_attached()?;
    let Some(connection) = attach::connect(&entry)? else {
        let state = entry.status()?.state.name();
        return Err(Error::Refused(format!("cannot attach to a sandbox that is {state}")).into());
    };
    carry(connection, &config, !args.no_stdin, signals)
}

/// Starts a sandbox with the caller attached from the first byte on: with its standard input, if `stdin`,
/// and without notices, if `quiet`.
pub(crate) fn start(
    store: &Store,
    entry: &Entry,
    lock: Lock,
    (stdin, quiet): (bool, bool),
) -> Result<u8> {
    let config = entry.config()?;
    let signals = Signals::of_attached()?;
    let failed = |e| Error::host("make a connection to the supervisor", e);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let make = |config: &Config| -> sbx_core::Result<Lifecycle> { sandbox::prepare(config, quiet) };
    supervisor::start_attached(store, entry, lock, &make, Some(theirs))?;
    carry(ours, &config, stdin, signals)
}

/// Carries streams to the end, and says what a run in the foreground would.
fn carry(connection: UnixStream, config: &Config, stdin: bool, signals: Signals) -> Result<u8> {
    let spec = &config.spec;
    let stdin = stdin && spec.stdin;
    // A WASI program knows no keys that are signals: its terminal's are the caller's own.
    let raw = stdin && spec.tty && config.kind == Kind::Vm;
    match attach::run(connection, Options { stdin, raw, tty: spec.tty }, signals)? {
        Left::Detached => Ok(0),
        Left::Ended(end) => {
            for line in end.notes.iter().chain(&end.exit.message()) {
                print::sentence(line);
            }
            Ok(end.exit.status())
        }
    }
}
