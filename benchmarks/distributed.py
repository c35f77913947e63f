"""Two processes of one thread against one process of two threads: milliseconds of an update of a DCGAN.

    python benchmarks/distributed.py                      # three sizes, of which the last is that of 64x64 pictures
    python benchmarks/distributed.py --size 28,32,128     # pixels of a side, channels, batch; may be given again
    python benchmarks/distributed.py --quick

All are `pygan.train` as users call it, and torchrun starts the two processes. They take turns. A turn is one run of a
few epochs; a time is the mean of an epoch's updates, and the table has the median over all epochs of all turns but the
first of each turn. What is written and evaluated between two epochs counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from harness import conditions

import pygan
from pygan.folder import RunFolder

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
WAYS = {  # words that start the processes, threads of each, batch norm
    "one process, two threads": ([sys.executable], 2, "synchronised"),
    "two processes": (TORCHRUN, 1, "synchronised"),
    "two processes, batch norm over own rows": (TORCHRUN, 1, "local"),
}
SIZES = [(28, 32, 128), (64, 32, 32), (64, 64, 64)]


def train(out: str, side: int, channels: int, batch: int, threads: int, norm: str, updates: int, epochs: int) -> None:
    """In each process: train."""
    torch.manual_seed(0)
    valid, test = torch.rand(200, 1, side, side).chunk(2)
    pygan.train(
        torch.rand(batch * updates, 1, side, side),
        "dcgan",
        out=out,
        valid=valid,
        test=test,
        epochs=epochs,
        channels=channels,
        batch_size=batch,
        batch_norm=norm,
        threads=threads,
        evaluate_every=epochs,
        samples_every=epochs,
        checkpoint_every=epochs,
        checkpoint_seconds=1e6,
        evaluation_samples=100,
        progress=False,
        report=False,
    )


def turn(way: str, size: Sequence[int], updates: int, epochs: int) -> list[float]:
    """Milliseconds of an update, one number an epoch."""
    start, threads, norm = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        words = json.dumps([str(out), *size, threads, norm, updates, epochs])
        subprocess.run([*start, __file__, "--train", words], check=True, stdout=subprocess.DEVNULL)
        ends = [entry["seconds"] for entry in RunFolder(out).read_log()]
    return [1e3 * (end - begin) / updates for begin, end in pairwise(ends)]


def compare(size: Sequence[int], rounds: int, updates: int, epochs: int) -> None:
    """Print the rows of one size."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, of in times.items():
            of += turn(way, size, updates, epochs)
    alone, *_ = medians = [statistics.median(of) for of in times.values()]
    side, channels, batch = size
    for way, median in zip(times, medians, strict=True):
        least, speed = min(times[way]), alone / median
        print(f"| {side}x{side}, {channels}, {batch} | {way} | {median:.1f} | {least:.1f} | {speed:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=_size, action="append", help="pixels of a side, channels, batch: 28,32,128")
    parser.add_argument("--updates", type=int, default=6, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=4, help="in a turn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny net, one round")
    parser.add_argument("--train", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train is not None:
        train(*args.train)
        return
    if args.quick:
        args.size, args.epochs, args.rounds = [(8, 4, 16)], 3, 1
    given = {name: getattr(args, name) for name in ("updates", "epochs", "rounds")}
    for name, value in {**conditions(), **given}.items():
        print(f"{name}: {value}")
    print("\n| pixels, channels, batch | | ms, median | least | speed |\n|---|---|---|---|---|")
    for size in args.size or SIZES:
        compare(size, args.rounds, args.updates, args.epochs)


def _size(text: str) -> tuple[int, ...]:
    side, channels, batch = map(int, text.split(","))
    return side, channels, batch


if __name__ == "__main__":
    main()
