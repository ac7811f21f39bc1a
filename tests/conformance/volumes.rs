//! Volumes: a workload reads and writes below the directories that it was granted, and nowhere else,
//! whatever path it asks for; and a read-only one it cannot change in any way.

use crate::support::{Outcome, tempdir};
use crate::{Backend, on_every_backend};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

on_every_backend! {
    files_are_shared,
    read_only_is_read_only,
    a_writable_volume_beside_does_not_help,
    no_path_leads_out,
    racing_renames_of_a_directory_lead_nowhere,
    racing_renames_of_a_file_lead_nowhere,
    what_is_shared_is_fixed_at_the_start,
    a_working_directory_is_where_a_program_starts,
    other_files_than_regular_ones_do_no_harm;
    // A machine has files of its own, all of which a program may see and start in.
    wasm: without_one_there_is_nothing, a_working_directory_is_inside;
    vm: without_one_nothing_of_the_hosts_is_there, a_read_only_one_mounted_anew_is_read_only,
        a_working_directory_may_be_anywhere,
}

fn files(backend: Backend, dir: &Path, at: &str, args: &[&str]) -> Outcome {
    backend.run("files").volume(dir, at).flag("--timeout", backend.enough()).args(args).end()
}

/// The words for the runs that try these operations: one each, or all in one machine.
fn runs<'a>(backend: Backend, operations: &[&[&'a str]]) -> Vec<Vec<&'a str>> {
    if backend.is_vm() {
        vec![operations.join(&"then")]
    } else {
        operations.iter().map(|words| words.to_vec()).collect()
    }
}

fn without_one_there_is_nothing(backend: Backend) {
    for path in ["/", ".", "..", "/etc/passwd", "/proc/self/environ", "/dev/null"] {
        for op in ["read", "ls"] {
            let end = backend.run("files").args([op, path]).end().status(1);
            assert!(end.out().starts_with('E'), "{path}: {end}");
        }
    }
}

fn without_one_nothing_of_the_hosts_is_there(backend: Backend) {
    let dir = tempdir();
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let secret = secret.to_str().unwrap();
    let end = backend.run("files").args(["read", secret, "then", "read", "/etc/passwd"]).end();
    end.status(1).prints("ENOENT\nENOENT\n");
    // Its devices bring no file system, and no disk, of the host's either.
    let end =
        backend.run("files").args(["ls", "/sys/block", "then", "ls", "/sys/fs/fuse/connections"]);
    end.end().status(0).prints("");
}

fn files_are_shared(backend: Backend) {
    let dir = tempdir();
    fs::write(dir.path().join("in"), "from the host").unwrap();
    files(backend, dir.path(), "/data", &["read", "/data/in"]).status(0).prints("from the host");
    let operations = [
        (&["write", "/data/out", "from the guest"][..], "ok\n"),
        (&["append", "/data/out", "!"], "ok\n"),
        (&["mkdir", "/data/dir"], "ok\n"),
        (&["rename", "/data/out", "/data/dir/out"], "ok\n"),
        (&["link", "/data/dir/out", "/data/again"], "ok\n"),
        (&["symlink", "dir/out", "/data/link"], "ok\n"),
        (&["read", "/data/link"], "from the guest!"),
        (&["readlink", "/data/link"], "dir/out\n"),
        (&["truncate", "/data/again", "4"], "ok\n"),
        (&["utimes", "/data/again"], "ok\n"),
        (&["stat", "/data/again"], "file 4 bytes, mtime 1\n"),
        (&["rm", "/data/again"], "ok\n"),
        (&["ls", "/data/dir"], "out\n"),
        (&["rm", "/data/dir/out"], "ok\n"),
        (&["rmdir", "/data/dir"], "ok\n"),
        (&["read", "/data/dir/out"], "ENOENT\n"),
    ];
    let mut outputs = String::new();
    for words in runs(backend, &operations.map(|(words, _)| words)) {
        outputs += &files(backend, dir.path(), "/data", &words).out();
    }
    assert_eq!(outputs, operations.map(|(_, output)| output).concat());
    assert_eq!(fs::read_link(dir.path().join("link")).unwrap(), Path::new("dir/out"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// Each way to change something.
const CHANGES: [&[&str]; 13] = [
    &["write", "/data/file", "x"],
    &["write", "/data/new", "x"],
    &["append", "/data/file", "x"],
    &["truncate", "/data/file", "0"],
    &["utimes", "/data/file"],
    &["mkdir", "/data/new"],
    &["rm", "/data/file"],
    &["rmdir", "/data/dir"],
    &["rename", "/data/file", "/data/new"],
    &["rename", "/data/file", "/data/dir/file"],
    &["link", "/data/file", "/data/new"],
    &["symlink", "file", "/data/new"],
    &["write", "/data/dir/../file", "x"],
];

/// What a directory holds, to the times of its files.
fn state(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| {
            let path = e.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = fs::read(&path).unwrap_or_default();
            format!("{path:?} {:?} {content:?}", meta.modified().unwrap())
        })
        .collect();
    all.sort();
    all
}

fn read_only_is_read_only(backend: Backend) {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "content").unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let before = state(dir.path());
    for words in runs(backend, &CHANGES) {
        let end = files(backend, dir.path(), "/data:ro", &words).status(1);
        let refused = ["EPERM", "EROFS", "EACCES", "ENOTCAPABLE", "EBADF"];
        assert!(end.out().lines().all(|line| refused.contains(&line)), "{words:?}: {end}");
        assert_eq!(end.out().lines().count(), words.split(|w| *w == "then").count(), "{end}");
        assert_eq!(state(dir.path()), before, "{words:?}");
        // A machine's kernel tells the program itself why, and nobody else.
        drop(if backend.is_vm() { end.silent() } else { end.says(&["read-only", ":ro"]) });
    }
    files(backend, dir.path(), "/data:ro", &["read", "/data/file"])
        .status(0)
        .prints("content")
        .silent();
    files(backend, dir.path(), "/data:ro", &["ls", "/data/dir"]).status(0).silent();
}

/// The machine's superuser can take the mark off its mount, and the host does not care.
fn a_read_only_one_mounted_anew_is_read_only(backend: Backend) {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "content").unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let before = state(dir.path());
    let words = [&[&["remount", "/data"][..]], &CHANGES[..]].concat().join(&"then");
    let end = files(backend, dir.path(), "/data:ro", &words).status(1);
    assert_eq!(state(dir.path()), before, "{end}");
    end.prints(&format!("ok\n{}", "EROFS\n".repeat(CHANGES.len())));
}

