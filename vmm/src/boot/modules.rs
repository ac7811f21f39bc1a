//! Which modules a kernel needs for the drivers that are wanted, in the order in which they load.
//!
//! What a kernel has built in is in `modules.builtin` and skipped. The others are files, of which each
//! says itself what it depends on (`.modinfo`); so no `modules.dep` is needed, which packages do not
//! carry and `depmod` makes at installation. Modules come out as their files have them, only
//! decompressed: nothing is stripped, since a kernel may check their signatures.
//!
//! This does not do all that `modprobe` does: no configuration is read, no pattern of a device's alias
//! is matched (`virtio:d00000002v*`), and what should load *after* a module (`softdep=post:`,
//! `weakdep=`) is left out. It does not remember anything either; a caller keeps what comes out.

mod object;
mod tree;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use tree::{Found, Tree};

/// The most bytes that the modules of one kernel may have, decompressed, together.
const BYTES_MAX: usize = 128 << 20;

/// The most modules for one kernel. Also bounds how deep dependencies are followed.
const MODULES_MAX: usize = 256;

/// Why modules could not be gathered. A driver that is merely nowhere is no error: [`Needed::missing`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read.
    #[error("the kernel's modules cannot be read from {}: {cause}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file that should be a module is none.
    #[error(
        "the kernel module {} is broken ({why}): install the kernel's package again",
        path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A module needs another that is nowhere.
    #[error(
        "the kernel module {module} needs {needs}, which is not in {}: install the kernel's package again",
        directory.display()
    )]
    Incomplete {
        /// The one.
        module: String,
        /// The other.
        needs: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Modules need one another.
    #[error(
        "the kernel's modules need one another in a circle ({}): install the kernel's package again",
        names.join(" -> ")
    )]
    Circular {
        /// The circle, its first module again at the end.
        names: Vec<String>,
    },
    /// Too many modules, or too large ones.
    #[error(
        "the wanted drivers in {} are more than {MODULES_MAX} modules or {} MiB: use a kernel that has them built in",
        directory.display(),
        BYTES_MAX >> 20
    )]
    TooLarge {
        /// The modules' directory.
        directory: PathBuf,
    },
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name as `lsmod` shows it: `_` for every `-`.
    pub name: String,
    /// An ELF object, as `init_module` takes it.
    pub content: Vec<u8>,
}

/// What [`gather`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// The modules to load; each comes after all that it depends on.
    pub modules: Vec<Module>,
    /// The wanted names that are neither built into the kernel nor a module of it.
    pub missing: Vec<String>,
}

/// Gathers the modules that a kernel needs for those `wanted`, and that it has not built in.
///
/// `directory` is the one of the kernel's version, such as `/lib/modules/6.1.0-56-cloud-amd64`.
/// Modules are wanted by name, in which `-` and `_` are equal, or by an alias that is no pattern, such
/// as `fs-ext4`.
///
/// # Errors
/// When files cannot be read or are broken, or modules depend on what is not there or on one another.
pub fn gather(directory: &Path, wanted: &[&str]) -> Result<Needed, Error> {
    let tree = Tree::open(directory)?;
    let mut search = Search::of(&tree);
    let mut missing = Vec::new();
    for name in wanted {
        match tree.find(name)? {
            Found::BuiltIn => {}
            Found::Module(name) => search.load(&name)?,
            Found::Nowhere => missing.push((*name).to_owned()),
        }
    }
    Ok(Needed { modules: search.modules, missing })
}

/// Walks the dependencies, deepest first.
struct Search<'a> {
    tree: &'a Tree,
    /// The modules whose dependencies are being looked at, outermost first.
    open: Vec<String>,
    done: HashSet<String>,
    /// The bytes that may still be read.
    budget: usize,
    modules: Vec<Module>,
}

impl<'a> Search<'a> {
    fn of(tree: &'a Tree) -> Self {
        let (open, done, modules) = Default::default();
        Self { tree, open, done, budget: BYTES_MAX, modules }
    }

    fn load(&mut self, name: &str) -> Result<(), Error> {
        if self.done.contains(name) {
            return Ok(());
        }
        if let Some(at) = self.open.iter().position(|open| open == name) {
            let mut names = self.open.split_off(at);
            names.push(name.to_owned());
            return Err(Error::Circular { names });
        }
        if self.open.len() + self.done.len() >= MODULES_MAX {
            return Err(self.too_large());
        }
        let path = self.tree.path(name);
        let Some(content) = object::read(&path, self.budget)? else {
            return Err(self.too_large());
        };
        self.budget -= content.len();
        let needs =
            object::needs(&content).map_err(|why| Error::Broken { path, why: why.to_owned() })?;
        self.open.push(name.to_owned());
        self.load_needs(name, &needs)?;
        self.open.pop();
        self.done.insert(name.to_owned());
        self.modules.push(Module { name: name.to_owned(), content });
        Ok(())
    }

    fn load_needs(&mut self, module: &str, needs: &object::Needs) -> Result<(), Error> {
        for name in &needs.before {
            // A wish, not a need: neither its absence nor a circle of wishes is an error.
            if let Found::Module(name) = self.tree.find(name)?
                && !self.open.contains(&name)
            {
                self.load(&name)?;
            }
        }
        for name in &needs.depends {
            match self.tree.find(name)? {
                Found::BuiltIn => {}
                Found::Module(name) => self.load(&name)?,
                Found::Nowhere => {
                    return Err(Error::Incomplete {
                        module: module.to_owned(),
                        needs: name.clone(),
                        directory: self.tree.directory().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { directory: self.tree.directory().to_owned() }
    }
}

#[cfg(test)]
mod tests;
