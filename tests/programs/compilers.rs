//! GCC for AVR: from C to an executable in three programs, each on the files of the one before it.

use super::{data, fetched, program, sha256, size, support, twice};
use std::fs;
use std::path::Path;
use support::Sbx;

const EXECUTABLE: &str = "adaa9c7f267091738d9a2dff6487ad0819e081dcc6086864870eccdc6de8d601";

fn compiler(out: &Path) -> Sbx {
    let flags = "-quiet -mmcu=avr5 -O1 -ffreestanding -isystem /avr/gcc /in/sum.c -o /out/sum.s";
    program("avr/cc1.wasm")
        .volume(&data(), "/in:ro")
        .volume(&fetched("avr"), "/avr:ro")
        .volume(out, "/out")
        .args(flags.split(' '))
}

fn assembler(out: &Path) -> Sbx {
    program("avr/avr-as.wasm")
        .volume(out, "/out")
        .args("-mmcu=avr5 -o /out/sum.o /out/sum.s".split(' '))
}

fn linker(out: &Path) -> Sbx {
    let flags = "-m avr5 -T /in/avr.ld -e main -L/avr/avr5 -o /out/sum.elf /out/sum.o -lgcc";
    program("avr/avr-ld.wasm")
        .volume(&data(), "/in:ro")
        .volume(&fetched("avr"), "/avr:ro")
        .volume(out, "/out")
        .args(flags.split(' '))
}

/// Runs one of them twice into an empty file, and looks at what it made.
fn makes(run: impl Fn() -> Sbx, file: &Path, check: impl Fn()) {
    twice(
        || {
            let _ = fs::remove_file(file);
            run()
        },
        |end| {
            drop(end.status(0).prints("").silent());
            check();
        },
    );
}

#[test]
fn gcc() {
    let dir = support::tempdir();
    let out = dir.path();
    let (assembly, object, elf) = (out.join("sum.s"), out.join("sum.o"), out.join("sum.elf"));
    makes(|| compiler(out), &assembly, || assert_eq!(size(&assembly), 944));
    makes(|| assembler(out), &object, || assert_eq!(size(&object), 1080));
    makes(|| linker(out), &elf, || assert_eq!(sha256(&elf), EXECUTABLE));
    // The machine of an ELF file is its 16-bit word at 18; AVR is 83.
    let bytes = fs::read(&elf).unwrap();
    assert_eq!((&bytes[..4], &bytes[18..20]), (&b"\x7fELF"[..], &[83, 0][..]));
}

/// A volume that is read-only stays as it is, whatever a compiler is told to write.
#[test]
fn the_assembler_cannot_write_to_a_read_only_volume() {
    let dir = support::tempdir();
    fs::write(dir.path().join("a.s"), "nop\n").unwrap();
    let end = program("avr/avr-as.wasm")
        .volume(dir.path(), "/out:ro")
        .args("-mmcu=avr5 -o /out/a.o /out/a.s".split(' '))
        .end()
        .status(1)
        .prints("")
        .says(&["/out", "read-only", ":ro"]);
    assert!(end.err().contains("/out/a.o"), "the assembler names the file\n{end}");
    assert!(!dir.path().join("a.o").exists());
}
