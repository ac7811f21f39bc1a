//! `sbx cache`: what is in the cache of compiled code, and its removal.

use anyhow::Result;
use sbx_core::units::format_size;
use sbx_wasm::cache::{Cache, Entry};
use std::time::{Duration, SystemTime};

use crate::args::{CacheCommand, Format};

pub(crate) fn cache(command: CacheCommand) -> Result<u8> {
    let cache = Cache::open()?;
    match command {
        CacheCommand::Ls { format: Format::Table } => print_table(&cache.entries()?),
        CacheCommand::Ls { format: Format::Json } => {
            println!("{}", serde_json::to_string_pretty(&cache.entries()?)?);
        }
        CacheCommand::Prune { older_than } => {
            let (files, bytes) = cache.prune(older_than)?;
            println!("removed {files} files, {}", format_size(bytes));
        }
    }
    Ok(0)
}

fn print_table(entries: &[Entry]) {
    println!("{:<32}  {:>10}  LAST RUN", "CODE", "SIZE");
    for Entry { name, size, used } in entries {
        let age = SystemTime::now().duration_since(*used).unwrap_or_default();
        let age = humantime::format_duration(Duration::from_secs(age.as_secs() / 60 * 60));
        println!("{name:<32}  {:>6} KiB  {age} ago", size.div_ceil(1024));
    }
}
