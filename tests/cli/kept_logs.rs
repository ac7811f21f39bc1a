//! The log of a sandbox that is kept: what it holds at its size, behind a full disk, and for who follows it.

use crate::support::{Kept, Sbx, guest, is_root, skipped, tempdir};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A few kilobytes of room to be kept in, as a disk of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None if this user may not have one.
    fn new(size: &str) -> Option<Self> {
        let dir = tempdir();
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path());
        if !is_root() || !mount.status().unwrap().success() {
            skipped("this user cannot mount a small disk");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        // And no block that is begun.
        while std::io::Write::write_all(&mut file, &[1]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_disk_that_is_full_at_the_start() {
    let Some(disk) = SmallDisk::new("64k") else { return };
    let kept = Kept::new();
    let at = |sbx: Sbx| sbx.env("SBX_STATE_DIR", disk.path());
    at(kept.sbx("ps")).end().status(0);
    disk.fill();
    for _ in 0..2 {
        let end = at(kept.run(guest("exit"))).flags("--name x").end().status(125).prints("");
        end.says_only(&["No space left on device"]);
    }
    at(kept.sbx("ps -a -q")).end().status(0).prints("").silent();
    fs::remove_file(disk.path().join("filler")).unwrap();
    assert_eq!(fs::read_dir(disk.path().join("names")).unwrap().count(), 0);
    at(kept.run(guest("exit"))).flags("--name x --rm").end().status(0);
    crate::support::eventually("it is never removed", || {
        at(kept.sbx("ps -a -q")).end().status(0).out().is_empty()
    });
}

/// The workload is not held up, its end is known, and what is lost is said.
#[test]
fn a_disk_that_is_full_meanwhile() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let kept = Kept::new();
    let at = |sbx: Sbx| sbx.env("SBX_STATE_DIR", disk.path());
    let run = at(kept.run(guest("flood"))).flags("--name x").args(["3000000"]);
    run.end().status(0).silent();
    at(kept.sbx("wait x")).end().status(0).prints("0\n").silent();
    let end = at(kept.sbx("inspect x")).end().status(0);
    let known: serde_json::Value = serde_json::from_slice(&end.stdout).unwrap();
    assert_eq!(known[0]["status"]["state"], "exited", "{end}");
    let note = known[0]["status"]["notes"][0].as_str().unwrap_or_default();
    let lost: usize = note.split(' ').next().unwrap().parse().unwrap_or_default();
    assert!(note.contains("bytes of its output could not be kept"), "{end}");
    let there = at(kept.sbx("logs x")).end().status(0);
    assert_eq!(there.stdout.len() + lost, 3_000_000);
    assert!(there.stdout.len() > 100_000, "{} bytes are there", there.stdout.len());
    at(kept.sbx("rm x")).end().status(0).silent();

    // Small pieces leave not even room for the record of the end.
    let run = at(kept.run(guest("lines"))).flags("--name y").args(["20000", "0", "3"]);
    run.end().status(0).silent();
    at(kept.sbx("wait y")).end().status(0).prints("3\n").silent();
    let end = at(kept.sbx("inspect y")).end().status(0).silent().out();
    assert!(end.contains("could not be kept") && end.contains("\"exited\""), "{end}");
    at(kept.sbx("rm y")).end().status(0).silent();
}

/// `--log-size` is how much is kept at least; the disk holds at most twice as much.
#[test]
fn a_log_has_its_size() {
    let kept = Kept::new();
    let run = kept.run(guest("lines")).flags("--name x --log-size 20000").args(["3000"]);
    run.end().status(0).silent();
    kept.sbx("wait x").end().status(0).prints("0\n");
    let size = |name: &str| fs::metadata(kept.dir("x").join(name)).unwrap().len();
    assert!(size("log") <= 20_000 && size("log.1") <= 20_000, "{} {}", size("log"), size("log.1"));
    assert!(size("log") + size("log.1") >= 20_000, "{} {}", size("log"), size("log.1"));
    // The end of both streams is what is kept, without a gap.
    let there = kept.sbx("logs x").end().status(0);
    let all = |word: &str| (1..=3000).map(|i| format!("{word} {i}\n")).collect::<String>();
    assert!(all("out").ends_with(&there.out()) && all("err").ends_with(&there.err()), "{there}");
    assert!(there.stdout.len() + there.stderr.len() > 2000, "{there}");

    // Also when it is written in pieces that are larger than all of it.
    let run = kept.run(guest("flood")).flags("--name y --log-size 4000").args(["1000000"]);
    run.end().status(0).silent();
    kept.sbx("wait y").end().status(0).prints("0\n");
    let size = |name: &str| fs::metadata(kept.dir("y").join(name)).unwrap().len();
    assert!(size("log") <= 4_000 && size("log.1") <= 4_000, "{} {}", size("log"), size("log.1"));
}

/// Over several turns of a small log, to the end, each line once.
#[test]
fn who_follows_misses_nothing() {
    let kept = Kept::new();
    let run = kept.run(guest("lines")).flags("--name x --log-size 8k").args(["600", "2", "3"]);
    run.end().status(0).silent();
    let followed = kept.sbx("logs -f x").end().status(0);
    let lines = |word: &str| (1..=600).map(|i| format!("{word} {i}\n")).collect::<String>();
    assert_eq!(followed.out(), lines("out"));
    assert_eq!(followed.err(), lines("err"));
    let size = fs::metadata(kept.dir("x").join("log.1")).unwrap().len();
    assert!(size < 9 << 10, "the log was never turned over");
    // One that has ended already is not waited for.
    let last = kept.sbx("logs -f -n 4 x").end().status(0).prints("out 599\nout 600\n");
    assert_eq!(last.err(), "err 599\nerr 600\n");
}

/// Followed from before its start over its restarts to its removal.
#[test]
fn who_follows_sees_all_lives() {
    let kept = Kept::new();
    let run = kept.run(guest("lines")).flags("--name x --restart on-failure:2");
    run.args(["2", "100", "3"]).end().status(0).silent();
    let followed = kept.sbx("logs -f x").end().status(0);
    assert_eq!(followed.out(), "out 1\nout 2\n".repeat(3));
    kept.sbx("start x").end().status(0);
    kept.sbx("wait x").end().status(0).prints("3\n");
    assert_eq!(kept.log("x"), "out 1\nout 2\n".repeat(6));
}

#[test]
fn what_logs_refuses() {
    let kept = Kept::new();
    for words in ["logs", "logs -n many x", "logs --since yesterday x"] {
        kept.sbx(words).end().status(125).prints("");
    }
    kept.sbx("logs nobody").end().status(1).says_only(&["there is no sandbox nobody"]);
    // One that has not begun has written nothing.
    kept.created(Sbx::run(guest("exit")).flags("--name x")).end().status(0);
    kept.sbx("logs -f x").end().status(0).prints("").silent();
    kept.run(guest("lines")).flags("--name y").end().status(0);
    kept.sbx("wait y").end().status(0);
    let end = kept.sbx("logs y").through_shell(r#""$@" >/dev/full"#).end();
    end.status(1).says_only(&["cannot write to standard output"]);
}
