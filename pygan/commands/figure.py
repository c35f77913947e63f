"""`pygan figure`: the figures of the paper from live runs, and the curves of runs, as PNG and SVG."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pygan._files import replace_file
from pygan.commands.parser import DEVICE, Parser, path, seed
from pygan.figures import draw_curves, paper

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "draw a figure of the paper, or the curves of runs"
_DESCRIPTION = """\
Draw a figure of the paper from live runs, or the curves of runs, as PNG and as
SVG.

  1      a game on the line: both densities, D and D*, arrows from z to x
  2      samples, with the nearest training image beside them
  3      interpolation between noise vectors
  curve  log-likelihood, losses, D(x) and D(G(z)), ... over the epochs, of one
         run or of several, which may still be training

examples:
  pygan figure 1                       trains its own game, some ten seconds
  pygan figure 2 runs/mnist runs/cifar10
  pygan figure 3                       without a run: on digits, in a minute
  pygan figure curve runs/mnist runs/mnist-2
"""
_DPI = 150
_NOT_WRITTEN = (".pdf", ".jpg", ".jpeg", ".gif", ".webp", ".eps", ".ps", ".tif", ".tiff")


def run(words: Sequence[str]) -> None:
    """Run the command."""
    of = parser()
    options = of.parse(words)
    runs = [*options.runs, *options.run]
    stem = options.output or Path("curves" if options.kind == "curve" else f"figure{options.kind}")
    if options.kind == "curve":
        if not runs:
            of.error("curve needs a run, as in: pygan figure curve runs/digits")
        of.refuse_useless("--seed", "--device", why="is not for curves, which come from the runs' records")
    elif runs:
        of.refuse_useless("--device", why="is for a training, and runs that are given are not trained")
    stem.parent.mkdir(parents=True, exist_ok=True)
    if options.kind == "curve":
        drawn = draw_curves(runs)
    else:
        drawn = paper(int(options.kind), runs, seed=options.seed, device=options.device)
    from pygan.figures.canvas import picture  # matplotlib, which other commands do not load

    for suffix in (".png", ".svg"):
        file = stem.with_name(stem.name + suffix)
        replace_file(file, picture(drawn, suffix[1:], _DPI))
        print(file)


def parser() -> Parser:
    """Return the parser."""
    of = Parser("figure KIND [RUN ...] [options]", _DESCRIPTION)
    of.option("kind", type=_kind, metavar="KIND", help="1, 2, 3 or curve")
    of.option("runs", nargs="*", type=path, metavar="RUN", help="run folders; for 2, 3 and curve")
    of.option("--run", action="append", default=[], type=path, metavar="RUN", help="one more of them")
    of.option("-o", "--output", type=_stem, metavar="FILE", help="without suffix (default: figure1, ..., curves)")
    of.option("--seed", type=seed, default=0, metavar="N", help="of noise and of what is trained (default: 0)")
    of.option("--device", **DEVICE)
    return of


def _kind(text: str) -> str:
    if text not in ("1", "2", "3", "curve"):
        raise argparse.ArgumentTypeError(f"expected 1, 2, 3 or curve, got {text!r}")
    return text


def _stem(text: str) -> Path:
    of = path(text)
    if of.name in ("", ".."):
        raise argparse.ArgumentTypeError(f"expected the name of a file, without suffix, got {text!r}")
    suffix = of.suffix.lower()
    if suffix in (".png", ".svg"):
        return of.with_suffix("")
    if suffix in _NOT_WRITTEN:
        raise argparse.ArgumentTypeError(
            f"expected a name without suffix, since a .png and a .svg are written, got {text!r}"
        )
    return of  # v1.2, for example
