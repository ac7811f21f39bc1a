//! `--memory`: all that a workload can address, taken together, stays within the limit. More is
//! refused to it; one that cannot go on without ends with 137 and a sentence. A machine's memory is its
//! kernel's as well, and that refuses by ending who asked.

use crate::support::{Sbx, tempdir, wat};
use crate::{Backend, on_every_backend};

on_every_backend! {
    enough_is_left_alone;
    wasm: malloc_is_refused;
    // Linux promises memory freely, and has to end a program that comes to use it.
    vm: more_than_there_is_ends_it,
}

fn enough_is_left_alone(backend: Backend) {
    let memory = if backend.is_vm() { "96M" } else { "64M" };
    let end = backend.run("alloc").flag("--memory", memory).args(["32"]).end();
    end.status(0).prints("ok 32 MiB\n");
}

/// The program sees malloc fail, and its own answer to that is what counts.
fn malloc_is_refused(backend: Backend) {
    let end = backend.run("alloc").flags("--memory 16M").args(["64"]).end();
    let end = end.status(backend.failure(3));
    assert!(end.err().contains("malloc failed after"), "{end}");
    assert!(
        end.err().contains("sbx: the workload was refused memory beyond its --memory"),
        "{end}"
    );
    let got = end.err().lines().filter(|l| l.ends_with("MiB") && !l.contains("m")).count();
    assert!((8..16).contains(&got), "it got {got} MiB of 16\n{end}");
}

fn more_than_there_is_ends_it(backend: Backend) {
    for (memory, said) in [(64, "64 MiB"), (128, "128 MiB")] {
        let run = backend.run("alloc").flags(&format!("--memory {memory}M"));
        let end = run.args(["1000"]).end().status(137).prints("");
        let got = end.err().lines().filter(|l| l.ends_with(" MiB") && !l.contains('m')).count();
        assert!((8..memory).contains(&got), "it got {got} MiB of {memory}\n{end}");
        end.says(&["ran out of memory", said, "--memory"]);
    }
}

/// Runs a module whose `_start` takes what it can get and exits with how many steps it got.
fn grab(flags: &str, module: &str) -> crate::support::Outcome {
    let dir = tempdir();
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            {module})"#
    );
    Sbx::run(wat(dir.path(), &text)).flags(flags).end()
}

/// A loop that grows `what` (an instruction's tail) until it is refused, counting in $steps.
fn grow(what: &str) -> String {
    format!(
        "(block $done (loop $more
           (br_if $done (i32.eq ({what}) (i32.const -1)))
           (local.set $steps (i32.add (local.get $steps) (i32.const 1)))
           (br_if $more (i32.lt_u (local.get $steps) (i32.const 200)))))"
    )
}

