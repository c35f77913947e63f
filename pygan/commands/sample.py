"""`pygan sample`: draw samples from a trained generator, as a picture, as arrays or as a folder of pictures."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pygan import pictures
from pygan._files import replace_file
from pygan._session import find_device
from pygan.commands.parser import CHECKPOINT, DEVICE, Parser, count, seed, whole_numbers
from pygan.run import load, samples_in_rows

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "draw samples, as pictures or arrays"
_DESCRIPTION = """\
Draw samples from a trained generator.

examples:
  pygan sample runs/mnist -n 100 -o grid.png
  pygan sample runs/mnist -n 10000 -o samples.npy --seed 1
  pygan sample runs/mnist -n 500 -o samples/    500 files: 000.png, 001.png, ...
  pygan sample runs/mnist --labels 3            of a conditional run: only 3s
"""
_N = (
    "number of samples (default: 64; for a picture of a conditional run 10 of each class, a row for each class and a "
    "column for each noise vector)"
)
_OUTPUT = (
    ".png: one picture; .npy: float32 [N, C, H, W] in [0, 1]; .npz: the same as 'images', with their 'labels'; "
    "folder/: a .png for each sample (default: samples.png)"
)


def run(words: Sequence[str]) -> None:
    """Run the command."""
    of = parser()
    options = of.parse(words)
    device = find_device(options.device)
    trained = load(options.run, checkpoint=options.checkpoint)
    trained.generator.to(device)
    labels = options.labels
    n = options.n or (len(labels) if labels is not None and len(labels) > 1 else 64)
    if labels is not None and len(labels) not in (1, n):
        raise ValueError(f"labels: must be one, or as many as samples, {n}, got {len(labels)}")
    if labels is None and trained.game.classes:
        labels = [i % trained.game.classes for i in range(n)]
    output = Path(options.output).expanduser()
    into_folder = options.output.endswith("/") or output.is_dir()
    plotted = pictures.is_plottable(trained.shape)
    grid = not into_folder and not plotted and output.suffix.lower() == ".png"
    if not grid:
        of.refuse_useless("--columns", why="is for one picture of many images")
    if into_folder:
        _refuse_pictures(output)
    columns = None
    if grid and options.n is None and options.labels is None:
        images, columns = samples_in_rows(trained, options.seed)
    else:
        images = trained.sample(n, options.seed, labels if labels is None or len(labels) > 1 else labels[0])
    if into_folder:
        _write_folder(output, images)
    elif grid:
        pictures.save_png(output, images, options.columns or columns)
    elif output.suffix.lower() == ".png":
        pictures.save_points(output, images)
    else:
        arrays = {"images": images.numpy()}
        if labels is not None:
            arrays["labels"] = np.resize(np.array(labels), n)
        _write_arrays(output, arrays)
    print(output)


def parser() -> Parser:
    """Return the parser."""
    of = Parser("sample RUN [-n N] [-o FILE] [options]", _DESCRIPTION)
    of.option("run", metavar="RUN", help="run folder")
    of.option("-n", type=count, metavar="N", help=_N)
    of.option("-o", "--output", type=_output, default="samples.png", metavar="FILE", help=_OUTPUT)
    of.option("--columns", type=count, metavar="N", help="images in a row of the picture (default: about square)")
    of.option("--labels", type=whole_numbers("3 or 0,1,2"), metavar="C,C", help="classes, one for all or one each")
    of.option("--seed", type=seed, metavar="N", help="the same seed, the same samples (default: new ones)")
    of.option("--device", **DEVICE)
    of.option("--checkpoint", **CHECKPOINT)
    return of


def _output(text: str) -> str:
    if text.endswith("/") or Path(text).suffix.lower() in (".png", ".npy", ".npz") or Path(text).expanduser().is_dir():
        return text
    raise argparse.ArgumentTypeError(f"expected a name that ends in .png, .npy, .npz or / (a folder), got {text!r}")


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npy file, or a .npz file with all arrays. Who reads the path meanwhile sees the old file or the new."""
    content = io.BytesIO()
    if path.suffix.lower() == ".npy":
        np.save(content, arrays["images"])
    else:
        np.savez_compressed(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())


def _refuse_pictures(folder: Path) -> None:
    if folder.is_dir() and any(folder.glob("*.png")):
        raise ValueError(f"output: {folder} has pictures already; choose another folder, or empty it")


def _write_folder(folder: Path, images: Tensor) -> None:
    """Write a PNG file for each image, in its own size."""
    width = len(str(len(images) - 1))
    for number, image in enumerate(images):
        pictures.save_png(folder / f"{number:0{width}}.png", image[None], enlarge=False)
