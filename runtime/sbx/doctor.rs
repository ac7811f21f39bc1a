//! `sbx doctor`: what this host can do, what that means, and how to mend what it cannot.

use anyhow::Result;
use sbx_host::{Cgroup, cgroup, landlock};
use sbx_vmm::accel;
use serde::Serialize;
use std::fs;

use crate::args::Format;
use crate::print;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It is as it should be.
    Ok,
    /// Something works less well without it.
    Lacking,
    /// A backend cannot run without it.
    Missing,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found, and what that means.
    found: String,
    /// How to mend it.
    mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), mend: None }
    }

    fn lacking(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Lacking, found: found.into(), mend: Some(mend.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Missing, ..Self::lacking(name, found, mend) }
    }
}

pub(crate) fn doctor(format: Format) -> Result<u8> {
    let checks = [
        wasm(),
        kvm(),
        emulation(),
        kernel(),
        cgroups(),
        namespaces(),
        seccomp(),
        landlock_version(),
        huge_pages(),
    ];
    let text = match format {
        Format::Table => table(&checks),
        Format::Json => serde_json::to_string_pretty(&checks)? + "\n",
    };
    print::answer(text)?;
    Ok(u8::from(checks.iter().any(|check| check.verdict == Verdict::Missing)))
}

fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, verdict, found, mend } in checks {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Lacking => "lacking",
            Verdict::Missing => "MISSING",
        };
        text.push_str(&format!("{verdict:<9}{name:<12}{found}\n"));
        if let Some(mend) = mend {
            text.push_str(&format!("{:<21}{mend}\n", ""));
        }
    }
    text
}

fn wasm() -> Check {
    match sbx_wasm::can_run() {
        Ok(()) => Check::ok("wasm", "WebAssembly sandboxes run here"),
        Err(e) => Check::missing("wasm", e.to_string(), "this build of sbx does not fit this host"),
    }
}

fn kvm() -> Check {
    let Err(e) = sbx_vmm::kvm::open() else {
        return Check::ok("kvm", "/dev/kvm is present, permitted and backed by hardware");
    };
    let text = e.to_string();
    let (found, mend) = text.split_once(&[':', ';'][..]).unwrap_or((&text, "see dmesg"));
    match accel::emulator() {
        Some(_) => Check::lacking(
            "kvm",
            format!("{found}; microVMs are emulated in software, {} slower", accel::SLOWER),
            mend.trim(),
        ),
        None => Check::missing("kvm", format!("{found}; no microVM runs here"), mend.trim()),
    }
}

fn emulation() -> Check {
    match (accel::emulator(), sbx_vmm::kvm::open()) {
        (Some(qemu), _) => {
            Check::ok("emulation", format!("{} runs microVMs where KVM cannot", qemu.display()))
        }
        (None, Ok(_)) => Check::ok("emulation", "QEMU is not installed, and not needed beside KVM"),
        (None, Err(_)) => Check::lacking(
            "emulation",
            "QEMU is not installed, which could run microVMs without KVM",
            format!("install it, {}", accel::INSTALL),
        ),
    }
}

fn kernel() -> Check {
    match sbx_vmm::kernel::find(None) {
        Ok(path) => Check::ok("kernel", format!("guests boot {} by default", path.display())),
        Err(_) => Check::lacking(
            "kernel",
            "there is none to boot by default, so that each microVM has to be given one",
            format!(
                "put one at {}, or install your distribution's",
                sbx_vmm::kernel::own_place().display()
            ),
        ),
    }
}

fn cgroups() -> Check {
    let Some(cgroup::Available { version, controllers }) = cgroup::available() else {
        return Check::lacking(
            "cgroups",
            "none are mounted; fractions of a processor (--cpus 0.5) are refused",
            "mount -t cgroup2 none /sys/fs/cgroup, as root",
        );
    };
    let found = match controllers.as_slice() {
        [] => format!("version {version}, no controller of it given to this user"),
        some => format!("version {version}, with {}", some.join(" ")),
    };
    // The only way to know is to try.
    match Cgroup::with_cpus(500) {
        Ok(_) => Check::ok("cgroups", found),
        Err(_) => Check::lacking(
            "cgroups",
            format!("{found}; fractions of a processor (--cpus 0.5) are refused"),
            "run sbx as root, or in a systemd user session that is delegated the cpu controller",
        ),
    }
}

fn namespaces() -> Check {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    if number("/proc/sys/user/max_user_namespaces").unwrap_or(0) == 0 {
        return Check::lacking(
            "namespaces",
            "user namespaces are off; only root's sandboxes can have a network of their own",
            "sysctl -w user.max_user_namespaces=10000, as root",
        );
    }
    for (switch, closed) in [
        ("kernel/unprivileged_userns_clone", 0),
        ("kernel/apparmor_restrict_unprivileged_userns", 1),
    ] {
        if number(&format!("/proc/sys/{switch}")) == Some(closed) {
            return Check::lacking(
                "namespaces",
                "user namespaces are for root only",
                format!("sysctl -w {}={}, as root", switch.replace('/', "."), 1 - closed),
            );
        }
    }
    Check::ok("namespaces", "user namespaces are on")
}

fn seccomp() -> Check {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "kill_process") {
        Check::ok("seccomp", "each thread of a microVM is held to the system calls it needs")
    } else {
        Check::missing(
            "seccomp",
            "the kernel has none, and sbx runs no guest without",
            "boot a kernel with CONFIG_SECCOMP_FILTER, 4.14 or newer",
        )
    }
}

fn landlock_version() -> Check {
    match landlock::version() {
        0 => Check::lacking(
            "landlock",
            "the kernel has none; a sandbox is confined to its directories by its engine alone",
            "boot a kernel from 5.13 on with landlock among its lsm= modules",
        ),
        version @ 1..4 => Check::lacking(
            "landlock",
            format!("version {version} confines files, and TCP only from version 4 on"),
            "boot a kernel from 6.7 on",
        ),
        version => Check::ok("landlock", format!("version {version} confines files and TCP")),
    }
}

fn huge_pages() -> Check {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    match setting.unwrap_or_default() {
        on if on.contains("[always]") || on.contains("[madvise]") => {
            Check::ok("hugepages", "guest memory is given huge pages")
        }
        _ => Check::lacking(
            "hugepages",
            "transparent huge pages are off; guests run, with more page faults",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root",
        ),
    }
}
