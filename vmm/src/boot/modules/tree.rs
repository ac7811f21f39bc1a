//! The directory of a kernel's modules: what is built in, which files there are, and which other names
//! they go by.

use super::Error;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What the file of a module's name ends in, by how it is compressed.
const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Where a module is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// In the kernel itself.
    BuiltIn,
    /// In a file; by this name.
    Module(String),
    /// Nowhere.
    Nowhere,
}

/// The modules of one kernel. All names have `_` for `-`.
#[derive(Debug)]
pub(super) struct Tree {
    directory: PathBuf,
    builtin: HashSet<String>,
    /// Relative to the directory.
    files: HashMap<String, PathBuf>,
}

impl Tree {
    /// Looks at a directory: `modules.dep` lists the files where `depmod` has run; otherwise they are
    /// searched for below `kernel/`.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let builtin = text(&directory.join("modules.builtin"))?;
        let builtin = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let listed = text(&directory.join("modules.dep"))?;
        let listed = listed.lines().filter_map(|line| Some(PathBuf::from(line.split_once(':')?.0)));
        // Only what is below the directory is one of its modules.
        let inside =
            |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
        let mut files = listed.filter(inside).peekable();
        let files = match files.peek() {
            Some(_) => by_name(files),
            None => by_name(walk(directory)?.into_iter()),
        };
        Ok(Self { directory: directory.to_owned(), builtin, files })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of a module that was found.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(self.files.get(name).map_or(Path::new(name), PathBuf::as_path))
    }

    /// Looks for a module by its name or one of its aliases.
    pub(super) fn find(&self, name: &str) -> Result<Found, Error> {
        let name = normal(name);
        match self.find_named(&name) {
            Found::Nowhere => self.find_alias(&name),
            found => Ok(found),
        }
    }

    fn find_named(&self, name: &str) -> Found {
        if self.builtin.contains(name) {
            Found::BuiltIn
        } else if self.files.contains_key(name) {
            Found::Module(name.to_owned())
        } else {
            Found::Nowhere
        }
    }

    /// Several modules may have one alias, as `crc32c` names an algorithm of which processors have faster
    /// forms. One is enough: what is built in, or else what runs on every processor.
    fn find_alias(&self, alias: &str) -> Result<Found, Error> {
        let known = text(&self.directory.join("modules.builtin.modinfo"))?;
        // MODULE.alias=ALIAS, each with a NUL behind it.
        let names = |entry: &str| {
            entry.split_once(".alias=").is_some_and(|(_, named)| normal(named) == alias)
        };
        if known.split('\0').any(names) {
            return Ok(Found::BuiltIn);
        }
        let known = text(&self.directory.join("modules.alias"))?;
        // alias ALIAS MODULE
        let mut modules: Vec<String> = known
            .lines()
            .filter_map(|line| line.strip_prefix("alias ")?.split_once(' '))
            .filter(|(named, _)| normal(named) == alias)
            .map(|(_, module)| normal(module))
            .collect();
        // Where depmod has not run, this is how the kernel's own algorithms are called.
        modules.push(format!("{}_generic", alias.strip_prefix("crypto_").unwrap_or(alias)));
        modules.sort_by_key(|module| !module.ends_with("_generic"));
        let mut found = modules.iter().map(|module| self.find_named(module));
        Ok(found.find(|found| *found != Found::Nowhere).unwrap_or(Found::Nowhere))
    }
}

/// A name as the kernel shows it.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The module that a file holds, by its name.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    ENDINGS.iter().find_map(|ending| file.strip_suffix(ending)).map(normal)
}

fn by_name(paths: impl Iterator<Item = PathBuf>) -> HashMap<String, PathBuf> {
    paths.filter_map(|path| Some((module_name(&path)?, path))).collect()
}

/// The content of a text file; of one that is not there, nothing.
fn text(path: &Path) -> Result<String, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(cause) => Err(Error::Read { path: path.to_owned(), cause }),
    }
}

/// All files below `kernel/`, relative to the directory. Links to directories are not followed.
fn walk(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut ahead = vec![PathBuf::from("kernel")];
    while let Some(inner) = ahead.pop() {
        let path = directory.join(&inner);
        let failed = |cause| Error::Read { path: path.clone(), cause };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let below = inner.join(entry.file_name());
            if entry.file_type().map_err(failed)?.is_dir() {
                ahead.push(below);
            } else {
                found.push(below);
            }
        }
    }
    Ok(found)
}
