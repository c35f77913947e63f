"""The parser of the command line: one line about a wrong word, with what was meant, instead of pages of usage."""

import argparse
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pygan._nearest import nearest
from pygan.folder import checkpoint_stem
from pygan.settings import check_seed

__all__ = ["CHECKPOINT", "DEVICE", "ROOT", "Parser", "choice", "count", "png", "seed", "sizes", "whole_numbers"]

DEVICE: dict[str, Any] = {
    "default": "auto",
    "help": "auto (CUDA if there is one), cpu, cuda, cuda:1, ... (default: auto)",
}
ROOT: dict[str, Any] = {"metavar": "FOLDER", "help": "folder of data sets (default: $PYGAN_DATA, then the cache)"}

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Parser(argparse.ArgumentParser):
    """One command. Options may be written with - or with _, and a switch also as --resume=True.

    Args:
        usage: the command line in short; its first word is the command's name.
        description: of the command.
    """

    def __init__(self, usage: str, description: str) -> None:
        super().__init__(
            prog=" ".join(["pygan", *usage.split()[:1]]),
            usage=f"pygan {usage}",
            description=description,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        self._switches: set[str] = set()
        self._options: list[str] = []
        self._given: set[str] = set()

    def option(self, *names: str, group: Any = None, **keywords: Any) -> None:
        """Add an option, to a group if there is one; `keywords` are those of `ArgumentParser.add_argument`."""
        action = (group or self).add_argument(*names, **keywords)
        self._options += action.option_strings
        if action.nargs == 0:
            self._switches.update(action.option_strings)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the command's name. A wrong one ends the process with exit code 2."""
        plain = self._plain(words)
        self._given = {word.partition("=")[0] for word in plain}
        options, unknown = self.parse_known_args(plain)
        if unknown:
            self.refuse(unknown[0])
        return options

    def refuse(self, word: str) -> NoReturn:
        """End the process because of an argument that is not known."""
        name = word.partition("=")[0]
        near = nearest(name, self._options) if name.startswith("-") else ""
        self.error(f"unknown argument {word}{near}")

    def refuse_useless(self, *names: str, why: str) -> None:
        """End the process if one of these options was given, since it has no effect here."""
        for name in names:
            if name in self._given:
                self.error(f"{name} {why}")

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _plain(self, words: Sequence[str]) -> list[str]:
        """The words with - in names, and with switches that have a value (--resume=True, --resume True) without."""
        plain: list[str] = []
        for word in words:
            if not word.startswith("--"):
                if plain and plain[-1] in self._switches and word in ("True", "False"):
                    word = f"{plain.pop()}={word}"  # the habit of other command lines
                else:
                    plain.append(word)
                    continue
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            if equals and name in self._switches and value.lower() in _TRUE:
                plain.append(name)
            elif equals and name in self._switches and value.lower() in _FALSE:
                opposite = f"--no-{name.removeprefix('--')}"
                plain += [opposite] if opposite in self._switches else []
            elif equals and name in self._switches:
                self.error(f"argument {name}: takes no value, or True or False, got {value!r}")
            else:
                plain.append(name + equals + value)
        return plain


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """80 columns at most, whatever the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(80, shutil.get_terminal_size().columns) - 2)


def choice(names: Collection[str]) -> dict[str, Any]:
    """Keywords of an option whose value is one of some names."""

    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}{nearest(text, names)}")
        return text

    return {"type": check, "metavar": "NAME" if len(names) > 3 else f"{{{','.join(names)}}}"}


def _checkpoint(text: str) -> str:
    try:
        checkpoint_stem(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


CHECKPOINT: dict[str, Any] = {
    "type": _checkpoint,
    "default": "best",
    "metavar": "NAME",
    "help": "weights to use: best (by validation log-likelihood among the epochs whose samples vary most like the "
    "data), last, or the number of an epoch that --keep-every kept (default: best)",
}


def whole_numbers(example: str) -> Callable[[str], tuple[int, ...]]:
    """The type of an option that takes whole numbers with commas between them."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(int(size) for size in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected whole numbers such as {example}, got {text!r}") from None

    return parse


sizes = whole_numbers("1200,1200")


def count(text: str) -> int:
    """The type of an option that counts something."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number, at least 1, got {text!r}")


def seed(text: str) -> int:
    """The type of an option that is a seed."""
    try:
        return check_seed("seed", int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number in 0..2**63 - 1, got {text!r}") from None


def png(text: str) -> Path:
    """The type of an option that names a picture."""
    if Path(text).suffix.lower() == ".png":
        return path(text)
    raise argparse.ArgumentTypeError(f"expected a name that ends in .png, got {text!r}")


def path(text: str) -> Path:
    """The type of an option that names a file; a shell does not expand the ~ of --output=~/x.png."""
    return Path(text).expanduser()
