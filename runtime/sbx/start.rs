//! `sbx start`: begins what was created, or begins what has ended anew.

use anyhow::Result;
use sbx_core::Error;
use sbx_supervisor::{State, Store};

use crate::args::sandbox::StartArgs;
use crate::{attach, sandbox};

pub(crate) fn start(args: &StartArgs) -> Result<u8> {
    if args.attach || args.interactive {
        return attached(args);
    }
    sandbox::each(&args.names.names, |store, entry| {
        // As in docker, one that runs already is as was asked, and one that is held is not.
        match entry.lock()? {
            Some(lock) => sandbox::start(store, entry, lock, false)?,
            None if entry.status()?.state == State::Paused => {
                return Err(Error::Refused(
                    "cannot start a sandbox that is paused; let it go on with: sbx resume".into(),
                ));
            }
            None => {}
        }
        Ok(None)
    })
}

fn attached(args: &StartArgs) -> Result<u8> {
    let [name] = args.names.names.as_slice() else {
        return Err(Error::Refused("one can be attached to one sandbox at a time".into()).into());
    };
    let store = Store::open()?;
    let entry = store.find(name)?;
    match entry.lock()? {
        Some(lock) => attach::start(&store, &entry, lock, (args.interactive, false)),
        None => Err(Error::Refused("it runs already; attach to it with: sbx attach".into()).into()),
    }
}
