//! The environment is empty but for what is granted: by `--env`, by `--env-file`, and what a
//! `--workdir` says of itself.

use crate::support::{Sbx, tempdir};
use crate::{Backend, on_every_backend};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

on_every_backend! {
    nothing_is_inherited,
    what_is_granted_is_there,
    the_callers_value_is_passed_on,
    files_list_variables,
    the_last_word_counts,
    a_working_directory_is_told;
    // Strings of a WASI program are text; Linux takes any bytes.
    wasm: what_is_no_text_is_refused;
    vm: what_is_no_text_arrives,
}

fn nothing_is_inherited(backend: Backend) {
    let run = backend.run("environ").env("SECRET", "hunter2").env("LD_PRELOAD", "");
    run.end().status(0).prints("").silent();
}

fn what_is_granted_is_there(backend: Backend) {
    let run = backend.run("environ").env("SECRET", "x").flag("-e", "A=1").flag("--env", "B=x y=z");
    run.flag("-e", "EMPTY=").end().status(0).prints("A=1\nB=x y=z\nEMPTY=\n");
}

fn the_callers_value_is_passed_on(backend: Backend) {
    let run = backend.run("environ").env("MINE", "a value").flag("-e", "MINE");
    run.flag("-e", "NOT_SET").end().status(0).prints("MINE=a value\n");
}

fn files_list_variables(backend: Backend) {
    let dir = tempdir();
    let file = dir.path().join("variables");
    fs::write(&file, "# a comment\nA=1\n\n  B=two words\nMINE\nNOT_SET\n").unwrap();
    let run = backend.run("environ").env("MINE", "m").flag("--env-file", &file);
    run.end().status(0).prints("A=1\nB=two words\nMINE=m\n");
}

fn the_last_word_counts(backend: Backend) {
    let dir = tempdir();
    let file = dir.path().join("variables");
    fs::write(&file, "A=file\nB=file\n").unwrap();
    let run = backend.run("environ").flag("-e", "A=flag").flag("--env-file", &file);
    run.end().status(0).prints("A=flag\nB=file\n");
    let run = backend.run("environ").flag("-e", "A=1").flag("-e", "A=2");
    run.end().status(0).prints("A=2\n");
}

fn a_working_directory_is_told(backend: Backend) {
    let dir = tempdir();
    let run = |at| backend.run("environ").volume(dir.path(), "/data").flag("-w", at);
    run("/data").end().status(0).prints("PWD=/data\n");
    run("/data").flag("-e", "PWD=/mine").end().status(0).prints("PWD=/mine\n");
}

fn what_is_no_text_is_refused(backend: Backend) {
    let bad = OsStr::from_bytes(b"B=\xff");
    let end = backend.run("environ").flag("-e", bad).end().status(125).prints("");
    end.says_only(&["the value of the variable B", "UTF-8"]);
    let bad = OsStr::from_bytes(b"\xff=1");
    backend.run("environ").flag("-e", bad).end().status(125).says_only(&["UTF-8"]);
    let end = backend.run("environ").env("BAD", OsStr::from_bytes(b"\xff")).flag("-e", "BAD").end();
    end.status(125).says_only(&["the variable BAD", "UTF-8"]);
}

fn what_is_no_text_arrives(backend: Backend) {
    let bad = OsStr::from_bytes;
    let run = backend.run("environ").env("BAD", bad(b"\xff")).flag("-e", "BAD");
    let end = run.flag("-e", bad(b"B=\xfe")).flag("-e", bad(b"\xfd=1")).end().status(0);
    assert!(end.stdout == b"BAD=\xff\nB=\xfe\n\xfd=1\n", "{end}");
    end.silent();
}

#[test]
fn a_variable_has_a_name() {
    let workload = crate::support::guest("environ");
    let end = Sbx::run(&workload).flag("-e", "=x").end().status(125).prints("");
    assert!(end.err().contains("a variable needs a name"), "{end}");
    let dir = tempdir();
    let file = dir.path().join("variables");
    fs::write(&file, "A=1\n=x\n").unwrap();
    let end = Sbx::run(&workload).flag("--env-file", &file).end();
    end.status(125).says_only(&["line 2", "a variable needs a name"]);
    let end = Sbx::run(&workload).flag("--env-file", "/nowhere").end();
    end.status(125).says_only(&["cannot read the variables in /nowhere"]);
}
