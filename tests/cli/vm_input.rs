//! Mistakes about microVMs are told before there is one, and so on every host: kernels that are none,
//! machines that cannot be, flags that do not go together, and a host without a KVM.

use crate::support::{Kept, Outcome, Sbx, is_root, root, skipped, tempdir};
use std::fs;
use std::path::{Path, PathBuf};

/// A guest without Linux, which has the form of a kernel.
fn kernel() -> PathBuf {
    let path = root().join("target/guests/bare");
    assert!(path.is_file(), "{} is missing; run tests/guests/build", path.display());
    path
}

/// A run of a program of the guest's on that kernel.
fn guest(flags: &str) -> Sbx {
    Sbx::run(kernel()).flags("--vm").flags(flags).args(["--", "/bin/true"])
}

#[track_caller]
fn refused(run: Sbx, words: &[&str]) {
    run.end().status(125).prints("").says_only(words);
}

/// As the workload, and as the kernel under one.
#[track_caller]
fn not_bootable(path: &Path, words: &[&str]) {
    let as_workload = Sbx::run(path).flags("--vm").args(["--", "/bin/true"]);
    as_workload.end().status(126).prints("").says_only(words);
    let under = Sbx::run("/bin/true").flags("--rootfs /").flag("--kernel", path);
    under.end().status(126).prints("").says_only(words);
}

#[test]
fn kernels_that_are_none() {
    let dir = tempdir();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    not_bootable(&file("empty", b""), &["is empty", "name a"]);
    not_bootable(&file("text", b"hello\n"), &["not a Linux kernel", "/boot/vmlinuz"]);
    not_bootable(&file("zeros", &[0; 8192]), &["not a Linux kernel"]);
    not_bootable(&file("packed", b"\x1f\x8b\x08\0\0\0\0\0"), &["gzip", "unpack it first"]);
    not_bootable(dir.path(), &["is a directory"]);
    for (run, word) in [
        (Sbx::run("/nowhere/vmlinuz").flags("--vm"), "no workload at /nowhere/vmlinuz"),
        (guest("").flag("--kernel", "x").flags("--wasm"), "--vm"),
    ] {
        let end = run.end().prints("");
        assert!(end.err().contains(word), "{end}");
    }
    let under = Sbx::run("/bin/true").flags("--rootfs / --kernel /nowhere/vmlinuz").end();
    under.status(127).prints("").says_only(&["no kernel at /nowhere/vmlinuz"]);
}

#[test]
fn kernels_that_are_cut_short() {
    let dir = tempdir();
    let whole = fs::read(kernel()).unwrap();
    let path = dir.path().join("vmlinux");
    fs::write(&path, &whole[..0x1400]).unwrap();
    not_bootable(&path, &["cut short", "download it again"]);
}

/// The headers are those of kernels for arm64, as an ELF file and as distributions ship it.
#[test]
fn kernels_for_another_processor() {
    let dir = tempdir();
    let mut elf = fs::read(kernel()).unwrap();
    elf[18..20].copy_from_slice(&183u16.to_le_bytes());
    let mut image = vec![0; 8192];
    image[..4].copy_from_slice(b"MZ\0\x91");
    image[56..60].copy_from_slice(b"ARM\x64");
    for content in [elf, image] {
        let path = dir.path().join("kernel");
        fs::write(&path, content).unwrap();
        not_bootable(&path, &["arm64", "x86-64 is needed"]);
    }
}

#[test]
fn a_kernel_and_nothing_to_run_on_it() {
    refused(Sbx::run(kernel()).flags("--vm"), &["is a kernel", "-- /bin/echo hi"]);
    refused(Sbx::run(kernel()), &["is a kernel", "-- /bin/echo hi"]);
}

#[test]
fn machines_that_cannot_be() {
    refused(guest("--memory 0"), &["--memory 0 B", "16 MiB or more"]);
    refused(guest("--memory 1M"), &["--memory 1 MiB", "16 MiB or more"]);
    refused(guest("--memory 1024T"), &["more than this host has"]);
    refused(guest("--memory 16M"), &["--memory must be at least"]);
    refused(guest("--cpus 1000"), &["--cpus 1000", "32 or fewer"]);
    refused(guest("--cpus 33"), &["32 or fewer"]);
    refused(guest("--pids 0"), &["--pids 0"]);
    let line = "x".repeat(3000);
    refused(guest("").flag("--cmdline", line), &["command line", "2047", "shorten it"]);
    // Zero processors are no number of them, on either kind of sandbox.
    let end = guest("--cpus 0").end().status(125).prints("");
    assert!(end.err().contains("not a number of processors"), "{end}");
}

