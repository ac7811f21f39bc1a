//! Guests that attack their machine: it ends by itself or by its limit, in sentences, and sbx never takes
//! more of the host's memory for it than the guest was given and a little.

use crate::support::{Outcome, Sbx, tempdir};
use crate::{Executor, on_every_executor};
use std::fs::{File, read_to_string};

on_every_executor! {
    garbage_for_the_devices_of_a_guest_with_sbxs_init,
    garbage_for_the_devices_of_a_guest_with_its_own_init,
    garbage_for_the_ports,
}

/// Bytes of the guest's memory, and what any process of sbx's may need beside them.
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

/// Whether QEMU has ended itself. It does (7.2: an assertion in `vhost_dev_set_config`) if a guest writes to
/// the configuration of a disk whose rings made no sense. That guest's machine is all that it ends.
fn is_given_up(on: Executor, end: &Outcome) -> bool {
    let last = end.sentences().pop().unwrap_or_default();
    on == Executor::Tcg && last.contains("QEMU was ended by signal 6")
}

fn garbage_for_the_devices_of_a_guest_with_sbxs_init(on: Executor) {
    let (read_only, writable, image) = (tempdir(), tempdir(), tempdir());
    let image = image.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    std::fs::write(read_only.path().join("file"), "as it was").unwrap();
    let run = || {
        let run = on.bare("devices").volume(writable.path(), "/rw");
        run.volume(read_only.path(), "/ro:ro").args(["--", "/bin/true"])
    };
    let mut end = bounded(run().flag("--disk", &image)).status(125).prints("");
    if is_given_up(on, &end) {
        // So that the other devices are given all of it.
        end = bounded(run()).status(125).prints("");
    }
    // Its connection may break first, or the machine end first.
    assert!(end.sentences().last().unwrap().contains("the guest went"), "{end}");
    assert_eq!(std::fs::read(read_only.path().join("file")).unwrap(), b"as it was");
    assert_eq!(std::fs::read_dir(read_only.path()).unwrap().count(), 1);
}

/// An initial RAM disk makes it a guest with a console, and no init of sbx's.
fn with_console(on: Executor, order: &str) -> Sbx {
    let guest = crate::repository().join("target/guests/bare");
    on.bare(order).flag("--initrd", guest)
}

fn garbage_for_the_devices_of_a_guest_with_its_own_init(on: Executor) {
    let dir = tempdir();
    let image = dir.path().join("image");
    std::fs::write(&image, [7; 4096]).unwrap();
    let disk = format!("{}:ro", image.display());
    let mut end = bounded(with_console(on, "devices").flag("--disk", disk));
    if is_given_up(on, &end) {
        end = bounded(with_console(on, "devices"));
    }
    let end = end.status(0).silent();
    assert!(end.out().ends_with("done\n"), "{end}");
    assert!(std::fs::read(&image).unwrap() == [7; 4096], "the image has changed");
}

fn garbage_for_the_ports(on: Executor) {
    bounded(with_console(on, "ports")).status(0).silent();
}
