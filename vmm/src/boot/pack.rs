//! A kernel's modules as a piece of the initramfs that can be kept.
//!
//! To gather modules and pack them is most of the work of making an initramfs, and always gives the same
//! bytes for the same kernel file, directory and wanted drivers. So the piece is an archive of its own,
//! which a caller may keep and map at the next start; what changes from run to run goes in another
//! archive behind it. Nothing here keeps anything.

use super::initramfs::{Archive, Error};
use super::modules::Module;

/// Where the modules are in the guest, and all that is there.
pub const DIRECTORY: &str = "modules";

/// The mode of the directory and what is in it. Only root can load modules.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o400;

/// Packs modules as an archive, whole and padded, so that others may precede and follow it: files
/// `/modules/NN-NAME.ko`, which load in the order of their names. NN has as many digits as the last one
/// needs, and at least two.
///
/// # Errors
/// When a name cannot be a file's, or a module has 4 GiB, neither of which a gathered one has.
pub fn segment(modules: &[Module]) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    archive.directory(DIRECTORY, DIRECTORY_MODE)?;
    let digits = modules.len().saturating_sub(1).to_string().len().max(2);
    for (order, Module { name, content }) in modules.iter().enumerate() {
        archive.file(&format!("{DIRECTORY}/{order:0digits$}-{name}.ko"), FILE_MODE, content)?;
    }
    Ok(archive.finish())
}

#[cfg(test)]
mod tests;
