"""Runs and judges the measurements of a microVM's start; benches/vm_start prepares what they need."""

import glob
import json
import mmap
import os
import re
import selectors
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SBX = "target/x86_64-unknown-linux-gnu/release/sbx"
TUNED = "target/kernel/vmlinux"
STOCK = (glob.glob("target/kernel/debian/boot/vmlinuz-*") or ["-"])[0]
INITRD = "target/bench/init.cpio"
# What the guest's init writes to its serial port; no kernel prints it.
MARK = b"\xa5"
MEMORY = 256 << 20
# How long any one machine may take, in seconds.
PATIENCE = 30
TRIES = 3

# QEMU's own documentation of microvm names these as what to leave out for the shortest start; a kernel that
# does not come up with one of them is started with the next. The fastest is what sbx is measured against.
BARE = "pit=off,pic=off,rtc=off"
QEMU_MACHINES = [f"acpi=off,{BARE}", f"acpi=on,{BARE}", "acpi=off,pit=on,pic=on,rtc=off", "acpi=on"]
# What sbx gives a guest that brings its own init.
SAME_DEVICES = ["-device", "virtio-serial-device", "-chardev", "null,id=c",
                "-device", "virtconsole,chardev=c",
                "-device", "virtio-rng-device",
                "-device", "virtio-balloon-device,free-page-reporting=on"]


def plan_command():
    """sbx's planning alone, which needs no KVM: everything of its own before it makes a machine."""
    return [SBX, "run", "--explain", "--vm", "--initrd", INITRD, TUNED]


def command_line():
    """The words that sbx gives a kernel; all others get the same."""
    plan = subprocess.run(plan_command(), check=True, capture_output=True, text=True).stdout
    return re.search(r"^cmdline +(.*)$", plan, re.M)[1] + " quiet"


def sbx(words="quiet"):
    return [SBX, "run", "--vm", "--initrd", INITRD, "--cmdline", words, TUNED]


def qemu(machine, words, devices=(), console=("-serial", "stdio")):
    return ["qemu-system-x86_64", "-M",
            f"microvm,accel=kvm,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=on,{machine}",
            "-cpu", "host", "-m", str(MEMORY >> 20), "-smp", "1", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-kernel", TUNED, "-initrd", INITRD, "-append", words,
            *console, *devices]


