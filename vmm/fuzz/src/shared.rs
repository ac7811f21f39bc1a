//! A directory that is shared with a guest, and what lies beside it and must stay as it is.

use sbx_core::quota::Quota;
use sbx_vmm::fs::{Access, Options, Server};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// What a guest may add: three entries, or fewer and some bytes.
const QUOTA: u64 = 3 << 12;
/// The content of the file in it, and of the one beside it.
const CONTENT: [u8; 5000] = [7; 5000];

/// The directory. It goes when this is dropped.
pub struct Shared(TempDir);

impl Shared {
    /// One with a file, a directory, and links to the outside.
    #[allow(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Self {
        let outside = TempDir::new().expect("a directory");
        let path = outside.path().join("share");
        fs::create_dir_all(path.join("d")).expect("a directory in it");
        fs::write(path.join("f"), CONTENT).expect("a file in it");
        fs::write(outside.path().join("o"), CONTENT).expect("a file outside");
        symlink("../o", path.join("l")).expect("a link in it");
        symlink("..", path.join("m")).expect("another");
        Self(outside)
    }

    /// What shares it.
    pub fn server(&self, access: Access) -> Server {
        let root = File::open(self.0.path().join("share")).expect("the directory").into();
        let quota = Quota::new(Some(QUOTA));
        Server::new(root, Options { access, quota, nodes: 20, descriptors: 20 }).expect("a server")
    }

    /// Checks that nothing outside has changed, and inside neither if it was to be read only.
    pub fn check(&self, access: Access) {
        let outside = self.0.path();
        let names = |path| fs::read_dir(path).expect("a directory").count();
        assert_eq!(names(outside.to_owned()), 2);
        assert!(fs::read(outside.join("o")).expect("the file outside") == CONTENT);
        if access != Access::ReadWrite {
            assert_eq!(names(outside.join("share")), 4);
            assert_eq!(names(outside.join("share/d")), 0);
            assert!(fs::read(outside.join("share/f")).expect("the file") == CONTENT);
        }
    }
}
