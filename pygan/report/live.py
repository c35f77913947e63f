"""The curves, the film and the page of a run: drawn while it trains, and at its end."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pygan import report
from pygan._files import replace_file
from pygan._session import forked_randomness
from pygan._terminal import warn
from pygan.film import film
from pygan.folder import RunFolder
from pygan.run import Run

__all__ = ["Live"]

_SHARE = 0.05  # of the time of a training may go into drawing
_SHORT = 0.3  # seconds of drawing that are counted at the start: nothing is drawn in the first 6 seconds


class Live:
    """A board that draws after evaluations, as often as five percent of the training's time allow.

    A file that cannot be drawn ends no training, and leaves out no other file: it causes a warning, once. Random
    numbers that a generator draws from torch's generators do not change the run.

    Args:
        run: which is being trained.
        device: where its generator is.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self._run, self._device = run, device
        self._begun, self._spent = time.monotonic(), _SHORT
        self._failed: set[str] = set()

    def open(self, folder: Path, epochs: int) -> AbstractContextManager[None]:
        """Begin to measure time."""
        self._begun, self._spent = time.monotonic(), _SHORT
        return nullcontext()

    def write(self, entry: dict[str, Any]) -> None:
        """Draw, if the epoch was evaluated and there is time for it."""
        if entry.get("log_likelihood") is not None and self._spent <= _SHARE * (time.monotonic() - self._begun):
            self._draw(self._run, f"after epoch {entry['epoch']:,}")

    def is_complete(self) -> bool:
        """Return whether each file of the report exists and is not older than the run's result."""
        folder = RunFolder(self._run.path)
        names = ["curves.png", "curves.svg", folder.report.name] + ["samples.gif"] * (len(folder.pictures()) > 1)
        files, result = [folder.path / name for name in names], folder.path / "result.json"
        return all(file.is_file() and file.stat().st_mtime_ns >= result.stat().st_mtime_ns for file in files)

    def finish(self, best: Run, epoch: int) -> None:
        """Draw the run as it has ended, with the weights of its best epoch."""
        self._draw(best, f"of the best epoch, {epoch:,}")

    def _draw(self, run: Run, weights: str) -> None:
        from pygan.report import page  # noqa: F401  (its libraries are loaded before the time is taken)

        started = time.monotonic()
        with forked_randomness(self._device):
            for name, write in _files(run, weights).items():
                try:
                    write()
                except Exception as error:  # whatever it is, the training is worth more
                    if name not in self._failed:
                        warn(f"{run.path / name} could not be drawn: {type(error).__name__}: {error}")
                    self._failed.add(name)
        self._spent += time.monotonic() - started


def _files(run: Run, weights: str) -> dict[str, Callable[[], object]]:
    """The files of the report in the folder of a run, and what draws each and puts it in its place."""
    from pygan.figures import draw_curves
    from pygan.figures.canvas import own_style, picture

    folder = RunFolder(run.path)
    drawn = cache(lambda: draw_curves([run]))

    def write_curves(form: str) -> None:
        with own_style():
            replace_file(folder.path / f"curves.{form}", picture(drawn(), form))

    def write_film() -> None:
        if (content := film(folder.pictures())) is not None:
            replace_file(folder.path / "samples.gif", content)

    return {
        "curves.png": lambda: write_curves("png"),
        "curves.svg": lambda: write_curves("svg"),
        "samples.gif": write_film,
        folder.report.name: lambda: report.write([run], folder.report, weights),
    }
