"""Messages of the library in words of the command line: resume=True as --resume, batch_size as --batch-size.

The library speaks to who calls it from Python. This is the one place that translates what it says.
"""

import inspect
import re
from functools import cache

from pygan.recipes import known_settings
from pygan.train import train

__all__ = ["on_the_command_line"]

_FROM_PYTHON_ONLY = {"data", "generator", "discriminator", "on_epoch", "progress", "settings"}
_OF_OTHER_COMMANDS = {"checkpoint", "labels"}
_CALL = r"(\bpygan(?:\.\w+)+\([^()]*\))"


def on_the_command_line(message: str) -> str:
    """Return a message with every argument of `pygan.train` and every setting as the option that it is.

    Arguments are known by their form: `name=value` with a value in Python's notation or none; "name must ...",
    "name: ..." and "the setting 'name'" at their place in a message; names with an underscore anywhere. A call in
    Python, `pygan.bigan.train(..., resume=True)`, stays as it is.
    """
    return "".join(part if i % 2 else _translated(part) for i, part in enumerate(re.split(_CALL, message)))


def _translated(message: str) -> str:
    """The message, or a part of it without calls."""
    names = "|".join(sorted(_options(), key=len, reverse=True))
    long = "|".join(sorted((name for name in _options() if "_" in name), key=len, reverse=True))
    free = r"(?<![\w./'\"=-])"  # no part of a path, of a quoted text or of another word
    message = re.sub(rf"{free}({names})=(True|False|None|'[^']*'|[\d.e-]*\d|(?![\w'\"(\[/~.]))", _assignment, message)
    message = re.sub(rf"^(train: )?({names})(?= must |: )", lambda found: _option(found[2]), message)
    message = re.sub(rf"the setting '({names})'", lambda found: _option(found[1]), message)
    return re.sub(rf"{free}({long})(?![\w.='\"/])", lambda found: _option(found[1]), message)


def _assignment(found: re.Match[str]) -> str:
    """--resume for resume=True, --no-resume for resume=False, --updates alternating for updates='alternating'."""
    option, value = _option(found[1]), found[2].strip("'")
    if value == "True":
        return option
    return f"--no-{option[2:]}" if value == "False" else f"{option} {value}".rstrip()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@cache
def _options() -> frozenset[str]:
    own = set(inspect.signature(train).parameters) - _FROM_PYTHON_ONLY
    return frozenset(own | set(known_settings()) | _OF_OTHER_COMMANDS)
