//! `sbx create`: a sandbox that is started later. All that a start can be refused for is told now.

use anyhow::Result;
use sbx_supervisor::Store;

use crate::args::RunArgs;
use crate::{print, run, sandbox};

pub(crate) fn create(args: RunArgs) -> Result<u8> {
    let quiet = args.quiet;
    let asked = run::asked(args)?;
    let store = Store::open()?;
    let (entry, lock, mut cidfile) = sandbox::keep(&store, asked, quiet)?;
    if let Err(e) = entry.config().and_then(|config| sandbox::prepare(&config, quiet)) {
        store.remove(&entry, lock)?;
        return Err(e.into());
    }
    cidfile.iter_mut().for_each(sandbox::CidFile::stay);
    print::answer(format_args!("{}\n", entry.id()))?;
    Ok(0)
}