#[test]
fn initial_ram_disks_that_are_none() {
    let dir = tempdir();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("empty"), "").unwrap();
    fs::File::create(path("large")).unwrap().set_len(300 << 20).unwrap();
    let with = |name: &str| Sbx::run(kernel()).flags("--vm").flag("--initrd", path(name));
    refused(with("empty"), &["no initial RAM disk"]);
    refused(with("missing"), &["there is no initial RAM disk at"]);
    refused(with("large"), &["does not fit in the guest's memory", "--memory must be at least"]);
    refused(with("large").args(["--", "/bin/true"]), &["no init of sbx's", "--cmdline"]);
    let program = Sbx::run(root().join("target/guests/native/exit"));
    let end = program.flag("--initrd", path("large")).end().status(126).prints("");
    end.says_only(&["--initrd", "needs one as the workload"]);
}

/// What sbx's own init would see to.
#[test]
fn flags_that_an_init_of_the_users_own_does_not_know() {
    for flags in [
        "-v /tmp:/x",
        "-e A=1",
        "-w /x",
        "--rootfs /",
        "--user 1",
        "--hostname a",
        "--pids 5",
        "--fds 5",
    ] {
        let run = Sbx::run(kernel()).flags("--vm").flag("--initrd", kernel()).flags(flags);
        let flag = flags.split(' ').next().unwrap();
        refused(run, &[flag, "--initrd replaces that"]);
    }
}

#[test]
fn what_only_the_other_kind_of_sandbox_can() {
    refused(guest("--fuel 5"), &["--fuel", "--cpu-time"]);
    refused(guest("--invoke f"), &["--invoke", "WebAssembly"]);
    for flags in ["--allow-net example.com:80", "--listen 127.0.0.1:80"] {
        refused(guest(flags), &["--allow-net and --listen", "--net tap=NAME"]);
    }
    let dir = tempdir();
    let module = crate::support::wat(dir.path(), "(module (func (export \"_start\")))");
    let end = Sbx::run(&module).flags("--vm").end().status(126).prints("");
    end.says_only(&["guest.wat"]);
    let program = root().join("target/guests/native/exit");
    let end = Sbx::run(program).flags("--wasm").end().status(126).prints("");
    end.says_only(&["ELF", "not WebAssembly"]);
    let end = guest("--wasm").end().status(125).prints("");
    assert!(end.err().contains("cannot be used with"), "{end}");
    for flags in ["--rootfs /", "--user 1", "--hostname a", "--net tap=x"] {
        let run = Sbx::run(&module).flags("--wasm").flags(flags);
        refused(run, &[flags.split(' ').next().unwrap()]);
    }
}

/// It would be hidden behind the root that the guest's programs are in.
#[test]
fn a_volume_in_the_place_of_the_root() {
    refused(guest("-v /tmp:/"), &["cannot take the place", "--rootfs"]);
}

#[test]
fn interfaces_that_are_none() {
    for net in ["tap=", "tap=averyveryverylongname", "tap=a,ip=10.0.0.2/99", "tap=a,mtu=1", "x"] {
        let end = guest("").flag("--net", net).end().status(125).prints("");
        assert!(end.err().contains("tap=NAME"), "{end}");
    }
    refused(guest("--net tap=a,ip=fd00::2/64"), &["IPv4"]);
}

#[test]
fn no_kernel_is_installed() {
    let empty = tempdir();
    let run = Sbx::run("/bin/true").flags("--rootfs /").env("XDG_DATA_HOME", empty.path());
    let end = run.env("XDG_DATA_DIRS", empty.path()).end();
    // The host's own /boot is the last place.
    if fs::read_dir("/boot")
        .unwrap()
        .flatten()
        .all(|e| !e.path().to_string_lossy().contains("vmlinuz-"))
    {
        let place = empty.path().join("sbx/vmlinux");
        let end = end.status(125).prints("");
        end.says_only(&["no kernel for the guest", "--kernel", place.to_str().unwrap()]);
    }
}