def firecracker(words, directory):
    config = {
        "boot-source": {"kernel_image_path": TUNED, "initrd_path": INITRD, "boot_args": words},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY >> 20},
    }
    path = os.path.join(directory, "firecracker.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return ["firecracker", "--no-api", "--config-file", path]


class Running:
    """A machine under way."""

    def __init__(self, command):
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def wait_for(self, mark):
        """Seconds from the start until its standard output brought `mark`; None if it never did."""
        selector = selectors.DefaultSelector()
        selector.register(self.process.stdout, selectors.EVENT_READ)
        seen = b""
        while selector.select(max(0, self.begun + PATIENCE - time.monotonic())):
            chunk = os.read(self.process.stdout.fileno(), 4096)
            now = time.monotonic()
            seen += chunk
            if mark in seen:
                return now - self.begun
            if not chunk:
                break
        return None

    def end(self, patience=0.0):
        """Ends the machine, now or after it had time to end by itself; what it said on standard error."""
        try:
            return self.process.communicate(timeout=patience or 0.001)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            self.process.kill()
        try:
            return self.process.communicate(timeout=PATIENCE)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            return "it does not end, though it was killed"


def start(command, patience=0.0):
    """Milliseconds from exec to the guest's init, and what the command then said."""
    running = Running(command)
    seconds = running.wait_for(MARK)
    said = running.end(patience)
    if seconds is None:
        return None, said
    return seconds * 1000, said


def must_start(name, command, patience=0.0):
    """As `start`. A nested machine now and then loses an interrupt, and a guest hangs: that is told, and done
    again."""
    for _ in range(TRIES):
        taken, said = start(command, patience)
        if taken is not None:
            return taken, said
        print(f"  {name} did not bring the guest up within {PATIENCE} s; once more")
    sys.exit(f"benches/vm_start: {name} did not bring the guest up: {said}\n{command}")


def times_of(said):
    """What SBX_TIMES=1 tells: processor time before the guest, its entry, and its init, in ms."""
    found = re.search(r"used ([\d.]+) ms .* after ([\d.]+) ms, .* after ([\d.]+) ms", said)
    if not found:
        sys.exit(f"benches/vm_start: sbx told no times: {said}")
    return [float(number) for number in found.groups()]


def fastest_qemu(words):
    """Of QEMU's machines the one that brings the guest up first, in the best of four tries, in turn."""
    tries = {machine: [] for machine in QEMU_MACHINES}
    for _ in range(4):
        for machine, taken in tries.items():
            taken.append(start(qemu(machine, words))[0])
    worked = {machine: [t for t in taken if t is not None] for machine, taken in tries.items()}
    best = {machine: min(taken) for machine, taken in worked.items() if len(taken) > 1}
    for machine in tries:
        told = f"{best[machine]:.0f} ms" if machine in best else "does not bring the guest up"
        print(f"  QEMU microvm {machine}: {told}")
    if not best:
        sys.exit("benches/vm_start: no QEMU machine brings the guest up")
    return min(best, key=best.get)


def qemu_cpu(machine, words):
    """QEMU's processor time in ms until it could enter the guest: it is held there (-S) and asked."""
    running = Running(qemu(machine, words, console=("-serial", "null", "-monitor", "stdio", "-S")))
    if running.wait_for(b"(qemu)") is None:
        sys.exit(f"benches/vm_start: QEMU does not hold: {running.end()}")
    # The clock of another process's time, as clock_getcpuclockid(3) makes its number.
    cpu = time.clock_gettime((~running.process.pid << 3) | 2) * 1000
    running.end()
    return cpu


def plan_cpu():
    """The least processor time in ms of 20 plans, exec to exit."""
    least = float("inf")
    for _ in range(20):
        pid = os.posix_spawn(SBX, plan_command(), os.environ,
                             file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
        usage = os.wait4(pid, 0)[2]
        least = min(least, (usage.ru_utime + usage.ru_stime) * 1000)
    return least


def copy_cpu():
    """The least processor time in ms of 10 copies of the kernel's loaded part into large pages."""
    least = float("inf")
    with open(TUNED, "rb") as file:
        size = loaded_size(file.read(4096))
        for _ in range(10):
            with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                memory.madvise(mmap.MADV_HUGEPAGE)
                file.seek(0)
                begun = time.process_time()
                file.readinto(memory)
                least = min(least, (time.process_time() - begun) * 1000)
    return least


def loaded_size(head):
    """Bytes of an ELF file that its program headers have loaded."""
    (table,), (count,) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<H", head, 56)
    headers = [struct.unpack_from("<II6Q", head, table + 56 * i) for i in range(count)]
    return sum(header[5] for header in headers if header[0] == 1)


def mappings(pid):
    """The mappings of a process: start, end, whether private and writable, and Pss in KiB."""
    found = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (....) ", line)
            if head:
                found.append([int(head[1], 16), int(head[2], 16), head[3] == "rw-p", 0])
            elif line.startswith("Pss:"):
                found[-1][3] = int(line.split()[1])
    return found


def without_guest(maps):
    """KiB of all mappings but the guest's memory: a row of neighbours that has its exact size."""
    for first, mapping in enumerate(maps):
        end = mapping[0]
        for last in range(first, len(maps)):
            if maps[last][0] != end or not maps[last][2]:
                break
            end = maps[last][1]
            if end - mapping[0] == MEMORY:
                return sum(m[3] for m in maps[:first] + maps[last + 1:])
    return None


def family(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        children = [int(child) for child in file.read().split()]
    return [pid] + [p for child in children for p in family(child)]


def overhead(command):
    """MiB that a machine's processes have in memory beside the guest's own, once its init waits."""
    running = Running(command)
    if running.wait_for(MARK) is None:
        sys.exit(f"benches/vm_start: no guest to measure: {running.end()}")
    time.sleep(0.3)
    total, guests = 0, 0
    for pid in family(running.process.pid):
        maps = mappings(pid)
        outside = without_guest(maps)
        guests += outside is not None
        total += sum(m[3] for m in maps) if outside is None else outside
    running.end()
    if guests != 1:
        sys.exit("benches/vm_start: the guest's memory was not found among its machine's mappings")
    return total / 1024


def row(name, values, unit="ms"):
    print(f"  {name:<34} {statistics.median(values):9.1f} {min(values):9.1f} {unit}")


def judge(name, ratio, target, met):
    print(f"  {name:<34} {ratio:>24}   target {target}: {'met' if met else 'MISSED'}")


def ratios(name, ours, theirs, limit):
    pair = (statistics.median(ours) / statistics.median(theirs), min(ours) / min(theirs))
    judge(name, f"{pair[0]:.3f} / min {pair[1]:.3f}", f"<= {limit}", max(pair) <= limit)


def starts(runs, machine, words, directory):
    """(a) and (b): from exec to the guest's init, and what the machine monitor adds to it."""
    commands = {"sbx": sbx(), "QEMU": qemu(machine, words),
                "QEMU, sbx's devices": qemu(machine, words, SAME_DEVICES)}
    if shutil.which("firecracker"):
        commands["Firecracker"] = firecracker(words, directory)
    taken = {name: [] for name in commands}
    told, held = [], []
    for name, command in commands.items():
        must_start(name, command, PATIENCE if name == "sbx" else 0)
    for _ in range(runs):
        for name, command in commands.items():
            seconds, said = must_start(name, command, PATIENCE if name == "sbx" else 0)
            taken[name].append(seconds)
            if name == "sbx":
                told.append(times_of(said))
        held.append(qemu_cpu(machine, words))
    print("\n(a) exec of the VMM to the guest's first user-space instruction        median       min")
    for name, values in taken.items():
        row(name, values)
    row("sbx's own boot timer, from fork", [times[2] for times in told])
    row("guest alone: entry to init", [times[2] - times[1] for times in told])
    for name in list(taken)[1:]:
        ratios(f"sbx / {name}", taken["sbx"], taken[name], 1.0 if name == "Firecracker" else 0.8)
    if "Firecracker" not in taken:
        print("  Firecracker: not on PATH, not measured")
    return [times[0] for times in told], held


def added(cpu, held, nested):
    print("\n(b) processor time of the VMM from exec to the guest's first instruction   median       min")
    row("sbx", cpu)
    row("QEMU, held before the guest (-S)", held)
    print(f"  {'sbx / QEMU':<34} {statistics.median(cpu) / statistics.median(held):>16.3f}")
    if not nested:
        judge("sbx", f"{statistics.median(cpu):.1f} ms", "<= 8 ms", statistics.median(cpu) <= 8)
        return
    planning, copying = (float(os.environ[name]) for name in ("VM_START_PLAN_MS", "VM_START_COPY_MS"))
    print("  of sbx's part, measured on the host itself, outside of the nested machine:")
    print(f"  {'exec and planning':<34} {planning:9.2f} ms\n  {'a copy of the kernel, large pages':<34} "
          f"{copying:9.2f} ms")
    print("  target <= 8 ms: NOT JUDGED, since making the machine on KVM comes to these and a nested machine\n"
          "  cannot tell its time")


def memory(machine, words):
    ours, theirs = overhead(sbx("quiet hold")), overhead(qemu(machine, words + " hold"))
    print("\n(c) memory of the VMM beyond the guest's, Pss of all its processes")
    print(f"  {'sbx':<34} {ours:9.2f} MiB\n  {'QEMU':<34} {theirs:9.2f} MiB")
    judge("sbx", f"{ours:.2f} MiB", "<= 5 MiB", ours <= 5)


def kernels(runs):
    """(d): a program run by sbx's init, under the tuned kernel and under the one Debian ships."""
    init = {TUNED: [], STOCK: []}
    whole = {TUNED: [], STOCK: []}
    for turn in range(runs + 1):
        for kernel in init:
            begun = time.monotonic()
            run = subprocess.run([SBX, "run", "--vm", kernel, "--", "/bin/true"], stdin=subprocess.DEVNULL,
                                 capture_output=True, text=True, timeout=PATIENCE, check=False)
            taken = (time.monotonic() - begun) * 1000
            if run.returncode != 0:
                sys.exit(f"benches/vm_start: {kernel}: {run.stderr}")
            times = times_of(run.stderr)
            # The first turn fills sbx's cache.
            if turn > 0:
                init[kernel].append(times[2] - times[1])
                whole[kernel].append(taken)
    print("\n(d) sbx run --vm KERNEL -- /bin/true                                     median       min")
    for name, kernel in (("tuned", TUNED), ("stock", STOCK)):
        row(f"{name}: guest's entry to init", init[kernel])
        row(f"{name}: whole run", whole[kernel])
    ratio = statistics.median(init[STOCK]) / statistics.median(init[TUNED])
    judge("guest's boot, stock / tuned", f"{ratio:.2f}", ">= 3", ratio >= 3)
    ratio = statistics.median(whole[STOCK]) / statistics.median(whole[TUNED])
    print(f"  {'whole run, stock / tuned':<34} {ratio:24.2f}")


def measure(runs):
    sys.stdout.reconfigure(line_buffering=True)
    nested = os.environ["SBX_TESTBED"] == "nested"
    version = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True)
    print(f"{version.stdout.splitlines()[0]}; {runs} runs of each, in turn; {MEMORY >> 20} MiB, 1 processor")
    if nested:
        print("NESTED MACHINE: /dev/kvm is not backed by hardware here, so that all of this, KVM included,\n"
              "runs in a machine under software emulation. ITS TIMES ARE NOT A HOST'S, by a factor of ten or\n"
              "more; only ratios of times that guests dominate tell something.")
    else:
        print("directly on this host's KVM, which is hardware-backed")
    with tempfile.TemporaryDirectory() as directory:
        os.environ.update(XDG_CACHE_HOME=directory, SBX_TIMES="1")
        words = command_line()
        print(f"command line of all: {words}")
        machine = fastest_qemu(words)
        print(f"  taken: {machine}")
        cpu, held = starts(runs, machine, words, directory)
        added(cpu, held, nested)
        memory(machine, words)
        kernels(max(runs // 2, 3))


def main():
    if "SBX_TESTBED" in os.environ:
        return measure(int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        os.environ.update(VM_START_PLAN_MS=str(plan_cpu()), VM_START_COPY_MS=str(copy_cpu()))
        return subprocess.run(["tests/testbed/run", "--verbose", "--timeout", "3600", "--",
                               "python3", __file__, sys.argv[1]], check=False).returncode


sys.exit(main())
