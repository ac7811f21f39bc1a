//! `--fds`: so many files are open at once and no more, beside standard streams and volumes. More
//! are refused, and closing one makes room.

use crate::support::{Outcome, tempdir};
use crate::{Backend, on_every_backend};
use std::fs;

on_every_backend! {
    as_many_as_allowed_are_left_alone,
    one_more_is_refused,
    volumes_and_streams_do_not_count,
    none_is_none,
    closing_makes_room,
    directories_count;
    // Linux counts numbers of descriptors, so that a stream's is free for a file once it is closed.
    wasm: closing_a_stream_gives_nothing,
}

fn open(backend: Backend, fds: u32, more: &[&str], count: &str) -> Outcome {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "x").unwrap();
    let mut run = backend.run("open-many").volume(dir.path(), "/data");
    for at in more {
        run = run.volume(dir.path(), at);
    }
    run.flags(&format!("--fds {fds}")).args(["/data/file", count]).end()
}

fn as_many_as_allowed_are_left_alone(backend: Backend) {
    open(backend, 16, &[], "16").status(0).prints("opened 16\n");
}

fn one_more_is_refused(backend: Backend) {
    // WASI 0.2 has no error of its own for this.
    let error = if backend == Backend::Component { "EIO" } else { "EMFILE" };
    // The adapter that makes a component of a preview 1 program stops at 128 by itself.
    for fds in backend.sample(&[1, 100, 8]) {
        open(backend, *fds, &[], "65536")
            .status(1)
            .prints(&format!("opened {fds}, then {error}\n"));
    }
}

fn volumes_and_streams_do_not_count(backend: Backend) {
    open(backend, 4, &["/a", "/b", "/c:ro"], "4").status(0).prints("opened 4\n");
}

fn none_is_none(backend: Backend) {
    let end = open(backend, 0, &[], "1").status(1);
    assert!(end.out().starts_with("opened 0, then "), "{end}");
    let name = backend.called("args");
    backend.run("args").flags("--fds 0").end().status(0).prints(&format!("{name}\n"));
}

fn closing_makes_room(backend: Backend) {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "x").unwrap();
    let run = backend.run("race").volume(dir.path(), "/data").flags("--fds 1");
    let end = run.args(["/data/file", "500"]).end();
    end.status(0).prints("read 500, refused 0, escaped 0\n");
}

fn directories_count(backend: Backend) {
    let dir = tempdir();
    let run = backend.run("open-many").volume(dir.path(), "/data").flags("--fds 5");
    let end = run.args(["/data/.", "100"]).end().status(1);
    assert!(end.out().starts_with("opened 5, then "), "{end}");
}

/// A guest that closes its own standard streams has not closed the host's.
fn closing_a_stream_gives_nothing(backend: Backend) {
    let dir = tempdir();
    let run = backend.run("fill").volume(dir.path(), "/data").flags("--fds 0");
    let end = run.args(["stdout", "/data", "1"]).end();
    assert!(end.status.code() != Some(0), "{end}");
    assert!(end.err().contains("not standard output but -1"), "{end}");
}
