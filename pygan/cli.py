"""The command line, `pygan train | sample | evaluate | info`; every setting of a recipe is an option of `train`."""

import argparse
import os
import platform
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_origin

import numpy as np
import torch

import pygan
import pygan.data
from pygan import pictures
from pygan._nearest import nearest
from pygan._session import find_device, hardware
from pygan._terminal import escape_unprintable, is_terminal, say
from pygan.data import as_float
from pygan.data.arrays import from_array, read_npy
from pygan.evaluate import ParzenWindow
from pygan.fit import Interrupted
from pygan.folder import RunFolder
from pygan.recipes import RECIPES, KnownSetting, known_settings
from pygan.run import SIGMA_POINTS, load, summary
from pygan.train import train

__all__ = ["main"]

_TRAIN = """\
Train a generator and a discriminator against each other, and say how good the
generator is: the Parzen-window log-likelihood of the paper, on the test split.

examples:
  pygan train                          scikit-learn's digits, no download
  pygan train mnist --epochs 50        the MNIST experiment of the paper
  pygan train mnist --recipe paper2014 --k 2
  pygan train faces/ --generator-hidden 800,800 --out runs/faces-800
  pygan train mnist --resume           go on with the last run on mnist
"""
_SAMPLE = """\
Draw samples from a trained generator.

examples:
  pygan sample runs/mnist -n 100 -o grid.png
  pygan sample runs/mnist -n 10000 -o samples.npy --seed 1
"""
_EVALUATE = """\
Estimate the log-likelihood of test images as the paper did: under a Gaussian
Parzen window on samples, its bandwidth chosen on validation images.

examples:
  pygan evaluate runs/mnist            a run, on the data that it was trained on
  pygan evaluate samples.npy mnist     samples from somewhere else

Compare the figure only with others made in exactly this way: in high dimension
it says little about the true likelihood or about how the samples look (Theis,
van den Oord and Bethge 2015, arXiv 1511.01844).
"""
_OUTPUT_HELP = ".png for a picture, .npy for float32 [N, C, H, W] in [0, 1] (default: samples.png)"
_DATA_HELP = f"{', '.join(pygan.data.NAMED)}, a folder of images, or a .npy or .npz file"
_ROOT_HELP = "folder of data sets (default: $PYGAN_DATA, then the cache)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0 is success, 1 an error (one line on standard error), 2 a wrong command line, 130 an interrupt by Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    escape_unprintable(sys.stdout)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            options = _parser().parse(words or ["--help"])
            options.command(options)
            if sys.stdout is not None:  # as in a daemon
                sys.stdout.flush()
        except SystemExit as stop:  # argparse has printed its help or what is wrong
            return int(stop.code or 0) if words else 2
        except KeyboardInterrupt as interrupt:
            say(f"pygan: {_how_to_go_on(words, interrupt)}")
            return 130
        except BrokenPipeError:  # whoever read our output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush would fail
            return 1
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            say(f"pygan: error: {error}")
            return 1
    return 0


def _how_to_go_on(words: Sequence[str], interrupt: KeyboardInterrupt) -> str:
    """What was saved, and the command that goes on from there."""
    if not isinstance(interrupt, Interrupted):
        return "interrupted"
    out = [] if any(word.split("=")[0] == "--out" for word in words) else ["--out", str(interrupt.path)]
    resume = [] if "--resume" in words else ["--resume"]
    return f"{interrupt.done}; go on with: {shlex.join(['pygan', *words, *resume, *out])}"


def _train(options: argparse.Namespace) -> None:
    run = train(
        options.data,
        recipe=options.recipe,
        out=options.out,
        device=options.device,
        seed=options.seed,
        resume=options.resume,
        progress=not options.quiet,
        valid=options.valid,
        test=options.test,
        root=options.root,
        **{name: value for name, value in vars(options).items() if name in known_settings()},
    )
    folder = RunFolder(run.path)
    if options.quiet or not is_terminal(sys.stderr):  # otherwise train() has said it
        print(summary(folder))
    if (picture := folder.last_picture()) is not None:
        print(picture)


