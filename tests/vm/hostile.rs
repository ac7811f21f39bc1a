//! Guests that attack their machine: it ends by itself or by its limit, in sentences, and sbx never takes
//! more of the host's memory for it than the guest was given and a little.

use crate::bare;
use crate::support::{Outcome, Sbx, tempdir};
use std::fs::{File, read_to_string};

/// Bytes of the guest's memory, and what sbx may need beside them.
const GUEST: u64 = 64 << 20;
const OWN: u64 = 64 << 20;

/// The most memory that a process has had, in bytes, while it is there.
fn peak(pid: i32) -> Option<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Runs it, and watches its memory.
#[track_caller]
fn bounded(run: Sbx) -> Outcome {
    let run = run.flags("--timeout 60s").start();
    let group = run.pid().as_raw_pid();
    let mut most = 0;
    while run.is_alive() {
        let all = crate::support::processes_in(group).into_iter();
        most = all.filter_map(peak).fold(most, u64::max);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let end = run.end();
    end.assert_no_debug_output();
    assert!(most > 0, "its memory was never seen\n{end}");
    assert!(most < GUEST + OWN, "{most} bytes\n{end}");
    end
}

#[test]
fn garbage_for_the_devices_of_a_guest_with_sbxs_init() {
    let (read_only, writable, image) = (tempdir(), tempdir(), tempdir());
    let image = image.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    std::fs::write(read_only.path().join("file"), "as it was").unwrap();
    let run = bare("devices").volume(writable.path(), "/rw").volume(read_only.path(), "/ro:ro");
    let end = bounded(run.flag("--disk", &image).args(["--", "/bin/true"])).prints("");
    // Its connection may break first, or the machine end first.
    let end = end.status(125);
    assert!(end.sentences().last().unwrap().contains("the guest went"), "{end}");
    assert_eq!(std::fs::read(read_only.path().join("file")).unwrap(), b"as it was");
    assert_eq!(std::fs::read_dir(read_only.path()).unwrap().count(), 1);
}

/// An initial RAM disk makes it a guest with a console, and no init of sbx's.
fn with_console(order: &str) -> Sbx {
    let guest = crate::repository().join("target/guests/bare");
    bare(order).flag("--initrd", guest)
}

#[test]
fn garbage_for_the_devices_of_a_guest_with_its_own_init() {
    let dir = tempdir();
    let image = dir.path().join("image");
    std::fs::write(&image, [7; 4096]).unwrap();
    let disk = format!("{}:ro", image.display());
    let end = bounded(with_console("devices").flag("--disk", disk)).status(0).silent();
    assert!(end.out().ends_with("done\n"), "{end}");
    assert!(std::fs::read(&image).unwrap() == [7; 4096], "the image has changed");
}

#[test]
fn garbage_for_the_ports() {
    bounded(with_console("ports")).status(0).silent();
}
