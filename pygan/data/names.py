"""Names of files and folders, fit for messages."""

from __future__ import annotations

from pathlib import Path

__all__ = ["printable"]


def printable(name: str | Path) -> str:
    """Return a name with everything that a terminal would obey, or cannot print, written as an escape.

    These are control characters, marks that change the direction of text, and bytes that are not UTF-8.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in str(name)
    )
