//! Compiling is bounded: what takes too much time or memory is refused with a sentence that names
//! the flag, and sbx itself, which only waits for it, stays small.

use crate::lifecycle::large_module;
use crate::support::{Kept, Sbx, guest, tempdir};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A module whose one function the compiler has a hard time with: each of its `count` values is
/// needed until the end.
fn bomb(dir: &Path, count: usize) -> PathBuf {
    let text = large_module(count);
    let path = dir.join("bomb.wasm");
    fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path
}

#[test]
fn time_is_bounded() {
    let (dir, cache) = (tempdir(), tempdir());
    let bomb = bomb(dir.path(), 3000);
    let end = Sbx::run(&bomb).cache(cache.path()).flags("--compile-time 100ms").end();
    let end = end.status(126).prints("");
    end.says_only(&["took more than 100ms of processor time", "--compile-time"]);
    // What was refused left nothing that a later run would take for code.
    Sbx::run(&bomb).cache(cache.path()).end().status(0).silent();
}

#[test]
fn memory_is_bounded() {
    let (dir, cache) = (tempdir(), tempdir());
    let bomb = bomb(dir.path(), 3000);
    for memory in ["1M", "24M"] {
        let run = Sbx::run(&bomb).cache(cache.path());
        let end = run.flag("--compile-memory", memory).end().status(126).prints("");
        end.says_only(&["took more than", "of memory", "--compile-memory"]);
    }
    let end = Sbx::new("compile --compile-memory 24M").flag("--", &bomb).cache(cache.path()).end();
    end.status(126).prints("").says_only(&["of memory", "--compile-memory"]);
}

/// Nothing is kept of what could not be compiled.
#[test]
fn what_is_kept_is_bounded_too() {
    let (dir, cache, kept) = (tempdir(), tempdir(), Kept::new());
    let bomb = bomb(dir.path(), 3000);
    let run = |sbx: Sbx, flags: &str| {
        kept.keep(sbx).flags(flags).flag("--", &bomb).cache(cache.path()).end().status(126)
    };
    for sbx in ["run -d", "run --name x", "create"] {
        let end = run(Sbx::new(sbx), "--compile-memory 24M").prints("");
        end.says_only(&["of memory", "--compile-memory"]);
        let end = run(Sbx::new(sbx), "--compile-time 100ms").prints("");
        end.says_only(&["took more than 100ms of processor time", "--compile-time"]);
    }
    kept.sbx("ps -aq").end().status(0).prints("").silent();
}

#[test]
fn enough_is_enough() {
    let cache = tempdir();
    let run = Sbx::run(guest("exit")).cache(cache.path()).args(["5"]);
    run.flags("--compile-memory 256M --compile-time 60s").end().status(5).silent();
}

#[test]
fn sbx_itself_stays_small() {
    let (dir, cache) = (tempdir(), tempdir());
    let bomb = bomb(dir.path(), 3000);
    let running = Sbx::run(&bomb).cache(cache.path()).start();
    let status = format!("/proc/{}/status", running.pid().as_raw_nonzero());
    let mut peak = 0u64;
    while running.is_alive() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(running.end().status(0));
    // The module itself, and the code that it became, are mapped or read; the compiler took more.
    let files = fs::metadata(&bomb).unwrap().len() + code_size(cache.path());
    eprintln!("sbx used {peak} KiB at most, the files have {} KiB", files / 1024);
    assert!(peak > 0 && peak < 24 * 1024 + 2 * files / 1024, "sbx used {peak} KiB");
}

fn code_size(cache: &Path) -> u64 {
    let code = fs::read_dir(cache.join("sbx/code")).unwrap();
    code.map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

/// Many parameters, deep nesting, a huge table of branches: each is refused or compiled in time.
#[test]
fn shapes_that_compilers_dislike() {
    let dir = tempdir();
    let depth = 20_000;
    let shapes = [
        format!(
            r#"(module (func (export "_start") {}{}))"#,
            "(block ".repeat(2000),
            ")".repeat(2000)
        ),
        format!(
            r#"(module (func (export "_start") (block (br_table {} (i32.const 0)))))"#,
            "0 ".repeat(depth)
        ),
        format!(r#"(module (func (export "_start") (local {})))"#, "i64 ".repeat(60_000)),
        format!(
            r#"(module (func (export "_start")) {})"#,
            "(func (param i32) (local.set 0 (i32.const 1)))".repeat(depth)
        ),
        format!("(module {})", "(".repeat(depth)),
    ];
    for shape in shapes {
        let path = crate::support::wat(dir.path(), &shape);
        let end = Sbx::run(path).flags("--compile-memory 512M --compile-time 20s").end();
        end.assert_no_debug_output();
        assert!(matches!(end.status.code(), Some(0 | 126)), "{end}");
    }
}
