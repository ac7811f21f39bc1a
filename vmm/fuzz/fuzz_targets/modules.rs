//! A kernel's module of the fuzzer's bytes, packed in one of the ways that there are, and the version of
//! a kernel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbx_vmm::boot::modules;
use sbx_vmm::boot::version::Version;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

const NAMES: [&str; 4] = ["m.ko", "m.ko.xz", "m.ko.zst", "m.ko.gz"];

fuzz_target!(|input: &[u8]| {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = TempDir::new().expect("a directory");
        fs::create_dir(directory.path().join("kernel")).expect("a directory in it");
        directory
    });
    let (kind, content) = input.split_first().unwrap_or((&0, &[]));
    let name = NAMES[usize::from(*kind) % NAMES.len()];
    let file = directory.path().join("kernel").join(name);
    fs::write(&file, content).expect("a module");
    let _ = modules::gather(directory.path(), &["m", "n"]);
    let _ = fs::remove_file(&file);
    if let Some(version) = Version::of_kernel(content, Path::new("vmlinuz")) {
        assert!(!version.as_str().contains('/'));
    }
});
