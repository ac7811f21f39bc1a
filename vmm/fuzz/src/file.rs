//! The fuzzer's bytes as a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file of nothing but these bytes, which is gone once it is closed.
pub fn of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(bytes, 0).expect("its content");
    file
}
