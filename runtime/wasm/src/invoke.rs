//! Which function of a core module is called: a command's `_start`, or with `--invoke` any export.
//!
//! A reactor's `_initialize` comes first. Arguments are read as the function's parameters are typed,
//! and what it returns is printed, a value a line. Not here: components, whose functions take richer
//! types.

use sbx_core::{Error, Result, Spec};
use std::io::Write as _;
use wasmtime::{Error as WasmError, ExternType, FuncType, Instance, Module, Store, Val, ValType};

use crate::preview1::State;

const START: &str = "_start";

/// A function has returned, and nobody can be told what.
#[derive(Debug, thiserror::Error)]
#[error("cannot write what the function returned to standard output: {0}")]
pub(crate) struct Unprinted(std::io::Error);

/// Checks that there is a function to call and that its arguments fit.
///
/// # Errors
/// Names the functions that there are.
pub(crate) fn check(module: &Module, spec: &Spec) -> Result<()> {
    let name = spec.invoke.as_deref().unwrap_or(START);
    match (module.get_export(name), &spec.invoke) {
        (Some(ExternType::Func(_)), None) => Ok(()),
        (Some(ExternType::Func(ty)), Some(_)) => {
            values(&ty, spec).map(|_| ()).map_err(Error::Refused)
        }
        (_, None) => Err(Error::NotRunnable(format!(
            "the module is a library: it exports no _start, which a program does; {}",
            functions(module)
        ))),
        (_, Some(name)) => Err(Error::Refused(format!(
            "the module exports no function {}; {}",
            name.escape_debug(),
            functions(module)
        ))),
    }
}

/// The functions that `--invoke` could name.
fn functions(module: &Module) -> String {
    let names: Vec<String> = module
        .exports()
        .filter(|e| matches!(e.ty(), ExternType::Func(_)) && !e.name().starts_with('_'))
        .map(|e| e.name().escape_debug().to_string())
        .take(10)
        .collect();
    match names.as_slice() {
        [] => "it exports no function that --invoke could call".into(),
        names => format!("--invoke can call: {}", names.join(", ")),
    }
}

/// Calls the function that `spec` names.
pub(crate) fn call(
    store: &mut Store<State>,
    instance: &Instance,
    spec: &Spec,
) -> wasmtime::Result<()> {
    let Some(name) = &spec.invoke else {
        return instance.get_typed_func::<(), ()>(&mut *store, START)?.call(store, ());
    };
    if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
        initialize.call(&mut *store, ())?;
    }
    let function = instance
        .get_func(&mut *store, name)
        .ok_or_else(|| WasmError::msg("the function has gone"))?;
    let ty = function.ty(&*store);
    let arguments = values(&ty, spec).map_err(WasmError::msg)?;
    let mut results = vec![Val::I32(0); ty.results().len()];
    function.call(&mut *store, &arguments, &mut results)?;
    for result in results {
        let line = match result {
            Val::I32(n) => n.to_string(),
            Val::I64(n) => n.to_string(),
            Val::F32(bits) => f32::from_bits(bits).to_string(),
            Val::F64(bits) => f64::from_bits(bits).to_string(),
            other => format!("{other:?}"),
        };
        writeln!(std::io::stdout(), "{line}").map_err(|e| WasmError::from(Unprinted(e)))?;
    }
    Ok(())
}

fn values(ty: &FuncType, spec: &Spec) -> std::result::Result<Vec<Val>, String> {
    let (wanted, given) = (ty.params().len(), spec.args.len());
    if wanted != given {
        return Err(format!("the function takes {wanted} arguments, and {given} were given"));
    }
    ty.params().zip(&spec.args).map(|(ty, text)| value(&ty, &text.to_string_lossy())).collect()
}

fn value(ty: &ValType, text: &str) -> std::result::Result<Val, String> {
    let wrong = || format!("'{}' is not a value of the type {ty}", text.escape_debug());
    Ok(match ty {
        // A module does not say whether it means its integers with or without sign.
        ValType::I32 => Val::I32(
            text.parse().or_else(|_| text.parse::<u32>().map(|n| n as i32)).map_err(|_| wrong())?,
        ),
        ValType::I64 => Val::I64(
            text.parse().or_else(|_| text.parse::<u64>().map(|n| n as i64)).map_err(|_| wrong())?,
        ),
        ValType::F32 => Val::F32(text.parse::<f32>().map_err(|_| wrong())?.to_bits()),
        ValType::F64 => Val::F64(text.parse::<f64>().map_err(|_| wrong())?.to_bits()),
        _ => return Err(format!("a parameter of the type {ty} cannot be written as text")),
    })
}
