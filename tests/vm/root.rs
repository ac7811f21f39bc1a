//! `--rootfs`: a directory of the host as the guest's root, seen as it is and never changed; and volumes,
//! users, variables and directories in there.

use crate::support::tempdir;
use crate::{Executor, on_every_executor, small_root, tuned};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

on_every_executor! {
    the_root_is_seen_as_it_is,
    changes_stay_in_the_guest,
    the_program_runs_as_its_user_where_it_should,
    the_environment_is_as_granted,
    volumes_are_in_the_root,
    the_hosts_root_can_be_the_guests,
    a_root_that_is_none,
}

fn the_root_is_seen_as_it_is(on: Executor) {
    let root = small_root();
    symlink("../data/hello", root.path().join("etc/link")).unwrap();
    let tool = root.path().join("data/tool");
    fs::write(&tool, "#!/bin/sh\necho \"tool $1\"\n").unwrap();
    fs::set_permissions(&tool, PermissionsExt::from_mode(0o750)).unwrap();
    let script = "cat /etc/link; ls -l /etc/link | grep -o '/etc.*'; /data/tool 1 | tr a-z A-Z; \
                  stat -c '%a %s' /data/tool; cat /data/none; echo $?";
    let end = on.shell(script).flag("--rootfs", root.path()).end().status(0);
    assert_eq!(end.err(), "cat: can't open '/data/none': No such file or directory\n", "{end}");
    end.prints("hello\n/etc/link -> ../data/hello\nTOOL 1\n750 25\n1\n");
}

/// The guest can do what it likes with its root; the host's directory stays as it was.
fn changes_stay_in_the_guest(on: Executor) {
    let root = small_root();
    let script = "echo new > /data/new; echo changed > /data/hello; rm /etc/group; \
                  chmod 600 /etc/passwd; cat /data/new /data/hello; test -e /etc/group || echo gone";
    let end = on.shell(script).flag("--rootfs", root.path()).end().status(0).silent();
    end.prints("new\nchanged\ngone\n");
    assert_eq!(fs::read_to_string(root.path().join("data/hello")).unwrap(), "hello\n");
    assert!(!root.path().join("data/new").exists());
    assert!(root.path().join("etc/group").exists());
    let mode = fs::metadata(root.path().join("etc/passwd")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

fn the_program_runs_as_its_user_where_it_should(on: Executor) {
    let root = small_root();
    let run =
        on.shell("id; pwd; exit 7").flag("--rootfs", root.path()).flags("--user web -w /data");
    let end = run.end().status(7).silent();
    end.prints("uid=33(web) gid=34(web) groups=8(mail)\n/data\n");
}

/// Exactly what was granted, and nothing of the caller's.
fn the_environment_is_as_granted(on: Executor) {
    let root = small_root();
    let run = on.run("/bin/env").flag("--kernel", tuned()).flag("--rootfs", root.path());
    let run = run.env("SECRET", "x").env("PASSED", "on").flags("-w /data -e A=1 -e PASSED");
    let end = run.end().status(0).silent();
    let out = end.out();
    let mut variables: Vec<_> = out.lines().collect();
    variables.sort_unstable();
    assert_eq!(variables, ["A=1", "PASSED=on", "PWD=/data"], "{end}");
}

fn volumes_are_in_the_root(on: Executor) {
    let (root, writable, read_only) = (small_root(), tempdir(), tempdir());
    fs::write(writable.path().join("in"), "from the host\n").unwrap();
    fs::write(read_only.path().join("in"), "to be read\n").unwrap();
    fs::set_permissions(writable.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let script = "cat /work/in /deep/down/in; echo out > /work/out; echo no > /deep/down/out; \
                  mount -o remount,rw /deep/down; echo no > /deep/down/out; rm /deep/down/in; \
                  exec 2> /dev/null; cat /work/../data/hello";
    let run = on.shell(script).flag("--rootfs", root.path()).volume(writable.path(), "/work");
    let end = run.volume(read_only.path(), "/deep/down:ro").end().status(0);
    assert_eq!(end.out(), "from the host\nto be read\nhello\n", "{end}");
    assert_eq!(end.err().matches("Read-only file system").count(), 3, "{end}");
    assert_eq!(fs::read_to_string(writable.path().join("out")).unwrap(), "out\n");
    assert_eq!(fs::read_dir(read_only.path()).unwrap().count(), 1);
}

/// The host's own root serves as well: its programs, its libraries.
fn the_hosts_root_can_be_the_guests(on: Executor) {
    let script = "echo one two | sed 's/one/1/' | awk '{ print $2, $1 }'";
    on.shell(script).flags("--rootfs /").end().status(0).prints("two 1\n").silent();
}

fn a_root_that_is_none(on: Executor) {
    let run = on.shell("true").flags("--rootfs /nowhere/at/all").end().status(125);
    run.says_only(&["/nowhere/at/all", "does not exist"]);
}
