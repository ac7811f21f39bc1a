//! `--disk`: images as the root and beside it. What is written is there at the next run; what is
//! read-only stays as it was.

use crate::support::{Sbx, tempdir};
use crate::{Executor, make_root, on_every_executor};
use std::path::Path;
use std::process::Command;

on_every_executor! {
    a_disk_keeps_what_is_written,
    a_read_only_disk_stays_as_it_was,
    erofs_and_squashfs_are_roots_too,
    a_second_disk_is_the_next_device,
    a_disk_is_one_machines,
    disks_that_are_none,
}

/// Runs a program that makes an image.
#[track_caller]
fn make(words: &[&str]) {
    let mut maker = Command::new(words[0]);
    maker.args(&words[1..]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let out = maker.output().unwrap_or_else(|e| panic!("{}: {e}", words[0]));
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A directory with the small root, and the path of an image to be made beside it.
fn tree() -> (tempfile::TempDir, String, String) {
    let dir = tempdir();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    make_root(&tree);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (tree, image) = (path("tree"), path("image"));
    (dir, tree, image)
}

fn ext4(tree: &str, image: &str) {
    std::fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
    make(&["mkfs.ext4", "-q", "-d", tree, image]);
}

fn with_disk(on: Executor, script: &str, disk: &str) -> Sbx {
    on.shell(script).flag("--disk", disk)
}

fn content(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn a_disk_keeps_what_is_written(on: Executor) {
    let (_dir, tree, image) = tree();
    ext4(&tree, &image);
    let first = with_disk(on, "cat /data/hello; echo kept > /data/new; exit 3", &image);
    first.end().status(3).prints("hello\n").silent();
    with_disk(on, "cat /data/new", &image).end().status(0).prints("kept\n").silent();
    // The guest was shut down in order: there is nothing to mend.
    make(&["fsck.ext4", "-f", "-n", &image]);
}

fn a_read_only_disk_stays_as_it_was(on: Executor) {
    let (_dir, tree, image) = tree();
    ext4(&tree, &image);
    let before = content(&image);
    let script = "echo new > /data/new; cat /data/new; dd if=/dev/zero of=/dev/vda count=1 2> /dev/null \
                  || echo refused; sync";
    let end = with_disk(on, script, &format!("{image}:ro")).end().status(0).silent();
    end.prints("new\nrefused\n");
    assert!(content(&image) == before, "the image has changed");
}

fn erofs_and_squashfs_are_roots_too(on: Executor) {
    for kind in ["erofs", "squashfs"] {
        let (_dir, tree, image) = tree();
        match kind {
            "erofs" => make(&["mkfs.erofs", "--quiet", &image, &tree]),
            _ => make(&["mksquashfs", &tree, &image, "-quiet", "-no-progress"]),
        }
        let before = content(&image);
        let script = "cat /data/hello; echo new > /data/hello; cat /data/hello";
        with_disk(on, script, &image).end().status(0).prints("hello\nnew\n").silent();
        assert!(content(&image) == before, "the image of {kind} has changed");
    }
}

fn a_second_disk_is_the_next_device(on: Executor) {
    let (dir, tree, image) = tree();
    ext4(&tree, &image);
    let data = dir.path().join("data.img");
    std::fs::write(&data, [b'd'; 8192]).unwrap();
    let data = data.to_str().unwrap();
    let script = "head -c 3 /dev/vdb; printf new | dd of=/dev/vdb conv=notrunc 2> /dev/null";
    let run = with_disk(on, script, &image).flag("--disk", data);
    run.end().status(0).prints("ddd").silent();
    assert!(content(data).starts_with(b"newddd"));
    // A root from elsewhere leaves the first disk to be the first device.
    let run =
        on.shell("head -c 6 /dev/vda").flag("--rootfs", &tree).flag("--disk", format!("{data}:ro"));
    run.end().status(0).prints("newddd").silent();
}

fn a_disk_is_one_machines(on: Executor) {
    let (_dir, tree, image) = tree();
    ext4(&tree, &image);
    let first = with_disk(on, "echo up; sleep 600", &image).start();
    first.until("up");
    for disk in [image.clone(), format!("{image}:ro")] {
        with_disk(on, "true", &disk).end().status(125).says_only(&["in use by another machine"]);
    }
    first.signal(rustix::process::Signal::KILL);
    let end = first.end();
    assert!(!end.status.success(), "{end}");
    with_disk(on, "echo up", &image).end().status(0).prints("up\n");
}

fn disks_that_are_none(on: Executor) {
    let dir = tempdir();
    let run =
        |path: &Path| with_disk(on, "true", path.to_str().unwrap()).end().status(125).prints("");
    run(&dir.path().join("missing")).says_only(&["there is no disk image"]);
    run(dir.path()).says_only(&["disk image"]);
    // What is on it is for the guest to see.
    let zeros = dir.path().join("zeros");
    std::fs::write(&zeros, [0; 1 << 20]).unwrap();
    run(&zeros).says_only(&["the guest did not come up", "no ext4, erofs or squashfs"]);
}