def _sample(options: argparse.Namespace) -> None:
    images = load(options.run, checkpoint=options.checkpoint).sample(options.n, seed=options.seed)
    if options.output.suffix == ".png":
        pictures.save_png(options.output, images, options.columns)
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        np.save(options.output, images.numpy())
    print(options.output)


def _evaluate(options: argparse.Namespace) -> None:
    options.samples = options.samples.expanduser()
    if not options.samples.exists():
        raise FileNotFoundError(f"evaluate: there is no run or file {options.samples}")
    device = find_device(options.device)
    if options.samples.is_dir():
        run = load(options.samples, checkpoint=options.checkpoint)
        if options.data is not None:
            run.splits = pygan.data.load(options.data, root=options.root, seed=run.seed)
        elif options.root is not None and "sources" in run.data:
            run.data = {**run.data, "sources": {**run.data["sources"], "root": options.root}}
        run.generator.to(device)
        window = run.window()
        assert run.splits is not None  # or window() would have raised
        splits = run.splits
    elif options.data is not None:
        samples = from_array(read_npy(options.samples), str(options.samples))
        splits = pygan.data.load(options.data, root=options.root, seed=options.seed)
        window = ParzenWindow(as_float(samples).to(device)).fit(as_float(splits.valid.images[:SIGMA_POINTS]))
    else:
        options.parser.error("samples in a file need data to be judged by, as in: pygan evaluate samples.npy mnist")
    estimate = window.score(as_float(splits.test.images))
    print(
        f"log-likelihood  {estimate.mean:.2f} +- {estimate.standard_error:.2f} nats on {estimate.n_test:,} test images"
    )
    print(f"window          {estimate.n_samples:,} samples")
    print(f"sigma           {estimate.sigma:.4f}, chosen on {min(SIGMA_POINTS, len(splits.valid)):,} validation images")
    print(f"data            {splits.protocol}")


def _info(options: argparse.Namespace) -> None:
    import pooch

    build = pygan.build_info()
    for name, value in {
        "pygan": pygan.__version__,
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "device": hardware(find_device("auto")),
        **{f"core {key}": value for key, value in build.items() if key != "version"},
        "data sets": ", ".join(pygan.data.NAMED),
        "data root": os.environ.get("PYGAN_DATA") or "none (PYGAN_DATA is not set)",
        "data cache": pooch.os_cache("pygan"),
        "recipes": ", ".join(RECIPES),
    }.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else value
        print(f"{name:<24}{text}")


class _Parser(argparse.ArgumentParser):
    """Answers a wrong word by one line and the nearest right word, not by pages of usage."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **keywords)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses a whole command line; options may be written with - or with _."""
        options, unknown = self.parse_known_args([_with_dashes(word) for word in words])
        if unknown:
            parser: _Parser = options.parser
            known = [word for action in parser._actions for word in action.option_strings]
            parser.error(f"unknown argument {unknown[0]}{nearest(unknown[0].split('=')[0], known)}")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(action.choices)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}{nearest(value, known)}")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """80 columns at most, whatever the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(80, shutil.get_terminal_size().columns) - 2)