fn a_writable_volume_beside_does_not_help(backend: Backend) {
    let (read_only, writable) = (tempdir(), tempdir());
    fs::write(read_only.path().join("file"), "content").unwrap();
    fs::write(writable.path().join("mine"), "mine").unwrap();
    let before = state(read_only.path());
    let changes: [&[&str]; 5] = [
        &["rename", "/data/file", "/mine/file"],
        &["rename", "/mine/mine", "/data/file"],
        &["link", "/data/file", "/mine/file"],
        &["link", "/mine/mine", "/data/new"],
        &["write", "/mine/../data/file", "x"],
    ];
    for words in runs(backend, &changes) {
        let run = backend.run("files").volume(read_only.path(), "/data:ro");
        let end = run.volume(writable.path(), "/mine").args(&words).end().status(1);
        assert!(!end.out().contains("ok"), "{words:?}: {end}");
        assert_eq!(state(read_only.path()), before, "{words:?}: {end}");
        assert!(!writable.path().join("file").exists(), "{words:?}: {end}");
    }
}

/// A volume with a secret beside it, and links to that in it.
fn beside_a_secret() -> tempfile::TempDir {
    let dir = tempdir();
    let volume = dir.path().join("volume");
    fs::create_dir_all(volume.join("inner")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(dir.path().join("outside/file"), "secret").unwrap();
    symlink("../secret", volume.join("relative")).unwrap();
    symlink(dir.path().join("secret"), volume.join("absolute")).unwrap();
    symlink("..", volume.join("up")).unwrap();
    symlink("/", volume.join("slash")).unwrap();
    symlink("../../secret", volume.join("inner/deep")).unwrap();
    dir
}

fn no_path_leads_out(backend: Backend) {
    let dir = beside_a_secret();
    let volume = dir.path().join("volume");
    let secret = dir.path().join("secret");
    let run = backend.run("escape").volume(&volume, "/data");
    let end = run.args(["/data", "../secret"]).args([&secret]).end();
    let out = end.out();
    let tried: u32 = out.split(' ').next().unwrap().parse().unwrap_or(0);
    assert!(out.ends_with(" 0 escaped\n") && tried > 50, "{end}");
    drop(end.status(0));
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert!(!dir.path().join("planted").exists());
    let paths = ["relative", "absolute", "up/secret", "slash/etc/passwd", "inner/deep"];
    let paths = paths.map(|path| format!("/data/{path}"));
    let reads = paths.each_ref().map(|path| ["read", path]);
    for words in runs(backend, &reads.each_ref().map(|words| &words[..])) {
        let end = files(backend, &volume, "/data", &words).status(1);
        let refused = end.out().lines().all(|line| line.starts_with('E'));
        assert!(refused && !end.out().contains("secret"), "{words:?}: {end}");
    }
    let writes = paths.each_ref().map(|path| ["write", path, "x"]);
    for words in runs(backend, &writes.each_ref().map(|words| &words[..])) {
        let end = files(backend, &volume, "/data", &words);
        // To a machine's kernel such links lead into its own files.
        drop(if backend.is_vm() { end } else { end.status(1) });
    }
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}

/// Swaps two names for as long as the guest opens `path`; what it reads must never be the secret.
fn race(backend: Backend, volume: &Path, [one, other]: [&str; 2], path: &str) {
    let (one, other) = (volume.join(one), volume.join(other));
    // A run may be over before the two met.
    for _ in 0..10 {
        let stop = AtomicBool::new(false);
        let end = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let run = backend.run("race").volume(volume, "/data");
            let end = run.args([path, backend.opens()]).end();
            stop.store(true, Ordering::Relaxed);
            end
        });
        let out = end.out();
        assert!(out.ends_with(" escaped 0\n"), "{end}");
        drop(end.status(0));
        if !out.contains("read 0,") && !out.contains("refused 0,") {
            return;
        }
    }
    panic!("the swaps and the opens never met");
}

