//! `sbx doctor`: each thing that matters by name, what it means, how to mend it, and an exit status that
//! says whether all that sbx can run runs here.

use crate::support::{Outcome, Sbx, skipped};

const NAMES: [&str; 9] = [
    "wasm",
    "kvm",
    "emulation",
    "kernel",
    "cgroups",
    "namespaces",
    "seccomp",
    "landlock",
    "hugepages",
];

/// Whether this host's processor has what a KVM needs.
pub(crate) fn has_hardware() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

fn json() -> (Vec<serde_json::Value>, Outcome) {
    let end = Sbx::new("doctor --format json").end().silent();
    (serde_json::from_str(&end.out()).unwrap(), end)
}

#[test]
fn each_thing_is_told_by_name() {
    let table = Sbx::new("doctor").end().silent();
    let (checks, _) = json();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, NAMES);
    let out = table.out();
    for check in &checks {
        let (found, mend) = (check["found"].as_str().unwrap(), check["mend"].as_str());
        assert!(out.contains(found) && out.contains(mend.unwrap_or_default()), "{table}");
        // What is not as it should be comes with what to do about it.
        assert_eq!(check["verdict"] == "ok", mend.is_none(), "{check}");
    }
    // A line for each, and one for each that can be mended.
    let mends = checks.iter().filter(|check| check["mend"].is_string()).count();
    assert_eq!(out.lines().count(), NAMES.len() + mends, "{table}");
}

#[test]
fn the_status_is_0_only_if_nothing_is_missing() {
    let (checks, end) = json();
    let missing = checks.iter().filter(|check| check["verdict"] == "missing").count();
    end.status(i32::from(missing > 0));
    // WebAssembly runs wherever this test does; a KVM that only emulates is as good as none, and where
    // there is none QEMU will do.
    let usable = has_hardware() && std::fs::File::open("/dev/kvm").is_ok();
    assert_eq!(verdict(&checks, "kvm"), if usable { "ok" } else { "lacking" });
    assert_eq!(verdict(&checks, "emulation"), "ok");
}

fn verdict(checks: &[serde_json::Value], name: &str) -> String {
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    check["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn a_host_that_can_run_no_machine_misses_something() {
    if has_hardware() {
        return skipped("this host's KVM may be a real one, and then nothing is missing");
    }
    let end = Sbx::new("doctor --format json").env("PATH", "/nowhere").end().status(1).silent();
    let checks: Vec<_> = serde_json::from_str(&end.out()).unwrap();
    assert_eq!(verdict(&checks, "kvm"), "missing", "{end}");
    assert_eq!(verdict(&checks, "emulation"), "lacking", "{end}");
    assert!(end.out().contains("package qemu-system-x86"), "{end}");
}
