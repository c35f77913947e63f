"""Places that show the history of a run, besides its log."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

__all__ = ["NOWHERE", "Board", "Boards"]


class Board(Protocol):
    """What `pygan.fit.Fit` tells of each epoch."""

    def open(self, folder: Path, epochs: int) -> AbstractContextManager[None]:
        """Begin, in a run folder, after this number of epochs; what is shown of later ones is out of date.

        All is written within the context that this returns, which ends however the training ends.
        """

    def write(self, entry: dict[str, Any]) -> None:
        """Take one entry of `Run.history`, which has it already; or what was added to the last one, with its epoch."""


class Boards:
    """Several boards as one."""

    def __init__(self, boards: Sequence[Board]) -> None:
        self._boards = boards

    @contextmanager
    def open(self, folder: Path, epochs: int) -> Iterator[None]:
        """See `Board`."""
        with ExitStack() as opened:
            for board in self._boards:
                opened.enter_context(board.open(folder, epochs))
            yield

    def write(self, entry: dict[str, Any]) -> None:
        """See `Board`."""
        for board in self._boards:
            board.write(entry)


NOWHERE = Boards(())
"""Takes a history and shows it nowhere."""
