"""`pygan latent`: pictures of paths and sums in the space of noise."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pygan import latent, pictures
from pygan._session import find_device
from pygan.commands.parser import CHECKPOINT, DEVICE, Parser, choice, count, png, seed, whole_numbers
from pygan.run import Run, load

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "draw paths and sums in the space of noise"
_DESCRIPTION = """\
Draw what a generator makes of paths and sums in the space of noise.

  interpolate  a row for each pair of noise vectors: from one to the other
  walk         a round trip through noise vectors, row after row
  arithmetic   a row for each concept: the samples that --plus and --minus name,
               and that of their mean; then the sum, and neighbours of it

examples:
  pygan latent interpolate runs/mnist --spherical
  pygan latent walk runs/mnist --rows 5 --steps 12
  pygan sample runs/mnist -n 64 --seed 0       shows samples 0..63 of seed 0
  pygan latent arithmetic runs/mnist --plus 3,17 --minus 8,9 --plus 1,2
"""
_NEIGHBOURS = 9  # the sum itself is the first
_MOST = 10_000  # samples of a seed that --plus and --minus can name


def run(words: Sequence[str]) -> None:
    """Run the command."""
    of = parser(next((word for word in words if word in _KINDS), None))
    options = of.parse(words)
    if options.kind == "arithmetic" and not options.plus:
        of.error("arithmetic needs --plus, the samples of a concept, such as --plus 3,17,25")
    device = find_device(options.device)
    trained = load(options.run, checkpoint=options.checkpoint)
    trained.generator.to(device)
    images, columns = _KINDS[options.kind](trained, options)
    pictures.save_png(options.output, images, columns)
    print(options.output)


def parser(kind: str | None = None) -> Parser:
    """Return the parser of one kind, with the options that it has, or of all."""
    of = Parser("latent KIND RUN [-o FILE] [options]", _DESCRIPTION)
    of.option("kind", **{**choice(_KINDS), "metavar": "KIND"}, help=", ".join(_KINDS))
    of.option("run", metavar="RUN", help="run folder")
    of.option("-o", "--output", type=png, default="latent.png", metavar="FILE", help="a .png (default: latent.png)")
    if kind != "arithmetic":
        paths = of.add_argument_group("paths: interpolate and walk")
        of.option(
            "--rows", group=paths, type=count, default=8, metavar="N", help="paths, or vectors on the walk (default: 8)"
        )
        of.option(
            "--steps",
            group=paths,
            type=_steps,
            default=10,
            metavar="N",
            help="images in a row, at least 2 (default: 10)",
        )
        of.option("--spherical", group=paths, action="store_true", help="along arcs, not straight lines")
    if kind in (None, "arithmetic"):
        sums = of.add_argument_group("arithmetic")
        concept: dict[str, Any] = {"group": sums, "action": "append", "default": [], "metavar": "I,I"}
        concept["type"] = whole_numbers("3,17,25")
        of.option("--plus", **concept, help="samples of the seed, counted from 0, that are one concept; repeatable")
        of.option("--minus", **concept, help="the same, to be subtracted")
    of.option("--seed", type=seed, default=0, metavar="N", help="of the noise (default: 0)")
    of.option("--device", **DEVICE)
    of.option("--checkpoint", **CHECKPOINT)
    return of


def _interpolate(run: Run, options: argparse.Namespace) -> tuple[Tensor, int]:
    noise = run.noise(2 * options.rows, options.seed)
    paths = latent.interpolate(noise[::2], noise[1::2], options.steps, options.spherical)
    return _images(run, paths.flatten(0, 1), options.steps), options.steps


def _walk(run: Run, options: argparse.Namespace) -> tuple[Tensor, int]:
    if options.rows < 2:
        raise ValueError(f"walk: rows must be at least 2, got {options.rows}")
    trip = latent.walk(run.noise(options.rows, options.seed), options.steps, options.spherical)
    return _images(run, trip, len(trip)), options.steps


def _arithmetic(run: Run, options: argparse.Namespace) -> tuple[Tensor, int]:
    if run.game.classes:
        raise ValueError("arithmetic: run must not be conditional: its samples depend on labels too")
    named = [*options.plus, *options.minus]
    for index in (index for indices in named for index in indices):
        if not 0 <= index < _MOST:
            raise ValueError(f"arithmetic: samples are counted from 0 to {_MOST - 1}, got {index}")
    noise = run.noise(1 + max((max(indices) for indices in named), default=0), options.seed)
    plus, minus = ([noise[list(indices)] for indices in of] for of in (options.plus, options.minus))
    total = latent.arithmetic(plus, minus)
    columns = 1 + max(len(indices) for indices in named)
    rows = [torch.cat([run.generate(of), run.generate(of.mean(0, keepdim=True))]) for of in (*plus, *minus)]
    rows.append(run.generate(latent.neighbours(total, _NEIGHBOURS, seed=options.seed)))
    return torch.cat([_filled(row, columns) for row in rows]), columns


def _images(run: Run, noise: Tensor, of_a_class: int) -> Tensor:
    """Generate images; of a conditional run, so many of each class in turn."""
    labels = torch.arange(len(noise)) // of_a_class % run.game.classes if run.game.classes else None
    return run.generate(noise, labels)


def _filled(images: Tensor, columns: int) -> Tensor:
    """Return the images with gray ones at the end, so that they fill their last row."""
    gray = images.new_full((-len(images) % columns, *images.shape[1:]), 0.5)
    return torch.cat([images, gray])


def _steps(text: str) -> int:
    if text.isdecimal() and int(text) >= 2:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number, at least 2, got {text!r}")


_KINDS: dict[str, Callable[[Run, argparse.Namespace], tuple[Tensor, int]]] = {
    "interpolate": _interpolate,
    "walk": _walk,
    "arithmetic": _arithmetic,
}
