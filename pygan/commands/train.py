"""`pygan train`: every setting of a recipe is an option."""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import pygan.data
from pygan._terminal import counted, is_terminal
from pygan.commands.parser import DEVICE, ROOT, Parser, choice, count, path, seed, sizes
from pygan.data.files import no_downloads
from pygan.distributed import is_main
from pygan.folder import RunFolder
from pygan.plan import Plan, plan
from pygan.progress import duration
from pygan.recipes import RECIPES, KnownSetting, Recipe, default_recipe, find_recipe, known_settings, named_recipe
from pygan.run import FORMAT, OWN_PLAYER, left_open, recipe_of, summary
from pygan.settings import value_of_type
from pygan.train import train

__all__ = ["DATA_HELP", "SUMMARY", "parser", "run"]

SUMMARY = "train a generator and evaluate it"
DATA_HELP = f"{', '.join(pygan.data.NAMED)}, a folder of images, or a .npy or .npz file"
_DESCRIPTION = """\
Train a generator and a discriminator against each other, and evaluate the
generator by the Parzen-window log-likelihood of the paper, on the test split.

examples:
  pygan train                          scikit-learn's digits, no download
  pygan train mnist --epochs 50        the MNIST experiment of the paper
  pygan train mnist --recipe paper2014 --k 2
  pygan train mnist --recipe paper2014 --help     the values of that recipe
  pygan train faces/ --generator-hidden 800,800 --out runs/faces-800
  pygan train mnist --dry-run          sizes, memory and time; writes nothing
  pygan train mnist --resume           continue the last run on mnist
"""
_OF_DATA = ("data", "root", "valid", "test", "image_size", "seed")
_OF_CONFIG = (*_OF_DATA, "conditional", "threads")
_LATER: dict[str, Any] = {"default": argparse.SUPPRESS}  # where it is not given, the options hold no such name


def run(words: Sequence[str]) -> None:
    """Run the command."""
    if {"-h", "--help"} & set(words):
        asked = parser().parse([word for word in words if word not in ("-h", "--help")])
        parser(_recipe_to_run(*_arguments(asked))).print_help()
        return
    options = parser().parse(words)
    chosen, settings = _arguments(options)
    if options.dry_run:
        _print_plan(plan(**chosen, **settings))
        return
    shown = {"progress": not options.quiet, "report": options.report}
    trained = train(**chosen, out=options.out, resume=options.resume, **shown, **settings)
    if not is_main():
        return
    folder = RunFolder(trained.path)
    if options.quiet or not is_terminal(sys.stderr):  # otherwise train() has said it
        print(summary(folder))
    if (picture := folder.last_picture()) is not None:
        print(picture)
    if folder.report.exists():
        print(folder.report)


def parser(recipe: Recipe | None = None) -> Parser:
    """Return the parser. With a recipe, its help shows the recipe's values."""
    of = Parser("train [DATA] [options] [--SETTING VALUE]...", _DESCRIPTION)
    of.option("data", nargs="?", metavar="DATA", help=f"{DATA_HELP} (default: digits)")
    of.option("--recipe", metavar="NAME", help=f"{', '.join(RECIPES)} (default: the data's own); see pygan recipes")
    of.option("--config", type=path, metavar="FILE", help="start from the recipe, data and seed in a config.toml")
    of.option("--out", metavar="RUN", help="run folder (default: runs/DATA, runs/DATA-2, ...)")
    of.option(
        "--resume",
        action="store_true",
        help="continue the run in --out, or the last one on DATA, with all that is not given as it was; "
        "where none has begun, start one and say so",
    )
    of.option(
        "--conditional",
        **_LATER,
        action=argparse.BooleanOptionalAction,
        help="train p(x given class); DATA must have labels",
    )
    of.option("--image-size", **_LATER, type=count, metavar="N", help="crop and resize pictures to N x N pixels")
    of.option("--device", **DEVICE)
    of.option(
        "--threads", **_LATER, type=count, metavar="N", help="threads of the CPU (default: torch's; 1 for small nets)"
    )
    of.option(
        "--seed",
        **_LATER,
        type=seed,
        metavar="N",
        help="seed of all random numbers (default: 0, or that of the run with --resume)",
    )
    of.option("--root", **_LATER, **ROOT)
    of.option("--valid", **_LATER, metavar="PATH", help="images to use as the validation split")
    of.option("--test", **_LATER, metavar="PATH", help="images to use as the test split")
    of.option("--dry-run", action="store_true", help="show sizes, memory and expected time; write nothing")
    of.option("--quiet", action="store_true", help="show no progress")
    of.option(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw curves, an animation and report.html into the run folder",
    )
    values = {} if recipe is None else recipe.flat()
    name = "the recipe" if recipe is None else recipe.name
    group = of.add_argument_group(
        "settings",
        f"Any of them changes the recipe. In brackets: the value in\n{name}, or - where it has no such setting.",
    )
    for setting, known in known_settings().items():
        _add_setting(of, group, setting, known, values)
    return of


