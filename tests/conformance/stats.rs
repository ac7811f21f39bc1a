//! `sbx stats`: what a sandbox uses is seen from outside, whatever holds it.

use crate::support::{Kept, eventually};
use crate::{Backend, on_every_backend};
use serde_json::Value;

on_every_backend! {
    a_loop_uses_a_processor,
}

/// What one sandbox uses now.
#[track_caller]
fn stats(kept: &Kept) -> Value {
    let end = kept.sbx("stats --no-stream --format json x").end().status(0).silent();
    let mut all: Vec<Value> = serde_json::from_slice(&end.stdout).unwrap();
    assert_eq!(all.len(), 1, "{end}");
    all.remove(0)
}

fn a_loop_uses_a_processor(backend: Backend) {
    let kept = Kept::new();
    kept.detached(backend.run("spin").flags("--name x")).end().status(0);
    kept.until_printed("x", "spinning\n");
    let first = stats(&kept);
    let (accelerator, limit) = match backend {
        Backend::Module | Backend::Component => (Value::Null, Value::Null),
        // What a machine has where nothing else is asked for.
        Backend::Vm => ("kvm".into(), (256u64 << 20).into()),
        Backend::Tcg => ("tcg".into(), (256u64 << 20).into()),
    };
    assert_eq!(first["accelerator"], accelerator, "{first}");
    assert_eq!(first["memory_limit_bytes"], limit, "{first}");
    // A guest's kernel alone is as large.
    let least = if backend.is_vm() { 4 << 20 } else { 100 << 10 };
    assert!(first["memory_bytes"].as_u64().unwrap() > least, "{first}");
    assert!(first["pids"].as_u64().unwrap() >= 1, "{first}");
    assert!(first["uptime_seconds"].as_f64().unwrap() > 0.0, "{first}");
    assert!(first["read_bytes"].is_u64() && first["write_bytes"].is_u64(), "{first}");
    let used = |of: &Value| of["cpu_seconds"].as_f64().unwrap();
    eventually("its processor time does not grow", || used(&stats(&kept)) >= used(&first) + 0.2);
    let table = kept.sbx("stats --no-stream x").end().status(0).silent().out();
    let percent = table.split_whitespace().find_map(|word| word.strip_suffix('%')?.parse().ok());
    assert!(percent.is_some_and(|percent: f64| percent > 0.0), "{table}");
    let top = kept.sbx("top x").end().status(0).silent().out();
    let emulator = top.contains("qemu");
    assert_eq!(emulator, backend == Backend::Tcg, "{top}");
}
