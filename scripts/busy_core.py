"""How long a training takes beside a process that keeps a core busy: the figures of docs/training.md.

    python scripts/busy_core.py [--rounds 5] [--epochs 40]

Each round times `pygan train digits` in new processes, one after another: with one thread (the default for nets of
this size) and with two, alone and beside a process that keeps a core busy; and with two threads that sleep at once
when they wait, and that spin for long, as OpenMP's do by default. The seconds are those of training, as result.json
has them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = {  # threads, beside a busy core, environment
    "1 thread, alone": (1, False, {}),
    "1 thread, a core is busy": (1, True, {}),
    "2 threads, alone": (2, False, {}),
    "2 threads, a core is busy": (2, True, {}),
    "2 threads, alone, sleeping": (2, False, {"GOMP_SPINCOUNT": "0"}),
    "2 threads, alone, spinning": (2, False, {"GOMP_SPINCOUNT": "300000"}),  # OpenMP's own default
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.rounds):
        for name, case in CASES.items():
            times[name].append(run(*case, options.epochs))
    alone = statistics.median(times["1 thread, alone"])
    print(f"{os.cpu_count()} cores, {options.epochs} epochs of digits, medians of {options.rounds}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<28}{median:8.2f} s{median / alone:8.2f} times   ({min(seconds):.2f} to {max(seconds):.2f})")


def run(threads: int, busy: bool, environment: dict[str, str], epochs: int) -> float:
    """Return the seconds that a training took."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    words = ["train", "digits", "--epochs", str(epochs), "--threads", str(threads), "--quiet", "--out"]
    with tempfile.TemporaryDirectory() as folder:
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            subprocess.run(
                [sys.executable, "-m", "pygan", *words, f"{folder}/run"],
                check=True,
                env=clean | environment,
                stdout=subprocess.DEVNULL,
            )
        finally:
            if other is not None:
                other.kill()
                other.wait()
        return float(json.loads(Path(folder, "run", "result.json").read_text())["seconds"])


if __name__ == "__main__":
    main()
