//! `--explain`: what a workload is, what it imports, and what it would be granted; without running
//! it.

use sbx_core::explain::Explanation;
use sbx_core::{Result, Spec};

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
    let mut text = Explanation::default();
    text.line("workload", spec.workload.display());
    text.line("backend", format_args!("wasm, because the file is {what}"));
    text.line("code", origin);
    let imports = imports.iter().map(|i| i.escape_debug().to_string());
    text.section("imports", imports, "nothing");
    text.grants(spec);
    Ok(text.finish())
}
