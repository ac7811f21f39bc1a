//! `--disk`: what a workload adds to its volumes stays within the limit; more is answered as by a
//! full disk, which the workload may handle. What it was given before is not counted.

use crate::support::{Outcome, tempdir};
use crate::{Backend, on_every_backend};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

on_every_backend! {
    less_is_left_alone,
    one_file_is_bounded,
    many_files_are_bounded,
    empty_directories_are_bounded,
    links_are_bounded,
    scattered_writes_are_bounded,
    standard_output_turned_file_is_bounded,
    making_a_file_longer_takes_no_space,
    reading_is_free,
    what_failed_is_not_counted,
}

const LIMIT: u64 = 1 << 20;

/// The bytes that a directory's files and directories take on the disk.
fn taken(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .map(|path| {
            let meta = fs::symlink_metadata(&path).unwrap();
            // Small ones may be kept in the directory itself; they take a block's worth of room.
            let blocks = (meta.blocks() * 512).max(4096);
            blocks + if meta.is_dir() { taken(&path) } else { 0 }
        })
        .sum()
}

/// Fills a volume in one way, and checks that what it takes on the disk is within the limit.
fn fill(backend: Backend, way: &str, amount: &str) -> Outcome {
    let dir = tempdir();
    let run = backend.run("fill").volume(dir.path(), "/data").flags("--disk 1M");
    let end = run.args([way, "/data", amount]).end();
    let taken = taken(dir.path());
    // A file system may round up each file that it was given a block more of.
    assert!(taken <= LIMIT + 128 * 1024, "{taken} bytes are taken\n{end}");
    end
}

fn less_is_left_alone(backend: Backend) {
    let dir = tempdir();
    let run = backend.run("fill").volume(dir.path(), "/data").flags("--disk 3M");
    run.args(["write", "/data", "2"]).end().status(0).prints("2097152 bytes\n").silent();
    assert_eq!(fs::metadata(dir.path().join("fill")).unwrap().len(), 2 << 20);
}

fn one_file_is_bounded(backend: Backend) {
    // The file itself counts as 4 KiB, and blocks are written whole: 15 of 64 KiB fit.
    fill(backend, "write", "8").status(1).prints("983040 bytes, then ENOSPC\n");
}

fn many_files_are_bounded(backend: Backend) {
    fill(backend, "files", "8").status(1).prints("524288 bytes, then ENOSPC\n");
}

fn empty_directories_are_bounded(backend: Backend) {
    fill(backend, "mkdir", "100000").status(1).prints("256 directories, then ENOSPC\n");
}

fn links_are_bounded(backend: Backend) {
    fill(backend, "symlink", "100000").status(1).prints("256 links, then ENOSPC\n");
    fill(backend, "link", "100000").status(1).prints("255 names, then ENOSPC\n");
}

fn scattered_writes_are_bounded(backend: Backend) {
    fill(backend, "pwrite", "8").status(1).prints("983040 bytes, then ENOSPC\n");
    // Written is written, even if over and over to the same place.
    fill(backend, "rewrite", "8").status(1).prints("983040 bytes, then ENOSPC\n");
}

fn standard_output_turned_file_is_bounded(backend: Backend) {
    let end = fill(backend, "stdout", "8").status(1);
    assert_eq!(end.err(), "983040 bytes, then ENOSPC\n");
}

fn making_a_file_longer_takes_no_space(backend: Backend) {
    fill(backend, "truncate", "64").status(0).prints("67108864 bytes\n");
}

fn reading_is_free(backend: Backend) {
    let dir = tempdir();
    let text = "x".repeat(3 << 20);
    fs::write(dir.path().join("big"), &text).unwrap();
    let run = backend.run("files").volume(dir.path(), "/data").flags("--disk 0");
    run.args(["read", "/data/big"]).end().status(0).prints(&text);
    let run = backend.run("files").volume(dir.path(), "/data").flags("--disk 0");
    run.args(["rm", "/data/big"]).end().status(0).prints("ok\n");
}

fn what_failed_is_not_counted(backend: Backend) {
    let dir = tempdir();
    fs::create_dir(dir.path().join("there")).unwrap();
    let run = backend.run("files").volume(dir.path(), "/data").flags("--disk 4K");
    run.args(["mkdir", "/data/there"]).end().status(1).prints("EEXIST\n");
    let run = backend.run("files").volume(dir.path(), "/data").flags("--disk 4095");
    run.args(["mkdir", "/data/new"]).end().status(1).prints("ENOSPC\n");
    let run = backend.run("files").volume(dir.path(), "/data").flags("--disk 4K");
    run.args(["mkdir", "/data/new"]).end().status(0).prints("ok\n");
}
