//! Programs of the host's that need nothing but a kernel: packed and run, without a word about machines.

use crate::support::{Sbx, root, tempdir};
use crate::tuned;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn native(name: &str) -> Sbx {
    Sbx::run(root().join("target/guests/native").join(name)).flag("--kernel", tuned())
}

#[test]
fn a_static_program_runs() {
    let end = native("args").args(["one", "two words", ""]).end().status(0).silent();
    assert!(end.out().contains("two words"), "{end}");
    native("exit").args(["9"]).end().status(9).prints("").silent();
}

#[test]
fn its_input_is_the_callers() {
    native("cat").flags("-i").stdin("to be copied\n").end().status(0).prints("to be copied\n");
    native("cat").stdin("not granted\n").end().status(0).prints("");
}

/// A program of an interpreter and libraries is told what to do.
#[test]
fn a_dynamic_program_is_refused() {
    for program in ["/bin/ls", "/usr/bin/env"] {
        let end = Sbx::run(program).flag("--kernel", tuned()).end().status(126).prints("");
        end.says_only(&["ld-linux", "--rootfs", "statically"]);
    }
}

#[test]
fn a_name_may_hold_anything() {
    let dir = tempdir();
    for name in ["a \u{e9} b".as_bytes(), b"no \xff text"] {
        let path = dir.path().join(OsStr::from_bytes(name));
        std::fs::copy(root().join("target/guests/native/exit"), &path).unwrap();
        Sbx::run(path).flag("--kernel", tuned()).args(["4"]).end().status(4).silent();
    }
}
