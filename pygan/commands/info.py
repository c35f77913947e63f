"""`pygan info` and `pygan recipes`: what is installed, and which recipes there are."""

import os
import platform
import textwrap
from collections.abc import Sequence

import torch

import pygan
import pygan.data
from pygan._session import find_device, hardware
from pygan.commands.parser import Parser
from pygan.data.files import cache_folder
from pygan.fast.products import Layer, faster_library
from pygan.recipes import RECIPES, named_recipe
from pygan.run import FORMAT

__all__ = ["INFO_SUMMARY", "RECIPES_SUMMARY", "info", "recipes", "recipes_parser"]

_COLUMNS, _INDENT = 80, 24
INFO_SUMMARY = "show versions, the build, data folders"
RECIPES_SUMMARY = "list the recipes, or print one"
_RECIPES_DESCRIPTION = """\
List the recipes, or print every setting of one, in the form of config.toml.

examples:
  pygan recipes
  pygan recipes digits > mine.toml && pygan train --config mine.toml
"""


def info(words: Sequence[str]) -> None:
    """Run `pygan info`."""
    Parser("info", "Show versions, the build, data folders, recipes.").parse(words)
    build = pygan.build_info()
    for name, value in {
        "pygan": pygan.__version__,
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "device": hardware(find_device("auto")),
        "CPU products": f"faster by {_faster_products()} (float32, the paper's MNIST nets)",
        **{f"core {key}": value for key, value in build.items() if key != "version"},
        "data sets": ", ".join(pygan.data.NAMED),
        "data root": os.environ.get("PYGAN_DATA") or "none (PYGAN_DATA is not set)",
        "data cache": cache_folder(),
        "recipes": ", ".join(RECIPES),
    }.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else value
        lines = textwrap.wrap(str(text), _COLUMNS - _INDENT, break_long_words=False, break_on_hyphens=False)
        print(f"{name:<{_INDENT}}" + f"\n{'':<{_INDENT}}".join(lines))


def _faster_products() -> str:
    layers = Layer(100, 1200, 1200, backward=100), Layer(200, 784, 1200, backward=0)
    return faster_library("auto", layers, torch.float32)


def recipes(words: Sequence[str]) -> None:
    """Run `pygan recipes`."""
    import tomli_w

    name = recipes_parser().parse(words).name
    if name is not None:
        print(tomli_w.dumps({"format": FORMAT, "recipe": named_recipe(name).flat()}), end="")
        return
    rows = [["recipe", "epochs", "objective", "model"]]  # more columns would not fit into 80 characters
    rows += [[name, str(r.epochs), r.objective.name, r.model.name] for name, r in RECIPES.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def recipes_parser() -> Parser:
    """Return the parser of `pygan recipes`."""
    of = Parser("recipes [NAME]", _RECIPES_DESCRIPTION)
    of.option("name", nargs="?", metavar="NAME", help=f"{', '.join(RECIPES)} (default: list them)")
    return of
