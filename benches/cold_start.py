"""Runs and judges the cold-start measurements; benches/cold_start prepares what they need."""

import json
import os
import statistics
import subprocess
import sys
import tempfile

SBX = "target/x86_64-unknown-linux-gnu/release/sbx"
WASMTIME = "target/bench/wasmtime"
EMPTY = "target/bench/empty"
PROGRAMS = "target/programs"

# Name, arguments behind `run`, runs a round, and the target for sbx/wasmtime.
CASES = [
    ("core hello", ["examples/c/hello.wasm"], 100, 0.20),
    ("component hello", ["examples/c/hello-component.wasm"], 60, 0.20),
    ("QuickJS -e 1", [f"{PROGRAMS}/quickjs/quickjs.wasm", "-e", "1"], 30, 0.25),
    ("CPython -c pass", [f"{PROGRAMS}/python/python.wasm", "-c", "pass"], 8, 0.25),
    ("compute", ["target/guests/crunch.wasm", "3"], 2, 1.02),
]


def measure(commands, runs, rounds):
    """Seconds of each run of each command, the commands taking turns."""
    times = [[] for _ in commands]
    for _ in range(rounds):
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            subprocess.run(
                ["hyperfine", "-N", "--warmup", "3", "--runs", str(max(runs, 2)), "--style", "none",
                 "--export-json", out.name, *map(" ".join, commands)],
                check=True, stdout=subprocess.DEVNULL,
            )
            for i, result in enumerate(json.load(out)["results"]):
                times[i] += result["times"]
    return times


def peak_memory(command):
    """The median over 5 runs of the largest resident set of a command and its children, in KiB.

    GNU time starts the command: a process begins with its starter's peak, and Python's is large."""
    peaks = []
    for _ in range(5):
        out = subprocess.run(["/usr/bin/time", "-f", "%M", *command], check=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peaks.append(int(out.stderr))
    return statistics.median(peaks)


def row(name, times, base, target):
    """One line: medians and minima in ms, their ratios, and whether the target is met."""
    ms = [statistics.median(t) * 1000 for t in (times, base)] + [min(t) * 1000 for t in (times, base)]
    ratios = ms[0] / ms[1], ms[2] / ms[3]
    verdict = "met" if max(ratios) <= target else "MISSED"
    print(f"{name:<32} {ms[0]:9.2f} {ms[1]:9.2f} {ratios[0]:7.3f} {ratios[1]:7.3f}   "
          f"<= {target:.2f} {verdict}")


def main():
    rounds = int(sys.argv[1])
    load = os.getloadavg()[0]
    version = subprocess.run([WASMTIME, "--version"], check=True, capture_output=True, text=True)
    print(f"sbx against {version.stdout.strip()}; {os.cpu_count()} processors, load {load:.2f}")
    print(f"{'':<32} {'sbx ms':>9} {'other ms':>9} {'median':>7} {'min':>7}   target")
    for name, args, runs, target in CASES:
        commands = [[SBX, "run", *args], [WASMTIME, "run", *args]]
        if name == "core hello":
            commands.append([EMPTY])
        times = measure(commands, runs, rounds)
        row(f"{name} / wasmtime", times[0], times[1], target)
        if name == "core hello":
            row(f"{name} / empty static C", times[0], times[2], 3.0)
            floor = statistics.median(times[2]) / statistics.median(times[1])
            print(f"{'empty static C / wasmtime':<32} {'the floor of any process':>19} {floor:7.3f}")
    hello = "examples/c/hello.wasm"
    peaks = [peak_memory([tool, "run", hello]) for tool in (SBX, WASMTIME)]
    ratio = peaks[0] / peaks[1]
    verdict = "met" if ratio <= 0.3 else "MISSED"
    print(f"{'core hello: peak memory, KiB':<32} {peaks[0]:9.0f} {peaks[1]:9.0f} {ratio:7.3f} "
          f"{'':>7}   <= 0.30 {verdict}")


main()
