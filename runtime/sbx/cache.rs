//! `sbx cache`: what is in the cache of compiled code, and its removal.

use anyhow::Result;
use sbx_core::units::format_size;
use sbx_host::cache::{Cache, Entry};
use std::time::{Duration, SystemTime};

use crate::args::{CacheCommand, Format};
use crate::print;

pub(crate) fn cache(command: CacheCommand) -> Result<u8> {
    let cache = Cache::open()?;
    match command {
        CacheCommand::Ls { format: Format::Table } => print::answer(table(&cache.entries()?))?,
        CacheCommand::Ls { format: Format::Json } => {
            print::answer(serde_json::to_string_pretty(&cache.entries()?)? + "\n")?;
        }
        CacheCommand::Prune { older_than } => {
            let (files, bytes) = cache.prune(older_than)?;
            print::answer(format_args!("removed {files} files, {}\n", format_size(bytes)))?;
        }
    }
    Ok(0)
}

fn table(entries: &[Entry]) -> String {
    let mut text = format!("{:<38}  {:>10}  LAST RUN\n", "CODE", "SIZE");
    for Entry { name, size, used } in entries {
        let age = SystemTime::now().duration_since(*used).unwrap_or_default();
        let age = humantime::format_duration(Duration::from_secs(age.as_secs() / 60 * 60));
        text.push_str(&format!("{name:<38}  {:>6} KiB  {age} ago\n", size.div_ceil(1024)));
    }
    text
}
