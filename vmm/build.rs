//! Builds the guest's init, which is embedded in the library (`INIT`).
//!
//! It is a build of its own: the guest's program has another profile than the host's, other linker
//! arguments and no C library. It has a target directory of its own too, because cargo has locked the
//! one that this build goes to.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Where sbx's guests run.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Static, at a fixed address, and started by its own code.
const FLAGS: [&str; 4] = [
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nodefaultlibs",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in ["init/src", "init/Cargo.toml", "proto/src", "proto/Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("init");
    // What is needed is mostly there, since init's dependencies are nearly all sbx's own.
    if !build(&out, true)?.success() && !build(&out, false)?.success() {
        return Err("the guest's init could not be built: see above".into());
    }
    let program = out.join(TARGET).join("init/sbx-init");
    println!("cargo::rustc-env=SBX_INIT={}", program.display());
    Ok(())
}

/// Runs cargo, first without the network.
fn build(out: &Path, offline: bool) -> Result<ExitStatus, Box<dyn std::error::Error>> {
    let mut cargo = Command::new(std::env::var("CARGO")?);
    cargo
        .args(["build", "--locked", "--package=sbx-init", "--features=guest", "--profile=init"])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(out);
    if offline {
        cargo.arg("--offline");
    }
    // The outer build's own: its flags, the lints' compiler, what it says of this package.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let outer = ["CARGO_PKG_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PROFILE_"];
        if outer.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(&*name);
        }
    }
    for name in ["RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_LINKER", "TARGET"] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    Ok(cargo.status()?)
}
