//! `sbx stats` and `sbx top`: which sandboxes they show, and in which form. That the numbers are true is a
//! promise of tests/conformance.

use crate::support::{Kept, Sbx, eventually, guest};
use serde_json::Value;

/// A sandbox that runs, `x`, and one that does not, `y`.
fn two() -> Kept {
    let kept = Kept::new();
    kept.run(guest("spin")).flags("--name x --memory 64M").end().status(0);
    kept.created(Sbx::run(guest("spin")).flags("--name y")).end().status(0);
    kept
}

/// The cells of a table, which are two spaces apart at least.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn a_table() {
    let kept = two();
    let table = |flags: &str| kept.sbx("stats --no-stream").flags(flags).end().status(0).silent();
    let out = table("").out();
    let lines: Vec<_> = out.lines().map(cells).collect();
    let headings = [
        "SANDBOX ID",
        "NAME",
        "BACKEND",
        "CPU %",
        "MEM USAGE / LIMIT",
        "BLOCK I/O",
        "PIDS",
        "UPTIME",
    ];
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0], headings);
    let id = kept.inspect("x")["id"].as_str().unwrap()[..12].to_owned();
    assert_eq!(lines[1][..3], [&id, "x", "wasm"]);
    assert!(lines[1][3].ends_with('%') && lines[1][4].ends_with(" / 64.0 MiB"), "{out}");
    assert_eq!(lines[1][6], "1", "{out}");
    let out = table("--all").out();
    let lines: Vec<_> = out.lines().map(cells).collect();
    let names: Vec<_> = lines.iter().map(|line| line[1]).collect();
    assert_eq!(names, ["NAME", "y", "x"], "the newest is the first\n{out}");
    assert_eq!(lines[1][2..], ["wasm", "-", "- / -", "- / -", "-", "-"]);
}

#[test]
fn raw_numbers() {
    let kept = two();
    let end = kept.sbx("stats --no-stream --all --format json").end().status(0).silent();
    let all: Vec<Value> = serde_json::from_slice(&end.stdout).unwrap();
    // What is asked for by name is shown whatever it does.
    let named = kept.sbx("stats --no-stream --format json y").end().status(0).silent();
    assert!(named.out().contains("\"state\": \"created\""), "{named}");
    let of = |name: &str| all.iter().find(|one| one["name"] == name).unwrap();
    let x = of("x");
    assert_eq!(x["memory_limit_bytes"], 64 << 20, "{end}");
    assert_eq!((&x["state"], &x["accelerator"]), (&"running".into(), &Value::Null));
    for known in ["cpu_seconds", "memory_bytes", "pids", "uptime_seconds", "read_bytes"] {
        assert!(x[known].is_number(), "{known} in {end}");
        assert!(of("y")[known].is_null(), "{known} in {end}");
    }
}

/// It goes on until all that was asked for is gone.
#[test]
fn again_and_again() {
    let kept = two();
    let (lists, tables) = (kept.sbx("stats x --format json").start(), kept.sbx("stats x").start());
    let twice = |text: String, word: &str| text.matches(word).count() >= 2;
    eventually("there is no second list", || twice(lists.printed(), "\"name\":\"x\""));
    eventually("there is no second table", || twice(tables.printed(), "SANDBOX ID"));
    kept.sbx("rm -f x").end().status(0);
    let end = lists.end().status(0).silent();
    for line in end.out().lines() {
        let list: Vec<Value> = serde_json::from_str(line).unwrap();
        assert_eq!(list.len(), 1, "{end}");
    }
    let end = tables.end().status(0).silent();
    // There is no terminal that could be told to draw it anew.
    assert!(!end.out().contains('\x1b'), "{end}");
}

#[test]
fn the_processes_of_one() {
    let kept = two();
    let end = kept.sbx("top x").end().status(0).silent();
    let out = end.out();
    let lines: Vec<_> = out.lines().map(cells).collect();
    assert_eq!(lines[0], ["PID", "PPID", "THREADS", "STATE", "CPU TIME", "RSS", "NAME"]);
    let status = kept.inspect("x")["status"].clone();
    let pids = [status["process"].to_string(), status["supervisor"].to_string()];
    assert_eq!(lines.len(), 2, "{end}");
    assert_eq!(lines[1][..3], [&pids[0], &pids[1], "1"], "{end}");
    kept.sbx("top y").end().status(125).prints("").says_only(&["a sandbox that is created"]);
}

/// A metric of each sandbox that runs, with a head that says what it is; and how many there are.
#[test]
fn metrics_for_prometheus() {
    let kept = two();
    let end = kept.sbx("metrics").end().status(0).silent();
    let out = end.out();
    assert!(out.contains("sbx_sandboxes{state=\"running\"} 1\n"), "{end}");
    assert!(out.contains("sbx_sandboxes{state=\"created\"} 1\n"), "{end}");
    let mut known = "";
    for line in out.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            known = name;
        } else if !line.starts_with("# HELP ") {
            let (metric, value) = line.rsplit_once(' ').unwrap();
            assert!(metric.starts_with(&format!("{known}{{")), "{line}");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        }
    }
    let limit = out.lines().find(|line| line.starts_with("sbx_memory_limit_bytes{")).unwrap();
    assert!(limit.contains("name=\"x\"") && limit.ends_with(" 67108864"), "{end}");
    assert!(!out.contains("name=\"y\""), "it does not run\n{end}");
}

#[test]
fn what_is_refused() {
    let kept = Kept::new();
    for verb in ["stats", "stats --no-stream", "top"] {
        let end = kept.sbx(verb).flags("x").end().status(125).prints("");
        end.says_only(&["there is no sandbox x"]);
    }
    kept.sbx("top").end().status(125);
    kept.sbx("stats --no-stream --format json").end().status(0).prints("[]\n").silent();
}