fn start(body: &str) -> String {
    format!(r#"(func (export "_start") (local $steps i32) {body} (call $exit (local.get $steps)))"#)
}

#[test]
fn memory_grow_is_refused_at_the_limit() {
    // A step is 1 MiB; the first page is there already.
    let body = grow("memory.grow (i32.const 16)");
    let module = format!(r#"(memory (export "memory") 1) {}"#, start(&body));
    grab("--memory 8M", &module).status(7);
    grab("--memory 300M", &module).status(200);
}

#[test]
fn one_that_cannot_go_on_is_out_of_memory() {
    let body = grow("memory.grow (i32.const 16)");
    let module = format!(
        r#"(memory (export "memory") 1) (func (export "_start") (local $steps i32) {body} unreachable)"#
    );
    grab("--memory 8M", &module).status(137).says_only(&["ran out of memory", "8 MiB", "--memory"]);
}

#[test]
fn many_memories_share_the_limit() {
    let memories: String = (0..20).map(|i| format!("(memory $m{i} 0)")).collect();
    let body: String = (0..20)
        .map(|i| {
            format!(
                "(if (i32.ne (memory.grow $m{i} (i32.const 16)) (i32.const -1))
                   (then (local.set $steps (i32.add (local.get $steps) (i32.const 1)))))"
            )
        })
        .collect();
    let module = format!("{memories} {}", start(&body));
    grab("--memory 8M", &module).status(8);
    grab("--memory 20M", &module).status(20);
}

#[test]
fn memories_that_are_large_from_the_start_share_it_too() {
    let memories: String = (0..20).map(|i| format!("(memory $m{i} 16)")).collect();
    let module = format!("{memories} {}", start(""));
    grab("--memory 8M", &module).status(137).says_only(&["ran out of memory"]);
    grab("--memory 20M", &module).status(0);
}

#[test]
fn one_memory_that_never_fits_is_not_runnable() {
    let module = format!("(memory 200) {}", start(""));
    grab("--memory 8M", &module).status(126).says_only(&["needs 12800 KiB of memory to start"]);
}

#[test]
fn tables_count() {
    // 131072 elements of 8 bytes are 1 MiB.
    let body = grow("table.grow $t (ref.null func) (i32.const 131072)");
    let module = format!("(table $t 0 funcref) {}", start(&body));
    grab("--memory 8M", &module).status(8);
}

#[test]
fn memory_and_table_share_the_limit() {
    let body = grow("table.grow $t (ref.null func) (i32.const 131072)");
    let module = format!("(memory 64) (table $t 0 funcref) {}", start(&body));
    grab("--memory 8M", &module).status(4);
}

#[test]
fn collected_objects_count() {
    let module = r#"
        (rec (type $node (struct (field (ref null $node)) (field (ref null $block))))
             (type $block (array (mut i8))))
        (func (export "_start") (local $list (ref null $node)) (local $steps i32)
          (loop $more
            (local.set $list
              (struct.new $node (local.get $list) (array.new $block (i32.const 7) (i32.const 1048576))))
            (local.set $steps (i32.add (local.get $steps) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $steps) (i32.const 64))))
          (call $exit (local.get $steps)))"#;
    grab("--memory 16M", module).status(137).says_only(&["ran out of memory", "16 MiB"]);
    grab("--memory 256M", module).status(64);
}

#[test]
fn a_64_bit_memory_is_no_way_around() {
    let body = "(local.set $steps (i32.wrap_i64 (memory.grow (i64.const 1099511627776))))
                (local.set $steps (i32.add (local.get $steps)
                  (i32.wrap_i64 (memory.grow (i64.const 1000)))))";
    let module = format!(
        "(memory i64 1) {}",
        start(&format!(
            "{body} (if (i32.eq (local.get $steps) (i32.const -2)) (then (call $exit (i32.const 42))))"
        ))
    );
    grab("--memory 8M", &module).status(42);
}

#[test]
fn a_shared_memory_is_refused() {
    // wasmtime does not ask a store's limiter about shared memories.
    let module = format!("(memory 1 65536 shared) {}", start(""));
    grab("--memory 8M", &module).status(126).says_only(&["shared memor"]);
}

#[test]
fn the_instances_of_a_component_share_it() {
    let dir = tempdir();
    let instances: String =
        (0..20).map(|i| format!("(core instance $i{i} (instantiate $m))")).collect();
    let component = |instances: &str| {
        format!(
            r#"(component
                (core module $m (memory 16) (func (export "run") (result i32) (i32.const 0)))
                (core instance $main (instantiate $m)) {instances}
                (func $run (result (result)) (canon lift (core func $main "run")))
                (instance $world (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $world)))"#
        )
    };
    let many = wat(dir.path(), &component(&instances));
    Sbx::run(&many).flags("--memory 8M").end().status(137).says_only(&["ran out of memory"]);
    Sbx::run(&many).flags("--memory 32M").end().status(0).silent();
}

/// What the host keeps for a guest (here: a timer for each call) is bounded as well.
#[test]
fn handles_do_not_grow_without_bound() {
    let dir = tempdir();
    let component = wat(dir.path(), include_str!("handles.wat"));
    let end = Sbx::run(component).flags("--memory 16M").end().status(134);
    end.says_only(&["handle limit"]);
}

#[test]
fn four_gigabytes_that_are_only_asked_for_cost_nothing() {
    let module = format!("(memory 65535) {}", start(""));
    grab("", &module).status(0);
    grab("--memory 1G", &module).status(126).says_only(&["needs", "--memory is 1 GiB"]);
}
