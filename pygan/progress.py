"""How far a run is: a line that is rewritten on a terminal or in a notebook, elsewhere a line for each evaluation.

All of it goes to standard error, so that standard output holds results only.
"""

import re
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from pygan._terminal import is_terminal, say

if TYPE_CHECKING:
    from pygan.run import Run

__all__ = ["Progress", "duration", "introduce", "is_live"]

_BAR = 12  # columns: less than that tells nothing
_NOTEBOOK = 140  # columns


class Progress:
    """The progress of a run, shown while this context lasts.

    Args:
        total: updates of the whole run.
        done: updates before this process took it up.
        show: False shows nothing.
    """

    def __init__(self, total: int, done: int, show: bool) -> None:
        self._total, self._begun, self._done = total, done, done
        self._started = self._shown = time.monotonic()
        live = show and is_live()
        # Smoothing 0: the remaining time is by the mean over all updates, and does not swing with each of them.
        self._bar: Any = _tqdm()(total=total, initial=done, dynamic_ncols=True, smoothing=0) if live else None
        self._lines = show and not live
        if self._bar is not None:
            self._bar.bar_format = "starting"
            self._bar.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def waits(self) -> bool:
        """Whether the line is to be rewritten now: a second after the last time."""
        return self._bar is not None and time.monotonic() - self._shown > 1

    def advance(self) -> None:
        """Count one update."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()

    def show(self, epoch: str, means: str, score: str) -> None:
        """Rewrite the line.

        Args:
            epoch: how far the run is, "epoch 3/250".
            means: of the epoch so far, "D(x) 0.58 D loss 0.65 G loss 0.93".
            score: the last log-likelihood and spread, "182 nats, spread 0.83", or nothing.
        """
        if self._bar is None:
            return
        self._shown = time.monotonic()
        columns = self._bar.format_dict["ncols"] or _NOTEBOOK
        times = f"[{self._bar.format_interval(self._elapsed())}<{self._bar.format_interval(self._remaining())}]"
        for words in _shorter_and_shorter(epoch, times, means, score):
            spare = columns - 1 - len(" ".join(words))  # tqdm leaves one column free
            if spare >= 0:
                break
        words = [word.replace("{", "{{").replace("}", "}}") for word in words]
        if spare >= _BAR + 3:
            words.insert(2, "|{bar}|")
        self._bar.bar_format = " ".join(words).replace(times, "[{elapsed}<{remaining}]")
        self._bar.refresh()

    def report(self, epoch: str, means: str, score: str) -> None:
        """Write a line about an epoch that was evaluated, where no line can be rewritten."""
        if self._lines:
            elapsed, remaining = duration(self._elapsed()), duration(self._remaining())
            say(f"{epoch}: {means} {score}; {elapsed} so far, about {remaining} to go")

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _remaining(self) -> float:
        return self._elapsed() * (self._total - self._done) / max(1, self._done - self._begun)


def _shorter_and_shorter(epoch: str, times: str, means: str, score: str) -> Iterator[list[str]]:
    """Yield the words of the line, with less in each version; both losses stay as long as they fit."""
    parts = re.split(r"(?<=\d) (?=\D)", means)
    versions = [[epoch, times, *parts, score]]
    while parts and " loss " not in parts[0]:
        parts = parts[1:]
        versions.append([epoch, times, *parts, score])
    parts = [part.replace(" loss ", " ") for part in parts]
    versions.append([epoch, times, *parts, score])
    score = score.partition(",")[0]
    versions += [[epoch, times, *parts, score], [epoch, *parts, score]]
    versions += [[epoch, *parts[i:], score] for i in range(1, len(parts) + 1)]
    return ([word for word in words if word] for words in versions)


def introduce(run: "Run") -> None:
    """Say what is about to be trained, and what the log-likelihoods that will be shown can be compared with."""
    recipe, splits = run.recipe, run.splits
    shape = " x ".join(map(str, splits.shape))
    say(
        f"pygan: {splits.name}, {len(splits.train):,} training images of {shape}; recipe {recipe.name}, "
        f"{recipe.epochs} epochs; run folder {run.path}"
    )
    score = run.reference_log_likelihood("valid")["training images"]
    say(
        "pygan: nats are the mean log-likelihood of validation images under a Parzen window on samples: higher is "
        f"better, and training images in place of samples score {score:.0f}; spread is how much the samples vary, "
        "1 is as much as the data"
    )


def is_live() -> bool:
    """Return whether standard error can rewrite a line: a terminal, or a notebook that has ipywidgets."""
    return is_terminal(sys.stderr) or ("ipykernel" in sys.modules and _is_notebooks(_tqdm()))


def _tqdm() -> Any:
    """The progress bar for where we are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Without ipywidgets it warns; lines are written then.
        from tqdm.auto import tqdm
    return tqdm


def _is_notebooks(bar: Any) -> bool:
    from tqdm.notebook import tqdm_notebook

    return issubclass(bar, tqdm_notebook)


def duration(seconds: float) -> str:
    """Seconds in words: "48 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