def _recipe_to_run(chosen: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """The recipe that would run, fitted to the data; of data that cannot be read here, as it stands."""
    recipe, conditional = chosen["recipe"], chosen.get("conditional", False)
    try:
        with no_downloads():
            splits = pygan.data.load(**{name: chosen[name] for name in _OF_DATA if name in chosen})
    except (OSError, TypeError, ValueError):
        recipe = recipe or default_recipe(Path(chosen["data"]).stem, conditional=conditional)
        return (recipe if isinstance(recipe, Recipe) else named_recipe(recipe)).with_settings(**settings)
    return find_recipe(recipe, settings, splits, conditional=conditional)


def _add_setting(of: Parser, group: Any, name: str, known: KnownSetting, values: Mapping[str, Any]) -> None:
    """Add the option for one setting of a recipe."""
    keywords: dict[str, Any] = {"type": known.hint, "metavar": {int: "N", float: "X"}.get(known.hint)}
    if known.hint is bool:
        keywords = {"action": argparse.BooleanOptionalAction}
    elif known.choices is not None:
        keywords = choice(known.choices)
    elif get_origin(known.hint) is tuple:
        keywords = {"type": sizes, "metavar": "N,N"}
    text = f"{known.help} [{_shown(values.get(name))}]".replace("%", "%%")
    of.option(f"--{name.replace('_', '-')}", group=group, **_LATER, help=text, **keywords)


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _arguments(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of `train` and of `plan` alike, and the settings that were given one by one."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    if options.data is not None and options.data.isdecimal() and not Path(options.data).exists():
        raise ValueError(f"DATA: there is no {options.data}; several sizes have commas between them, such as 1200,1200")
    settings = {name: given[name] for name in known_settings() if name in given}
    begun = left_open(options.out, "") if options.resume and options.out is not None else {}
    chosen: dict[str, Any] = {"data": begun.get("data", "digits"), "recipe": options.recipe, "device": options.device}
    if options.config is not None:
        if options.recipe is not None:
            raise ValueError("--config contains a recipe: give either --config or --recipe")
        chosen |= _read_config(options.config)
        if "data" in given:  # the rest of its sources belongs to its own data
            chosen = {name: value for name, value in chosen.items() if name not in ("valid", "test", "image_size")}
    chosen |= {name: given[name] for name in _OF_CONFIG if name in given}
    if chosen["data"] is None:
        raise ValueError(
            f"--config: the data of the run in {options.config} were in memory and are not stored with it: give DATA"
        )
    return chosen, settings


def _read_config(file: Path) -> dict[str, Any]:
    """Return the arguments of `train` that a config.toml describes; a table [recipe] alone is enough.

    Raises ValueError, which names the file, for anything else.
    """
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config.get("recipe"), dict):
            raise ValueError("it must have a table [recipe], as `pygan recipes NAME` prints it")
        players = {role: name for role, name in config.get("players", {}).items() if name != OWN_PLAYER}
        if players:
            raise ValueError(f"its run used a {next(iter(players))} that the user supplied; train it from Python")
        data = config.get("data", {})
        sources = data.get("sources", {"data": None} if data else {})  # None: they were in memory
        return {
            **sources,
            "recipe": recipe_of(config["recipe"], config.get("format", FORMAT)),
            **({"seed": value_of_type("seed", config["seed"], int)} if "seed" in config else {}),
            **({"conditional": data.get("classes", 0) > 0} if data else {}),
        }
    except OSError as error:
        raise ValueError(f"--config: {file} cannot be read: {error.strerror or error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"--config: {file} cannot be used: {error}") from None


def _print_plan(planned: Plan) -> None:
    recipe, (train_images, valid, test) = planned.recipe, planned.sizes
    rates = f"learning rates {recipe.generator_lr:g} and {recipe.discriminator_lr:g}"
    shape = " x ".join(map(str, planned.shape))
    for name, text in {
        "data": planned.protocol,
        "images": f"{train_images:,} for training, {valid:,} for validation, {test:,} for test, each {shape}",
        "recipe": f"{recipe.name}: {counted(recipe.epochs, 'epoch')}, batches of {recipe.batch_size}, {rates}",
        "updates": f"{planned.updates_per_epoch:,} an epoch, {recipe.epochs * planned.updates_per_epoch:,} in all",
        "generator": f"{recipe.model.name}, {planned.parameters[0]:,} parameters",
        "discriminator": f"{recipe.model.name}, {planned.parameters[1]:,} parameters",
        "memory": f"{planned.memory / 2**30:.2f} GiB at the peak of this trial",
        "time": f"{planned.epoch_seconds:.2g} s an epoch, {planned.evaluation_seconds:.2g} s an evaluation, "
        f"about {duration(planned.seconds())} in all",
        "measured on": planned.hardware,
        "written": "nothing (--dry-run)",
    }.items():
        print(f"{name:<16}{text}")
