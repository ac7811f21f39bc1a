//! Hands the linker the order of functions that cold start runs through (see `cold-start.order`).

fn main() {
    let order = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/sbx/cold-start.order");
    println!("cargo::rerun-if-changed={order}");
    println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={order}");
    println!("cargo::rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
}
