//! `--explain`: what a workload is, what it imports, and what it would be granted; without running
//! it.

use sbx_core::{Result, Spec};
use std::fmt::{Display, Write as _};

use crate::WasmBackend;
use crate::backend::variant;
use crate::program::{self, Compiler, Program};

/// Describes how `backend` would run `spec`, as text for people.
///
/// # Errors
/// As for running it, as far as the program itself goes.
pub fn explain(backend: &WasmBackend, spec: &Spec) -> Result<String> {
    let compiler = Compiler { limits: &backend.compile, progress: &*backend.progress };
    let (program, origin) = program::load(&spec.workload, variant(&spec.limits), &compiler)?;
    let (what, imports) = match &program {
        Program::Module(module) => (
            "a core module using WASI preview 1",
            module.imports().map(|i| format!("{}.{}", i.module(), i.name())).collect(),
        ),
        Program::Component(component) => (
            "a component using WASI 0.2",
            component
                .component_type()
                .imports(component.engine())
                .map(|(name, _)| name.to_owned())
                .collect::<Vec<_>>(),
        ),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("workload", &spec.workload.display());
    line("backend", &format_args!("wasm, because the file is {what}"));
    line("code", &origin);
    section(&mut line, "imports", imports.iter().map(|i| i.escape_debug().to_string()), "nothing");
    section(&mut line, "granted", granted(spec), "nothing");
    let limits = spec.limits.describe();
    let limits = limits.iter().map(|(name, value)| format!("--{name} {value}"));
    section(&mut line, "limits", limits, "none");
    Ok(text)
}

fn section(
    line: &mut dyn FnMut(&str, &dyn Display),
    name: &str,
    items: impl IntoIterator<Item = String>,
    none: &str,
) {
    let mut name = name;
    for item in items {
        line(name, &item);
        name = "";
    }
    if !name.is_empty() {
        line(name, &none);
    }
}

fn granted(spec: &Spec) -> Vec<String> {
    let mut granted = Vec::new();
    for v in &spec.volumes {
        let access = if v.read_only { "read-only" } else { "read and write" };
        granted.push(format!("directory {} at {}, {access}", v.host.display(), v.guest));
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
