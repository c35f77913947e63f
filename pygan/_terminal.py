"""Output for people: standard streams may be closed, replaced by a logger, or unable to print a name."""

import contextlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch.utils._contextlib

__all__ = ["counted", "escape_unprintable", "is_terminal", "say", "warn"]

_INSIDE = (  # decorators of our functions leave their own frames
    f"{Path(__file__).parent}{os.sep}",
    contextlib.__file__,
    torch.utils._contextlib.__file__,
)


def counted(n: int, what: str) -> str:
    """Return a number with its noun: "1 epoch", "2 epochs"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal: False for None, for a closed stream and for objects without `isatty`."""
    try:
        return bool(stream.isatty())
    except Exception:  # whatever object stands in for the stream
        return False


def say(text: str) -> None:
    """Print a line on standard error. This never fails: where nothing can be printed, nothing is."""
    with contextlib.suppress(Exception):
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()


def escape_unprintable(stream: Any) -> None:
    r"""Let a text stream print what its encoding lacks as \x.., as standard error does, instead of raising."""
    with contextlib.suppress(Exception):  # None, or an object that is no text stream of Python's
        stream.reconfigure(errors="backslashreplace")


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn as if from the first line outside this package: the user's own, which Python prints beside the text."""
    level, frame = 2, sys._getframe(1)
    while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
