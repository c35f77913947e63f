"""`pygan figure`: the figures of the paper from live runs, as PNG and SVG."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from pygan._files import replace_file
from pygan.commands.parser import DEVICE, Parser, path, seed
from pygan.figures import paper

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "draw a figure of the paper from live runs"
_DESCRIPTION = """\
Draw a figure of the paper from live runs, as PNG and as SVG.

  1   a game on the line: both densities, D and D*, arrows from z to x
  2   samples, with the nearest training image beside them
  3   interpolation between noise vectors

examples:
  pygan figure 1                       trains its own game, some ten seconds
  pygan figure 2 --run runs/mnist --run runs/cifar10
  pygan figure 3                       without a run: on digits, in a minute
"""
_DPI = 150


def run(words: Sequence[str]) -> None:
    """Run the command."""
    options = parser().parse(words)
    stem = Path(f"figure{options.number}") if options.output is None else options.output
    drawn = paper(options.number, options.run, seed=options.seed, device=options.device)
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        content = io.BytesIO()
        drawn.savefig(content, format=suffix[1:], dpi=_DPI)
        file = stem.with_name(stem.name + suffix)
        replace_file(file, content.getvalue())
        print(file)


def parser() -> Parser:
    """Return the parser."""
    of = Parser("figure NUMBER [--run RUN]... [options]", _DESCRIPTION)
    of.option("number", type=_number, metavar="NUMBER", help="1, 2 or 3")
    of.option("--run", action="append", default=[], type=path, metavar="RUN", help="draw this run; for 2 and 3")
    of.option("-o", "--output", type=_stem, metavar="FILE", help="without suffix (default: figure1, figure2, figure3)")
    of.option("--seed", type=seed, default=0, metavar="N", help="of noise and of what is trained (default: 0)")
    of.option("--device", **DEVICE)
    return of


def _stem(text: str) -> Path:
    of = path(text)
    if of.suffix in (".png", ".svg", ""):
        return of.with_suffix("")
    raise argparse.ArgumentTypeError(
        f"expected a name without suffix, since a .png and a .svg are written, got {text!r}"
    )


def _number(text: str) -> int:
    if text not in ("1", "2", "3"):
        raise argparse.ArgumentTypeError(f"expected 1, 2 or 3, got {text!r}")
    return int(text)
