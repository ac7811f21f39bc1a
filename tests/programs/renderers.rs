//! resvg, usvg, svg-flatten and flite: files in, files out.

use super::{data, program, sha256, size, support, twice};
use std::fs;
use std::path::Path;
use support::{Outcome, Sbx};

fn usvg(out: &Path) -> Sbx {
    program("resvg/usvg.wasm")
        .volume(&data(), "/in:ro")
        .volume(out, "/out")
        .args(["/in/dot.svg", "/out/flat.svg"])
}

#[test]
fn resvg() {
    let dir = support::tempdir();
    let png = dir.path().join("dot.png");
    twice(
        || {
            let _ = fs::remove_file(&png);
            program("resvg/resvg.wasm")
                .volume(&data(), "/in:ro")
                .volume(dir.path(), "/out")
                .args(["/in/dot.svg", "/out/dot.png"])
        },
        |end| {
            drop(end.status(0).prints("").silent());
            assert_eq!(size(&png), 273);
            let digest = "08384dc06bc171138c889de9e9458c7ef9c6108385e63286b294991c10e61ab7";
            assert_eq!(sha256(&png), digest);
        },
    );
}

#[test]
fn usvg_flattens() {
    let dir = support::tempdir();
    let svg = dir.path().join("flat.svg");
    twice(
        || {
            let _ = fs::remove_file(&svg);
            usvg(dir.path())
        },
        |end| {
            drop(end.status(0).prints("").silent());
            let text = fs::read_to_string(&svg).unwrap();
            assert_eq!((text.len(), text.matches("<path").count()), (362, 2), "{text}");
        },
    );
}

#[test]
fn svg_flatten_says_its_version() {
    twice(
        || program("svg-flatten/svg-flatten.wasm").args(["--version"]),
        |end| {
            let end = end.status(0).prints("");
            assert_eq!(end.err().trim(), "3.1.9", "{end}");
        },
    );
}

/// Gerber, which circuit boards are made from. The program wants a /dev/urandom and a /tmp, and gets
/// a file and a directory of that name.
#[test]
fn svg_flatten() {
    let (dir, scratch) = (support::tempdir(), support::tempdir());
    fs::write(scratch.path().join("urandom"), [7; 64]).unwrap();
    drop(usvg(dir.path()).end().status(0));
    let gerber = dir.path().join("dot.gbr");
    let flags = "--force-svg --no-usvg -o gerber /out/flat.svg /out/dot.gbr";
    twice(
        || {
            let _ = fs::remove_file(&gerber);
            program("svg-flatten/svg-flatten.wasm")
                .volume(scratch.path(), "/dev:ro")
                .volume(scratch.path(), "/tmp")
                .volume(dir.path(), "/out")
                .args(flags.split(' '))
        },
        |end| {
            drop::<Outcome>(end.status(0).prints(""));
            let text = fs::read_to_string(&gerber).unwrap();
            assert_eq!(text.len(), 4643);
            assert!(text.starts_with("%FSLAX46Y46*%"), "{text}");
        },
    );
}

#[test]
fn flite() {
    let dir = support::tempdir();
    let wav = dir.path().join("hello.wav");
    twice(
        || {
            let _ = fs::remove_file(&wav);
            program("flite/flite.wasm").volume(dir.path(), "/out").args([
                "-t",
                "hello",
                "-o",
                "/out/hello.wav",
            ])
        },
        |end| {
            drop(end.status(0).prints("").silent());
            assert_eq!(&fs::read(&wav).unwrap()[..4], b"RIFF");
            let digest = "6fbd7f4ff45932092390ca8251c1fbce65dabb401cf0fc6e768c5c94843a5ac7";
            assert_eq!((size(&wav), &*sha256(&wav)), (12920, digest));
        },
    );
}
