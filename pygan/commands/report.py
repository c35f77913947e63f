"""`pygan report`: one page about runs, side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pygan import report
from pygan.commands.parser import Parser, path

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "write a page about runs, side by side"
_DESCRIPTION = """\
Write one HTML file about runs: result, curves, samples, the nearest training
images, interpolation, settings, warnings. It needs no server and no network.
A run has such a page in its folder; this command compares several, also while
they train.

examples:
  pygan report runs/mnist runs/mnist-2
  pygan report runs/digits -o digits.html
"""


def run(words: Sequence[str]) -> None:
    """Run the command."""
    options = parser().parse(words)
    print(report.write(options.runs, options.output))


def parser() -> Parser:
    """Return the parser."""
    of = Parser("report RUN [RUN ...] [-o FILE]", _DESCRIPTION)
    of.option("runs", nargs="+", type=path, metavar="RUN", help="run folder")
    of.option("-o", "--output", type=_page, default="report.html", metavar="FILE", help="default: report.html")
    return of


def _page(text: str) -> Path:
    of = path(text)
    if of.suffix.lower() in (".html", ".htm", "") and of.name and not of.is_dir():
        return of
    raise argparse.ArgumentTypeError(f"expected the name of a file that ends in .html, got {text!r}")
