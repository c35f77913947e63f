"""Two processes of one thread against one process of two threads: milliseconds of an update of a DCGAN.

    python benchmarks/distributed.py                 # 28x28 pixels, 32 channels, batches of 128
    python benchmarks/distributed.py --unsynchronised   # batch norm over each process's own rows
    python benchmarks/distributed.py --quick

Both are `pygan.train` as users call it, the first started by torchrun. The two take turns; a time is the median over
all epochs of all turns, without the first and the last of a turn, which load and evaluate.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from harness import conditions

import pygan

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def train(args: argparse.Namespace) -> None:
    """In each process: train, and let the main one write the milliseconds of each epoch's updates."""
    torch.manual_seed(0)
    images, ends = torch.rand(args.batch * args.updates, 1, args.side, args.side), list[float]()
    pygan.train(
        images,
        "dcgan",
        out=args.out,
        epochs=args.epochs,
        channels=args.channels,
        batch_size=args.batch,
        batch_norm="local" if args.unsynchronised else "synchronised",
        threads=args.threads,
        evaluate_every=args.epochs,
        samples_every=args.epochs,
        checkpoint_every=args.epochs,
        evaluation_samples=100,
        progress=False,
        report=False,
        on_epoch=lambda run: ends.append(time.perf_counter()),
    )
    if ends:
        per_update = [1e3 * (end - start) / args.updates for start, end in pairwise(ends[:-1])]
        args.out.with_suffix(".json").write_text(json.dumps(per_update))


def turn(processes: int, words: list[str]) -> list[float]:
    """Milliseconds of an update, one number an epoch."""
    start = TORCHRUN if processes == 2 else [sys.executable]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        threads = str(2 // processes)
        command = [*start, __file__, *words, "--out", str(out), "--threads", threads]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(out.with_suffix(".json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--updates", type=int, default=3, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=6, help="in a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unsynchronised", action="store_true", help="batch norm over each process's own rows")
    parser.add_argument("--quick", action="store_true", help="a tiny net, one round")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.side, args.channels, args.batch, args.epochs, args.rounds = 8, 4, 16, 4, 1
    if args.out is not None:
        train(args)
    else:
        compare(args, sys.argv[1:])


def compare(args: argparse.Namespace, words: list[str]) -> None:
    """Print the table; `words` are the command's."""
    for name, value in {**conditions(), **{k: v for k, v in vars(args).items() if v is not None}}.items():
        print(f"{name}: {value}")
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(args.rounds):
        for processes, of in times.items():
            of += turn(processes, words)
    medians = {processes: statistics.median(of) for processes, of in times.items()}
    print("\n| | ms, median | least | speed |\n|---|---|---|---|")
    for processes, name in ((1, "one process, two threads"), (2, "two processes, one thread each")):
        speed = medians[1] / medians[processes]
        print(f"| {name} | {medians[processes]:.1f} | {min(times[processes]):.1f} | {speed:.2f} |")


if __name__ == "__main__":
    main()