/// Runs a guest behind a shell command that changes the world around it.
#[track_caller]
fn with_dev(change: &str) -> Outcome {
    let line = format!("unshare -m sh -c '{change} && exec \"$@\"' sh \"$@\"");
    guest("--accel kvm").through_shell(&line).end().status(125).prints("")
}

#[test]
fn a_host_without_a_kvm() {
    if !is_root() {
        return skipped("only root can hide /dev/kvm");
    }
    with_dev("mount -t tmpfs none /dev").says_only(&["/dev/kvm"]);
    let not_kvm = "mount -t tmpfs none /dev && mknod /dev/kvm c 1 3";
    with_dev(not_kvm).says_only(&["KVM on this host"]);
    if Path::new("/dev/kvm").exists() {
        // Nobody's own is what only root may open.
        let own = "mount -t tmpfs none /dev && mknod -m 600 /dev/kvm c 10 232";
        let line =
            format!("unshare -m sh -c '{own} && exec setpriv --reuid 65534 \"$@\"' sh \"$@\"");
        let dir = tempdir();
        let run = guest("--accel kvm").cache(dir.path()).through_shell(&line);
        run.end().status(125).prints("").says_only(&["/dev/kvm", "kvm"]);
    }
}

/// Some KVMs emulate a guest's kernel; they look like any other until a guest does not start for minutes.
#[test]
fn a_kvm_without_hardware() {
    if crate::doctor::has_hardware() || !Path::new("/dev/kvm").exists() {
        return skipped("this host's KVM is backed by hardware, or there is none");
    }
    refused(guest("--accel kvm"), &["not backed by hardware", "run microVMs on a host"]);
}

/// Neither KVM nor QEMU: what can be installed is named.
#[test]
fn a_host_without_an_emulator() {
    let without = |flags: &str| guest(flags).env("PATH", "/nowhere");
    refused(without("--accel tcg"), &["needs QEMU", "package qemu-system-x86"]);
    if crate::doctor::has_hardware() {
        return skipped("this host's KVM may be a real one, and then that is taken");
    }
    refused(without(""), &["KVM", "software emulation", "package qemu-system-x86"]);
}

#[test]
fn an_accelerator_that_is_none() {
    let end = guest("--accel hvf").end().status(125).prints("");
    assert!(end.err().contains("'hvf' is none of auto, kvm and tcg"), "{end}");
}

/// What is slow is said to be, in one line that can be left out.
#[test]
fn emulation_is_told_of() {
    let run = |flags: &str| {
        Sbx::run(crate::support::kernel()).flags(flags).flags("--vm").args([
            "--",
            "/bin/echo",
            "hi",
        ])
    };
    let end = run("--accel tcg").end().status(0).prints("hi\n");
    end.says_only(&["emulated in software", "times slower", "--quiet"]);
    run("--accel tcg --quiet").end().status(0).prints("hi\n").silent();
    if !crate::doctor::has_hardware() {
        let end = run("").end().status(0).prints("hi\n");
        end.says_only(&["emulated in software", "no KVM that is backed by hardware"]);
    }
}

/// The same for one that is kept, and a command that is too long for its supervisor is told to be.
#[test]
fn emulation_in_the_background_is_told_of() {
    let kept = Kept::new();
    let run = |flags: &str| {
        let run = kept.run(crate::support::kernel()).flags(flags).flags("--accel tcg --vm");
        run.args(["--", "/bin/sleep", "3600"]).end().status(0)
    };
    run("--name x").says_only(&["emulated in software", "times slower", "--quiet"]);
    run("--name y --quiet").silent();
    let long = kept.sbx("exec x -- /bin/echo").args([&"a".repeat(70_000)]).end();
    long.status(125).prints("").says_only(&["longer than the 64 KiB"]);
    kept.sbx("exec x -- /bin/echo").args(["hi"]).end().status(0).prints("hi\n").silent();
}

/// `--explain` says who would execute the machine, or why nobody can.
#[test]
fn the_accelerator_is_explained() {
    let explained = |run: Sbx| {
        let out = run.flags("--explain").end().status(0).silent().out();
        out.lines().find_map(|line| line.strip_prefix("accelerator")).unwrap().trim().to_owned()
    };
    assert_eq!(explained(guest("--accel tcg")), "tcg");
    let none = explained(guest("--accel tcg").env("PATH", "/nowhere"));
    assert!(none.starts_with("none") && none.contains("QEMU"), "{none}");
}
