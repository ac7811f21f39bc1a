//! Programs of the host's that need nothing but a kernel: packed and run, without a word about machines.

use crate::support::{Sbx, root, tempdir};
use crate::{Executor, on_every_executor, tuned};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

on_every_executor! {
    a_static_program_runs,
    its_input_is_the_callers,
    a_dynamic_program_is_refused,
    a_name_may_hold_anything,
}

fn native(on: Executor, name: &str) -> Sbx {
    on.run(root().join("target/guests/native").join(name)).flag("--kernel", tuned())
}

fn a_static_program_runs(on: Executor) {
    let end = native(on, "args").args(["one", "two words", ""]).end().status(0).silent();
    assert!(end.out().contains("two words"), "{end}");
    native(on, "exit").args(["9"]).end().status(9).prints("").silent();
}

fn its_input_is_the_callers(on: Executor) {
    native(on, "cat").flags("-i").stdin("to be copied\n").end().status(0).prints("to be copied\n");
    native(on, "cat").stdin("not granted\n").end().status(0).prints("");
}

/// A program of an interpreter and libraries is told what to do.
fn a_dynamic_program_is_refused(on: Executor) {
    for program in ["/bin/ls", "/usr/bin/env"] {
        let end = on.run(program).flag("--kernel", tuned()).end().status(126).prints("");
        end.says_only(&["ld-linux", "--rootfs", "statically"]);
    }
}

fn a_name_may_hold_anything(on: Executor) {
    let dir = tempdir();
    for name in ["a \u{e9} b".as_bytes(), b"no \xff text"] {
        let path = dir.path().join(OsStr::from_bytes(name));
        std::fs::copy(root().join("target/guests/native/exit"), &path).unwrap();
        on.run(path).flag("--kernel", tuned()).args(["4"]).end().status(4).silent();
    }
}
