"""A folder of small images, 64x64: images per second beside torchvision's ImageFolder with DataLoader, and memory.

All contenders read batches of 100 images in random order as float32 in [0, 1], in turn, for some seconds each, round
after round. torchvision decodes each image again in each epoch, here in one worker process for each core, and in none;
pygan decodes it once into its cache, which is timed apart, and then maps this.

With --train, a small net is trained on the folder, and the memory of the process is printed after each epoch: "own"
cannot be given back; "mapped" are pages of files, which the system drops when memory is short.

    python benchmarks/folders.py --quick             2,000 images
    python benchmarks/folders.py                     100,000 images: 0.5 GB on the disk, and 1.2 GB for the cache
    python benchmarks/folders.py --train 10          10 epochs instead of the comparison
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import conditions
from torch.utils.data import DataLoader

import pygan
from pygan.batches import Batches
from pygan.data import folders, make_scale

SIDE, BATCH = 64, 100


def make_folder(path: Path, count: int) -> None:
    """Write JPEG pictures of smooth noise, in ten classes."""
    from PIL import Image

    draws = np.random.default_rng(0)
    for label in range(10):
        (path / str(label)).mkdir(parents=True)
    for i in range(count):
        small = Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path / str(i % 10) / f"{i:06}.jpg", quality=90)


def torchvision_loader(path: Path, workers: int) -> DataLoader[Any]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    images = ImageFolder(path, ToTensor())
    return DataLoader(images, BATCH, True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)


def endless(loader: DataLoader[Any]) -> Iterator[torch.Tensor]:
    while True:
        yield from (images for images, _ in loader)


def pygan_batches(path: Path) -> Iterator[torch.Tensor]:
    train = pygan.data.load(path).train
    batches = Batches(train, BATCH, 0, torch.device("cpu"), make_scale("unit", train))
    while True:
        yield batches().images


def compare(path: Path, seconds: float, rounds: int) -> None:
    start = time.perf_counter()
    pygan.data.load(path)
    print(f"pygan: decoded into the cache in {time.perf_counter() - start:.1f} s;", end=" ")
    start = time.perf_counter()
    pygan.data.load(path)
    print(f"read again, with its checksum, in {time.perf_counter() - start:.1f} s\n")
    contenders = {"pygan": pygan_batches(path)}
    with suppress(ImportError):
        for workers in (0, os.cpu_count() or 1):
            contenders[f"torchvision, {workers} workers"] = endless(torchvision_loader(path, workers))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for batches in contenders.values():
        next(batches)  # starts the workers
    for _ in range(rounds):
        for name, batches in contenders.items():
            start, done = time.perf_counter(), 0
            while (spent := time.perf_counter() - start) < seconds:
                next(batches).sum()
                done += BATCH
            rates[name].append(done / spent)
    print("| images per second | median | lowest | highest |\n|---|---|---|---|")
    for name, of in rates.items():
        print(f"| {name} | {statistics.median(of):,.0f} | {min(of):,.0f} | {max(of):,.0f} |")


def memory() -> list[int]:
    """Return the MiB of this process that are its own, and those that are mapped from files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")]


def train(path: Path, epochs: int) -> None:
    def show(run: pygan.Run) -> None:
        print("| {} | {} | {} |".format(len(run.history), *memory()), flush=True)

    print("| epoch | own MiB | mapped MiB |\n|---|---|---|")
    sizes = {"generator_hidden": (64, 64), "discriminator_hidden": (16, 16), "pieces": 2, "evaluation_samples": 1000}
    often = dict.fromkeys(("evaluate_every", "samples_every", "checkpoint_every"), epochs)
    out = path.parent / "run"
    pygan.train(path, "code2014", out=out, epochs=epochs, progress=False, on_epoch=show, threads=1, **sizes, **often)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 images")
    parser.add_argument("--train", type=int, metavar="EPOCHS", help="train, and print the memory")
    options = parser.parse_args()
    count = 2000 if options.quick else 100_000
    print(conditions(), f"\n{count:,} images of {SIDE}x{SIDE}, batches of {BATCH}\n")
    folders.HELD = 0  # so that 2,000 images are mapped too
    with tempfile.TemporaryDirectory() as place:
        os.environ["PYGAN_CACHE"] = place
        path = Path(place) / "images"
        make_folder(path, count)
        if options.train:
            train(path, options.train)
        else:
            compare(path, *((1, 3) if options.quick else (5, 5)))


if __name__ == "__main__":
    main()