fn racing_renames_of_a_directory_lead_nowhere(backend: Backend) {
    let dir = beside_a_secret();
    let volume = dir.path().join("volume");
    fs::create_dir(volume.join("spot")).unwrap();
    fs::write(volume.join("spot/file"), "harmless").unwrap();
    symlink("../outside", volume.join("trap")).unwrap();
    race(backend, &volume, ["spot", "trap"], "/data/spot/file");
}

fn racing_renames_of_a_file_lead_nowhere(backend: Backend) {
    let dir = beside_a_secret();
    let volume = dir.path().join("volume");
    fs::write(volume.join("spot"), "harmless").unwrap();
    symlink(dir.path().join("secret"), volume.join("trap")).unwrap();
    race(backend, &volume, ["spot", "trap"], "/data/spot");
}

/// The directory is the one that it was when sbx started, whatever its path names later.
fn what_is_shared_is_fixed_at_the_start(backend: Backend) {
    let dir = beside_a_secret();
    let volume = dir.path().join("volume");
    fs::write(volume.join("file"), "harmless").unwrap();
    // The volume's path is exchanged with a directory that has the secret under the same name.
    let outside = dir.path().join("outside");
    let stop = AtomicBool::new(false);
    let end = std::thread::scope(|scope| {
        let run = backend.run("race").volume(&volume, "/data");
        let run = run.args(["/data/file", backend.opens()]).start();
        while crate::support::processes_in(run.pid().as_raw_pid()).len() < 2 {
            assert!(run.is_alive(), "{}", run.end());
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &volume, CWD, &outside, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let end = run.end();
        stop.store(true, Ordering::Relaxed);
        end
    });
    end.status(0).prints(&format!("read {}, refused 0, escaped 0\n", backend.opens()));
}

fn a_working_directory_is_inside(backend: Backend) {
    let dir = beside_a_secret();
    let volume = dir.path().join("volume");
    fs::write(volume.join("inner/file"), "inner").unwrap();
    let run = |at: &str| backend.run("files").volume(&volume, "/data").flag("-w", at);
    run("/data/inner").args(["read", "/data/inner/file"]).end().status(0).prints("inner");
    for at in ["/data/up", "/data/slash", "/data/absolute", "/data/nowhere"] {
        let end = run(at).args(["ls", "."]).end().status(125).prints("");
        end.says_only(&["the working directory", "cannot be entered"]);
    }
    run("/elsewhere").end().status(125).says_only(&["/elsewhere is in no volume", "-v"]);
    run("/data/..").end().status(125).says_only(&["working directory is wrong", "'..'"]);
}

fn a_working_directory_may_be_anywhere(backend: Backend) {
    let run = |at: &str| backend.run("files").flag("-w", at);
    run("/proc/self").args(["read", "comm"]).end().status(0).prints("files\n");
    let end = run("/nowhere").args(["ls", "."]).end().status(125).prints("");
    end.says_only(&["there is no directory /nowhere in the guest"]);
    run("/proc/..").end().status(125).says_only(&["working directory is wrong", "'..'"]);
}

fn other_files_than_regular_ones_do_no_harm(backend: Backend) {
    let dir = tempdir();
    let pipe = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // A pipe that nobody writes to: whatever happens, the time limit ends it.
    let time = if backend.is_vm() { backend.short() } else { "2s" };
    let end = backend.run("files").volume(dir.path(), "/data").flag("--timeout", time);
    let end = end.args(["read", "/data/pipe"]).end();
    end.assert_no_debug_output();
    assert!(matches!(end.status.code(), Some(0 | 1 | 124)), "{end}");
}

fn a_working_directory_is_where_a_program_starts(backend: Backend) {
    let dir = tempdir();
    fs::create_dir(dir.path().join("inner")).unwrap();
    fs::write(dir.path().join("inner/file"), "inner").unwrap();
    let run = backend.run("files").volume(dir.path(), "/data");
    run.flag("-w", "/data/inner").args(["read", "file"]).end().status(0).prints("inner");
}
