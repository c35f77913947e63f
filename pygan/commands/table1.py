"""`pygan table1`: Table 1 of the paper, published rows beside those of runs made here."""

import argparse
import math
from collections.abc import Sequence

from pygan.commands.parser import DEVICE, ROOT, Parser, path, seed
from pygan.recipes import known_settings, named_recipe
from pygan.table1 import table1

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "repeat Table 1 of the paper"
_DESCRIPTION = """\
Train what Table 1 of the paper needs, judge it by the authors' protocol, and
print the table: the published rows, ours, and what training images score in
place of samples. Given again, it goes on where it was interrupted.

It takes minutes to hours on a GPU. TFD is given to researchers only, on
application; without its file the table says so.

examples:
  pygan table1                         everything, two seeds
  pygan table1 --budget 30             a short version, marked as one
  pygan table1 --data mnist --recipes code2014,paper2014 --precision bf16
  pygan table1 --run runs/seed0 --run runs/seed1     runs that are finished
  torchrun --nproc-per-node 4 -m pygan table1 --seeds 0,1,2,3     in parallel
"""


def run(words: Sequence[str]) -> None:
    """Run the command."""
    of = parser()
    options = of.parse(words)
    if options.run:
        why = "is for trainings, and with --run nothing is trained"
        of.refuse_useless("--data", "--recipes", "--seeds", "--precision", why=why)
    table = table1(
        out=options.out,
        data=options.data,
        recipes=options.recipes,
        seeds=options.seeds,
        budget=options.budget,
        runs=options.run,
        device=options.device,
        root=options.root,
        progress=not options.quiet,
        **({} if options.precision is None else {"precision": options.precision}),
    )
    if not table.rows:
        raise RuntimeError(f"nothing was measured: {'; '.join(table.missing.values())}")
    print(table.markdown(), end="")


def parser() -> Parser:
    """Return the parser."""
    of = Parser("table1 [options]", _DESCRIPTION)
    of.option("--out", type=path, default="runs/table1", metavar="FOLDER", help="its runs (default: runs/table1)")
    of.option("--data", type=_names, default=("mnist", "tfd"), metavar="NAMES", help="default: mnist,tfd")
    of.option("--recipes", type=_recipes, default=("code2014",), metavar="NAMES", help="of MNIST (default: code2014)")
    of.option("--seeds", type=_seeds, default=(0, 1), metavar="N,N", help="a run each (default: 0,1)")
    of.option("--budget", type=_minutes, metavar="MINUTES", help="a short version, marked as one")
    of.option("--run", action="append", default=[], type=path, metavar="RUN", help="take a finished run; train nothing")
    of.option("--precision", choices=known_settings()["precision"].choices, help="of all runs (default: float32)")
    of.option("--device", **DEVICE)
    of.option("--root", **ROOT)
    of.option("--quiet", action="store_true", help="do not say how far it is")
    return of


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _recipes(text: str) -> tuple[str, ...]:
    try:
        return tuple(named_recipe(name).name for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(map(seed, text.split(",")))


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes, more than 0, got {text!r}")
    return minutes
