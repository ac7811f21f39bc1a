//! All of this holds, too, when the server is not root.

use super::*;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set where the tests run a second time.
const AGAIN: &str = "SBX_TEST_AS_OTHER_USER";
const OTHER: u32 = 12345;

#[test]
fn the_tests_pass_for_another_user() {
    if !is_root() || std::env::var_os(AGAIN).is_some() {
        // Whoever is not root has run them as someone else than root already.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(OTHER), Some(OTHER)).unwrap();
    // The tests may be where nobody else can read them.
    let tests = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    fs::set_permissions(&tests, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&tests);
    command.args(["fs::tests::", "--test-threads", "1"]).current_dir(dir.path());
    command.env(AGAIN, "1").env("TMPDIR", dir.path()).uid(OTHER).gid(OTHER);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("a_program_that_is_changed") && said.contains(" 0 ignored"), "{said}");
}

#[test]
fn files_of_others_are_nobodys() {
    let mut guest = Guest::new(Access::ReadWrite);
    guest.server.owners = crate::fs::owners::Owners::Own { uid: OTHER, gid: OTHER + 1 };
    for (name, owner, seen) in [
        ("mine", (OTHER, OTHER + 1), (0, 0)),
        ("root's", (0, 0), (65534, 65534)),
        ("mixed", (OTHER, 0), (0, 65534)),
    ] {
        write_file(&guest.path(name), b"");
        if is_root() {
            chown(guest.path(name), Some(owner.0), Some(owner.1)).unwrap();
            let entry = guest.look_up(ROOT, name).unwrap();
            assert_eq!((entry.uid, entry.gid), seen, "{name}");
        } else {
            // Only root gives files away; of one's own, which this user's are not, none is seen so.
            let own = rustix::process::geteuid().as_raw() == OTHER;
            let entry = guest.look_up(ROOT, name).unwrap();
            assert_eq!(entry.uid, if own { 0 } else { 65534 });
        }
    }
}
