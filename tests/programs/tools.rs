//! A database, a solver, and a program of an interface that sbx does not have.

use super::{data, program, support, twice};
use std::fs;
use std::path::Path;
use support::Sbx;

const FILL: &str = "create table t (n, s); insert into t values (1, \"one\"), (2, \"two\"); \
                    select sum(n), group_concat(s) from t;";
const READ: &str = "select count(*) from t; pragma integrity_check;";

fn sqlite(out: &Path, sql: &str) -> Sbx {
    program("sqlite/sqlite3.wasm")
        .volume(out, "/out")
        .flags("-e HOME=/out")
        .args(["/out/t.db", sql])
}

/// One process writes a database, and another one reads it.
#[test]
fn sqlite_writes_and_reads_back() {
    let dir = support::tempdir();
    let file = dir.path().join("t.db");
    twice(
        || {
            let _ = fs::remove_file(&file);
            sqlite(dir.path(), FILL)
        },
        |end| drop(end.status(0).prints("3|one,two\n").silent()),
    );
    assert!(fs::read(&file).unwrap().starts_with(b"SQLite format 3\0"));
    drop(sqlite(dir.path(), READ).end().status(0).prints("2\nok\n").silent());
}

/// The same statements without the grant leave nothing on the host.
#[test]
fn sqlite_without_its_grant() {
    let dir = support::tempdir();
    let end = program("sqlite/sqlite3.wasm")
        .cwd(dir.path())
        .args(["t.db", FILL])
        .end()
        .status(1)
        .prints("");
    assert!(end.err().contains("unable to open database"), "{end}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn boolector() {
    twice(
        || program("boolector/boolector.wasm").volume(&data(), "/in:ro").args(["/in/factors.smt2"]),
        |end| drop(end.status(10).prints("sat\n").silent()),
    );
}

/// What preview 0 programs get is one sentence; no compiler is needed to find out.
#[test]
fn preview_0_is_refused() {
    let (dir, cache) = (support::tempdir(), support::tempdir());
    program("sqlite-preview0/sqlite.wasm")
        .volume(dir.path(), "/out")
        .flags("-e HOME=/out --compile-memory 1")
        .cache(cache.path())
        .args(["/out/t.db", "select sqlite_version();"])
        .end()
        .status(126)
        .prints("")
        .says_only(&["wasi_unstable", "preview 0", "build it with a newer toolchain"]);
}
