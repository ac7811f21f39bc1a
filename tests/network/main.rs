//! Promise: a component reaches what it was granted on the network, and nothing else: neither an
//! address, a port or a name, nor a port to listen on.
//!
//! The guest is examples/python/fetch.py, which sends a line and prints the answer, or prints WASI's
//! name of the error it got. The servers are these tests' own. Each test has an address of its own
//! below 127.0.0.0/8, so that ports do not collide; a refusal counts only if the server, too, has
//! seen nobody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod listen;
mod lookup;
mod outgoing;
mod servers;

use std::time::Duration;
use support::{Outcome, Sbx, root};

/// What the guest sends.
const LINE: &str = "hello from a sandbox\n";

/// `sbx run` of the guest with these arguments, which are split at spaces. Compiling it takes a
/// while, which all tests wait for when none of them has run before.
#[track_caller]
fn fetch(args: impl AsRef<str>) -> Sbx {
    let guest = root().join("target/examples/fetch.wasm");
    assert!(guest.is_file(), "{} is missing; build it with: examples/build", guest.display());
    // A guest that is let in by mistake waits for an answer: not for as long as a compilation may take.
    let sbx = Sbx::run(guest).patience(Duration::from_secs(120)).flags("--timeout 20s");
    sbx.args(args.as_ref().split(' '))
}

/// The guest was refused, and sbx says what `words` say about the grant.
#[track_caller]
fn refused(end: Outcome, words: &[&str]) {
    drop(end.status(1).prints("access-denied\n").says_only(words));
}

/// The guest got the server's answer, and sbx has nothing to say.
#[track_caller]
fn answered(end: Outcome) {
    drop(end.status(0).prints(&servers::answer(LINE)).silent());
}
