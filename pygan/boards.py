"""Places that show the history of a run, besides its log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Board", "Boards"]


class Board(Protocol):
    """What `pygan.fit.Fit` tells of each epoch."""

    def open(self, folder: Path, epochs: int) -> None:
        """Begin, in a run folder, after this number of epochs; what is shown of later ones is out of date."""

    def write(self, entry: dict[str, Any]) -> None:
        """Take one entry of `Run.history`, which has it already; or what was added to the last one, with its epoch."""


class Boards:
    """Several boards as one."""

    def __init__(self, boards: Sequence[Board]) -> None:
        self._boards = boards

    def open(self, folder: Path, epochs: int) -> None:
        """See `Board`."""
        for board in self._boards:
            board.open(folder, epochs)

    def write(self, entry: dict[str, Any]) -> None:
        """See `Board`."""
        for board in self._boards:
            board.write(entry)
