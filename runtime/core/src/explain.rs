//! The form of `--explain`, the same for every backend: lines of a name and what is to be said of it.

use std::fmt::{Display, Write as _};

use crate::Spec;

/// An explanation that is being written.
#[derive(Debug, Default)]
pub struct Explanation(String);

impl Explanation {
    /// One line.
    pub fn line(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name:<12}{value}");
    }

    /// A line for each item, or one that says `none`.
    pub fn section(&mut self, name: &str, items: impl IntoIterator<Item = String>, none: &str) {
        let mut name = name;
        for item in items {
            self.line(name, item);
            name = "";
        }
        if !name.is_empty() {
            self.line(name, none);
        }
    }

    /// What the workload is granted and held to.
    pub fn grants(&mut self, spec: &Spec) {
        self.section("granted", granted(spec), "nothing");
        let limits = spec.limits.describe();
        let limits = limits.iter().map(|(name, value)| format!("--{name} {value}"));
        self.section("limits", limits, "none");
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

fn granted(spec: &Spec) -> Vec<String> {
    let access = |read_only| if read_only { "read-only" } else { "read and write" };
    let mut granted = Vec::new();
    let machine = &spec.machine;
    granted.extend(machine.rootfs.iter().map(|dir| {
        format!("directory {} as the root, read-only below a layer in memory", dir.display())
    }));
    for disk in &machine.disks {
        granted.push(format!("disk {}, {}", disk.file.display(), access(disk.read_only)));
    }
    granted.extend(machine.net.iter().map(|tap| format!("the network behind {}", tap.name)));
    for v in &spec.volumes {
        let (host, access) = (v.host.display(), access(v.read_only));
        granted.push(format!("directory {host} at {}, {access}", v.guest));
    }
    // Values may be secrets.
    granted.extend(spec.env.iter().map(|(key, _)| format!("variable {}", key.display())));
    granted.extend(spec.workdir.iter().map(|dir| format!("working directory {dir}")));
    granted.extend(spec.allow_net.iter().map(|rule| format!("connections to {rule}")));
    granted.extend(spec.listen.iter().map(|address| format!("listening on {address}")));
    granted.extend(spec.stdin.then(|| "standard input".into()));
    granted.extend(spec.tty.then(|| "the terminal".into()));
    granted
}
