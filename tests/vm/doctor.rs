//! `sbx doctor` of what microVMs need. tests/cli has what it says of a host without a KVM.

use crate::support::{Sbx, tempdir};
use crate::{Executor, on_every_executor};

on_every_executor! {
    ;
    // What it says of a KVM that is a real one; that there is QEMU is of no weight then.
    kvm: a_host_that_can_run_everything,
}

fn a_host_that_can_run_everything(_: Executor) {
    let end = Sbx::new("doctor").end();
    let out = end.out();
    let kvm = out.lines().find(|line| line.contains("/dev/kvm")).unwrap();
    assert!(kvm.starts_with("ok") && kvm.contains("backed by hardware"), "{end}");
    // A host without a kernel to boot by default, or without huge pages, runs both kinds all the same.
    assert!(!out.contains("MISSING"), "{end}");
    end.status(0).silent();
}

/// No machine has a part in this.
#[test]
fn the_default_kernel_is_named() {
    let data = tempdir();
    let kernel = data.path().join("sbx/vmlinux");
    std::fs::create_dir(data.path().join("sbx")).unwrap();
    std::os::unix::fs::symlink(crate::tuned(), &kernel).unwrap();
    let end = Sbx::new("doctor --format json").env("XDG_DATA_HOME", data.path()).end().status(0);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&end.out()).unwrap();
    let check = checks.iter().find(|check| check["name"] == "kernel").unwrap();
    assert_eq!(check["verdict"], "ok", "{end}");
    assert!(check["found"].as_str().unwrap().contains(kernel.to_str().unwrap()), "{end}");
}
