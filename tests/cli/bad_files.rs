//! Every file that is no workload is told what it is instead, in one sentence, with 126 (127 where
//! there is none); and nothing else is printed.

use crate::support::{Outcome, Sbx, guest, root, tempdir};
use std::fs;
use std::path::Path;

fn run_bytes(bytes: impl AsRef<[u8]>) -> Outcome {
    let dir = tempdir();
    let path = dir.path().join("app.wasm");
    fs::write(&path, bytes).unwrap();
    Sbx::run(path).end()
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, words: &[&str]) {
    run_bytes(bytes).status(126).prints("").says_only(words);
}

#[test]
fn nothing_there() {
    let end = Sbx::run("/nowhere/app.wasm").end().status(127).prints("");
    end.says_only(&["there is no workload at /nowhere/app.wasm"]);
    let below_a_file = guest("exit").join("x");
    Sbx::run(below_a_file).end().status(127).says_only(&["there is no workload at"]);
}

#[test]
fn an_empty_file() {
    refused("", &["app.wasm is empty", "sbx runs WASI programs"]);
}

#[test]
fn a_truncated_module() {
    let whole = fs::read(guest("exit")).unwrap();
    refused(&whole[..4], &["cut short"]);
    for length in [9, 20, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length], &["app.wasm cannot be compiled: it is not valid WebAssembly"]);
    }
}

#[test]
fn a_damaged_module() {
    let whole = fs::read(guest("exit")).unwrap();
    let mut seen = 0;
    for at in (8..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let end = run_bytes(&bytes);
        end.assert_no_debug_output();
        assert!(end.status.code().is_some(), "byte {at}: sbx was killed\n{end}");
        if end.status.code() == Some(126) {
            seen += 1;
            drop(end.says_only(&[]));
        }
    }
    assert!(seen > 5, "only {seen} of the damaged modules were refused");
}

#[test]
fn text_files() {
    refused("hello\n", &["is a text file that does not start with a WebAssembly (module"]);
    refused("#!/bin/sh\necho hi\n", &["is a script, not WebAssembly"]);
    refused(
        "(module (func (export \"_start\") (nonsense)))",
        &["not valid WebAssembly text", "line 1, column"],
    );
    refused("(module\n\n  (func", &["not valid WebAssembly text", "line 3"]);
}

#[test]
fn other_binaries() {
    refused(fs::read("/bin/true").unwrap(), &["needs /lib64/ld-linux", "--rootfs"]);
    refused([0x1f, 0x8b, 8, 0], &["is a compressed file"]);
    refused([0xff, 0xfe, 0, 1, 2], &["is not WebAssembly"]);
    refused(b"\0asm\x02\0\0\0", &["unknown version"]);
}

#[test]
fn no_regular_file() {
    let end = Sbx::run("/usr").end().status(126).prints("");
    end.says_only(&["/usr is a directory; name the program in it"]);
    Sbx::run("/dev/zero").end().status(126).says_only(&["/dev/zero is not a regular file"]);
    // A pipe that nobody writes to must not hold sbx up.
    let dir = tempdir();
    let pipe = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    Sbx::run(&pipe).end().status(126).says_only(&["is not a regular file"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    if !crate::support::is_root() {
        return crate::support::skipped("only root can become another user");
    }
    let dir = tempdir();
    let path = dir.path().join("app.wasm");
    fs::copy(guest("exit"), &path).unwrap();
    set_mode(dir.path(), 0o755);
    set_mode(&path, 0o600);
    let end = Sbx::run(&path).user(65534).end().status(126).prints("");
    end.says_only(&["cannot open", "Permission denied"]);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_unknown_import() {
    let with = |module: &str, name: &str| {
        format!(r#"(module (import "{module}" "{name}" (func)) (func (export "_start")))"#)
    };
    refused(
        with("env", "emscripten_x"),
        &["imports env.emscripten_x, which is unknown", "build it for WASI"],
    );
    refused(with("wasi_unstable", "fd_write"), &["preview 0"]);
    refused(with("wasi_snapshot_preview1", "fd_wrote"), &["no such function"]);
    refused(with("wasi", "thread-spawn"), &["threads"]);
    // A name is printed as text, whatever it holds.
    refused(with("a\\1b[31m\\0a", "b\\0ac"), &["a\\u{1b}[31m\\n.b\\nc"]);
    refused(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param f64))) (func (export "_start")))"#,
        &["do not fit what sbx provides"],
    );
    refused(
        r#"(component (import "test:own/thing@1.0.0" (instance)))"#,
        &["test:own/thing@1.0.0", "wasi:cli/command"],
    );
}

#[test]
fn a_library() {
    refused("(module)", &["is a library", "no _start"]);
    refused("(component)", &["is a library", "wasi:cli/run"]);
    refused(r#"(module (memory (export "_start") 1))"#, &["is a library"]);
}

#[test]
fn a_start_of_the_wrong_type() {
    for ty in ["(param i32)", "(result i32)"] {
        let module = format!(r#"(module (func (export "_start") {ty} unreachable))"#);
        let end = run_bytes(module);
        end.assert_no_debug_output();
        assert!(matches!(end.status.code(), Some(126 | 134)), "{end}");
        assert_eq!(end.sentences().len(), 1, "{end}");
    }
}

#[test]
fn features_that_are_not_there() {
    refused(
        r#"(module (memory 1 1 shared) (func (export "_start")))"#,
        &["not valid WebAssembly", "threads"],
    );
}

#[test]
fn a_sparse_giant() {
    let dir = tempdir();
    let path = dir.path().join("app.wasm");
    fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    Sbx::run(&path).end().status(126).says_only(&["is too large to be a program"]);
}

#[test]
fn the_examples_run() {
    let run = |name: &str| Sbx::run(root().join("examples").join(name)).end().status(0).silent();
    run("hello.wat").prints("Hello from a sandbox!\n");
    run("c/hello.wasm").prints("Hello from C!\n");
    run("c/hello-component.wasm").prints("Hello from C!\n");
}