def _parser() -> _Parser:
    parser = _Parser(prog="pygan", description="Generative adversarial nets as published in 2014, trained and judged.")
    parser.add_argument("--version", action="version", version=f"pygan {pygan.__version__}")
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", title="commands (pygan COMMAND --help says more)"
    )

    def command(usage: str, run: Callable[[argparse.Namespace], None], help: str, description: str) -> _Parser:
        of = commands.add_parser(usage.split()[0], help=help, usage=f"pygan {usage}", description=description)
        of.set_defaults(command=run, parser=of)
        return of

    trainer = command(
        "train [DATA] [options] [--SETTING VALUE]...", _train, "train, and say how good the result is", _TRAIN
    )
    add = trainer.add_argument
    add("data", nargs="?", default="digits", metavar="DATA", help=f"{_DATA_HELP} (default: digits)")
    add("--recipe", metavar="NAME", help=f"{', '.join(RECIPES)} (default: the data's own)")
    add("--out", metavar="RUN", help="run folder (default: runs/DATA, runs/DATA-2, ...)")
    add("--resume", action="store_true", help="go on with the run in --out, or with the last one on DATA")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    add("--root", metavar="FOLDER", help=_ROOT_HELP)
    add("--valid", metavar="PATH", help="images to use as the validation split")
    add("--test", metavar="PATH", help="images to use as the test split")
    add("--quiet", action="store_true", help="no progress bar (there is none in a pipe either)")
    group = trainer.add_argument_group(
        "settings", "Any of them changes the recipe. In brackets: the value in code2014."
    )
    for name, known in known_settings().items():
        _add_setting(group, name, known)

    sampler = command(
        "sample RUN [-n N] [-o FILE] [options]", _sample, "draw samples, as a picture or an array", _SAMPLE
    )
    add = sampler.add_argument
    add("run", metavar="RUN", help="run folder")
    add("-n", type=_count, default=64, metavar="N", help="number of samples (default: 64)")
    add("-o", "--output", type=_output, default="samples.png", metavar="FILE", help=_OUTPUT_HELP)
    add("--columns", type=_count, metavar="N", help="images in a row (default: about square)")
    add("--seed", type=int, metavar="N", help="the same seed, the same samples (default: new ones)")
    add("--checkpoint", choices=("best", "last"), default="best", help="weights to use (default: best)")

    judge = command("evaluate RUN|FILE.npy [DATA] [options]", _evaluate, "estimate the log-likelihood", _EVALUATE)
    add = judge.add_argument
    add("samples", type=Path, metavar="RUN|FILE.npy", help="run folder, or samples [N, ...], floats in [0, 1] or uint8")
    add("data", nargs="?", metavar="DATA", help=f"{_DATA_HELP} (default: those of the run)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--seed", type=int, default=0, metavar="N", help="of the split, for samples in a file (default: 0)")
    add("--root", metavar="FOLDER", help=_ROOT_HELP)
    add("--checkpoint", choices=("best", "last"), default="best", help="weights of a run to use (default: best)")

    command("info", _info, "show versions, the build, data folders", "Show versions, the build, data folders, recipes.")
    return parser


def _add_setting(group: argparse._ArgumentGroup, name: str, known: KnownSetting) -> None:
    """Adds the option for one setting of a recipe; where it is not given, the options hold no such name."""
    default: Any = RECIPES["code2014"].flat().get(name)
    keywords: dict[str, Any] = {"type": known.hint, "metavar": {int: "N", float: "X"}.get(known.hint)}
    if known.hint is bool:
        keywords, default = {"action": argparse.BooleanOptionalAction}, "on" if default else "off"
    elif known.choices is not None:
        keywords = {"choices": known.choices}
    elif get_origin(known.hint) is tuple:
        keywords = {"type": _sizes, "metavar": "N,N"}
        default = None if default is None else ",".join(map(str, default))
    text = known.help if default is None else f"{known.help} [{default}]"
    option = f"--{name.replace('_', '-')}"
    group.add_argument(option, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **keywords)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 1200,1200, got {text!r}") from None


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number, at least 1, got {text!r}")


def _output(text: str) -> Path:
    if (path := Path(text).expanduser()).suffix in (".png", ".npy"):
        return path
    raise argparse.ArgumentTypeError(f"expected a name that ends in .png or .npy, got {text!r}")


def _with_dashes(word: str) -> str:
    """--batch_size=5 as --batch-size=5."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from tqdm import tqdm

    text = f"pygan: warning: {message}"
    if is_terminal(sys.stderr):
        tqdm.write(text, file=sys.stderr)  # above a progress bar, not through it
    else:
        say(text)
