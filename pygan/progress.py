"""The progress of what takes long, on standard error, so that standard output has only results.

`Progress` is that of a run: on a terminal or in a notebook one line that is rewritten, elsewhere one for each
evaluation. `Task` is that of everything else, and silent elsewhere. Only the outermost of them is shown.
"""

import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from pygan._terminal import counted, is_terminal, say

if TYPE_CHECKING:
    from pygan.run import Run

__all__ = ["Progress", "Task", "duration", "introduce", "is_live"]

_BAR = 12  # columns: less than that tells nothing
_NOTEBOOK = 140  # columns
_PATIENCE = 2.0  # seconds of a task without a line
_EVERY = 1.0  # seconds between two versions of its line
_showing = 0  # how many are being shown, or are silent on purpose, one in the other


class Task:
    """Work that may take long, while this context lasts: after two seconds a line shows how far it is.

    On a terminal or in a notebook only, and only if it is not part of other work that is shown. The line is drawn by a
    thread, so that work without a known end, or in long steps, shows the time that has passed.

    Args:
        name: what is done.
        total: of what `advance` counts; None where it is not known.
        show: False shows neither this nor what is done within it.
    """

    def __init__(self, name: str, total: int | None = None, show: bool = True) -> None:
        self._name, self._total, self._show, self._done = name, total, show, 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        global _showing
        if self._show and _showing == 0 and is_live():
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()
        _showing += 1
        return self

    def __exit__(self, *error: object) -> None:
        global _showing
        _showing -= 1
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def advance(self, n: int = 1) -> None:
        """Count something that is done."""
        self._done += n

    def _draw(self) -> None:
        if self._ended.wait(_PATIENCE):
            return
        form = "{desc} [{elapsed}]"
        if self._total is not None:
            form = "{desc} {percentage:3.0f}% |{bar}| [{elapsed}<{remaining}]"
        with _bar(total=self._total, desc=self._name, bar_format=form, leave=False) as bar:
            bar.start_t -= _PATIENCE
            while True:
                bar.n = self._done
                bar.refresh()
                if self._ended.wait(_EVERY):
                    return


class Progress:
    """The progress of a run, shown while this context lasts.

    Args:
        total: updates of the whole run.
        done: updates that were done before this process.
        show: False shows nothing.
    """

    def __init__(self, total: int, done: int, show: bool) -> None:
        self._total, self._begun, self._done = total, done, done
        self._started = self._shown = time.monotonic()
        live = show and is_live()
        # Smoothing 0: the remaining time is by the mean over all updates, and does not swing with each of them.
        self._bar: Any = _bar(total=total, initial=done, smoothing=0) if live else None
        self._lines = show and not live
        if self._bar is not None:
            self._bar.bar_format = "starting"
            self._bar.refresh()

    def __enter__(self) -> Self:
        global _showing
        _showing += 1
        return self

    def __exit__(self, *error: object) -> None:
        global _showing
        _showing -= 1
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
            epoch: "epoch 3/250".
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
        """Write a line about an epoch that was evaluated, if no line can be rewritten here."""
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


def introduce(run: "Run", reference: float) -> None:
    """Print what will be trained, and what training images score in place of samples: `reference`, in nats."""
    recipe, splits = run.recipe, run.splits
    shape = " x ".join(map(str, splits.shape))
    say(
        f"pygan: {splits.name}, {len(splits.train):,} training images of {shape}; recipe {recipe.name}, "
        f"{counted(recipe.epochs, 'epoch')}; run folder {run.path}"
    )
    say(
        "pygan: nats are the mean log-likelihood of validation images under a Parzen window on samples: higher is "
        f"better, and training images in place of samples score {reference:.0f}; spread is how much the samples vary, "
        "1 is as much as the data"
    )


def is_live() -> bool:
    """Return whether standard error can rewrite a line: a terminal, or a notebook that has ipywidgets."""
    return is_terminal(sys.stderr) or ("ipykernel" in sys.modules and _is_notebooks(_tqdm()))


def _bar(**options: Any) -> Any:
    """Return a progress bar for a terminal or a notebook."""
    return _tqdm()(file=_Stderr(), dynamic_ncols=True, **options)


class _Stderr:
    """Standard error, where a line that cannot be written is left out: a full disk behind it ends no training."""

    def __eq__(self, other: object) -> bool:
        return other is self or other is sys.stderr  # tqdm asks this before it writes around its bars

    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        with suppress(Exception):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(Exception):
            sys.stderr.flush()


def _tqdm() -> Any:
    """Return the class of progress bars for a terminal or a notebook."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Without ipywidgets it warns; lines are written then.
        from tqdm.auto import tqdm
    return tqdm


def _is_notebooks(bar: Any) -> bool:
    from tqdm.notebook import tqdm_notebook

    return issubclass(bar, tqdm_notebook)


def duration(seconds: float) -> str:
    """Return seconds as text: "48 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
