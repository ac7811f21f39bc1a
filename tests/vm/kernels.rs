//! Kernels: one built for microVMs, and one as a distribution ships it.

use crate::support::{Sbx, root};
use crate::guest;

#[test]
fn a_tuned_kernel_runs_a_command() {
    guest("-- /bin/echo hi").end().status(0).prints("hi\n").silent();
}

/// Debian's cloud kernel, a bzImage with its drivers as modules.
#[test]
fn a_stock_kernel_runs_a_command() {
    let boot = root().join("target/kernel/debian/boot");
    let kernel = std::fs::read_dir(boot)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("vmlinuz-"))
        .unwrap();
    Sbx::run(kernel).flags("--vm").args(["--", "/bin/echo", "hi"]).end().status(0).prints("hi\n");
}
