//! Promise: programs that nobody wrote for sbx run in it, with the grants they need and no others.
//!
//! Each test is a line of tests/guests/README.md, "What to run and what to expect": interpreters,
//! compilers, a database, a solver and renderers, compared by their real output. Each runs twice, and
//! the second time no compiler is allowed, so that it can only be the cache that answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod compilers;
mod interpreters;
mod renderers;
mod tools;

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Outcome, Sbx, root};

/// The largest of the programs takes a minute of processor time to compile.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `tests/guests/fetch` has put at `path`.
#[track_caller]
fn fetched(path: &str) -> PathBuf {
    let path = root().join("target/programs").join(path);
    assert!(path.exists(), "{} is missing; get it with: tests/guests/fetch", path.display());
    path
}

/// The files that the programs read.
fn data() -> PathBuf {
    root().join("tests/guests/data")
}

/// `sbx run` of a fetched program.
#[track_caller]
fn program(path: &str) -> Sbx {
    Sbx::run(fetched(path)).patience(PATIENCE)
}

/// Runs what `run` describes, and runs it again without a compiler; `check` looks at both.
#[track_caller]
fn twice(run: impl Fn() -> Sbx, check: impl Fn(Outcome)) {
    check(run().end());
    check(run().flags("--compile-memory 1").end());
}

/// The digest of a file that a program made, as sha256sum prints it.
#[track_caller]
fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// How long the file is that a program made.
#[track_caller]
fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// Without this the second run of every test would prove nothing.
#[test]
fn a_run_that_is_not_cached_needs_a_compiler() {
    let cache = support::tempdir();
    program("quickjs/quickjs.wasm")
        .flags("--compile-memory 1")
        .cache(cache.path())
        .args(["-e", "1"])
        .end()
        .status(126)
        .prints("")
        .says_only(&["memory", "--compile-memory"]);
}
