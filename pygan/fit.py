"""The loop around anything that learns in updates: logging, checkpoints, resuming and stopping, without losing work."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pygan import health
from pygan._session import CpuRandomness, Interrupt, forked_randomness
from pygan._terminal import counted
from pygan.boards import NOWHERE, Board
from pygan.checkpoint import Part, plain_state, state_of, take_over
from pygan.distributed import ALONE, Ranks, is_one_of_several
from pygan.folder import RunFolder, check_tables
from pygan.progress import Progress

__all__ = ["Cadence", "Fit", "Interrupted", "Learner"]

_READ_EVERY = 100  # updates between looks at the statistics; each look waits for the GPU
_PROGRESS = {  # what a checkpoint holds of a `Fit`, besides tensors
    "update": int,
    "totals": list[float],
    "history": list[dict[str, Any]],
    "times": list[float],
    "best": list[float] | None,
    "seconds": float,
    "warned": list[str],
    "stopped": str | None,
}


class Learner(Protocol):
    """What `Fit` trains. All its random numbers come from torch's default generators."""

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the numbers that each update returns."""

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the settings that are learning rates, for advice."""

    def update(self, number: int) -> None:
        """Do one update; `number` counts from 0."""

    def take_statistics(self) -> Tensor:
        """Return the numbers of each update since the last call: float64 [updates, numbers], on the CPU."""

    def parts(self) -> Mapping[str, Part]:
        """Return everything with a state that a checkpoint must store, by name."""

    def end_epoch(self, epoch: int, last: bool) -> dict[str, Any]:
        """Return what is added to the entry of the history.

        "log_likelihood", "spread" and "reference", where they are not None, decide which epoch is the best, see
        `health.rank`.
        """

    def reload(self) -> None:
        """Read parameters and states again, after a checkpoint or the user's function has changed them."""

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the means of the epoch so far as text for the progress line."""

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        """Return the problems that the history shows: name -> the first epoch that does, and a sentence with advice."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run was saved in `path`; `done` says how much was done."""

    def __init__(self, done: float, epochs: int, path: Path) -> None:
        self.done, self.path = f"interrupted after {done:.1f} of {counted(epochs, 'epoch')}, saved in {path}", path
        super().__init__(f"{self.done}; resume=True with out={str(path)!r} continues it")


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """The length of a run, and how often something is done.

    Attributes:
        epochs: the maximal number of epochs.
        updates_per_epoch: at least 1.
        checkpoint_every: epochs between checkpoints.
        checkpoint_seconds: seconds after which a checkpoint is made within an epoch.
        patience: the run stops after so many epochs without a better one; 0 means never.
        keep_every: epochs between checkpoints that are kept permanently; 0 means none.
    """

    epochs: int
    updates_per_epoch: int
    checkpoint_every: int = 1
    checkpoint_seconds: float = 60.0
    patience: int = 0
    keep_every: int = 0


class Fit:
    """The training of a learner, and the folder in which it is stored.

    Args:
        learner: what is trained.
        folder: where it is stored; `restore` only reads it.
        cadence: the length of the run, and how often something is done.
        device: where the learner draws random numbers, besides the CPU.
        on_epoch: called after each epoch. Random numbers that it draws from torch's generators do not change the run.
            If it returns False, the run ends there. If it raises, the run is saved first.
        board: an additional place for the history.
        ranks: the processes that train the learner together. Each has a `Fit`, and calls its methods in the same order.

    Attributes:
        update: updates done.
        history: one dictionary for each epoch: "epoch", "update", the means of the learner's statistics, and what
            `Learner.end_epoch` adds.
        times: seconds at the end of each epoch.
        stopped: why the run ended before its last epoch, or None.
    """

    def __init__(
        self,
        learner: Learner,
        folder: RunFolder,
        cadence: Cadence,
        device: torch.device,
        on_epoch: Callable[[], object] | None = None,
        board: Board = NOWHERE,
        ranks: Ranks = ALONE,
    ) -> None:
        self.learner, self.folder, self.cadence, self.device = learner, folder, cadence, device
        self.on_epoch, self.board, self.ranks = on_epoch, board, ranks
        self.update = 0
        self.totals = [0.0] * len(learner.statistics)  # of this epoch so far
        self.history: list[dict[str, Any]] = []
        self.best: list[float] | None = None  # the rank of the best checkpoint, see `health.rank`
        self.times: list[float] = []
        self.seconds = 0.0
        self.warned: list[str] = []
        self.stopped: str | None = None
        self._saved: int | None = None  # the update of the newest checkpoint
        self._last_is_old = False  # "best" was restored instead

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be trained."""
        return self.stopped is not None or self.update >= self.cadence.epochs * self.cadence.updates_per_epoch

    def play(self, show: bool) -> None:
        """Train to the end; save as the cadence says, and when interrupted.

        Raises KeyboardInterrupt, which says what was saved, after Ctrl-C.
        """
        per_epoch = self.cadence.updates_per_epoch
        started, saved, waits = time.monotonic() - self.seconds, time.monotonic(), False
        interrupted = Interrupt(patient=is_one_of_several())
        shown = self.board.open(self.folder.path, len(self.history))
        with shown, Progress(self.cadence.epochs * per_epoch, self.update, show) as progress, interrupted as interrupt:

            def flags() -> tuple[bool, bool, bool]:
                late = time.monotonic() - saved > self.cadence.checkpoint_seconds
                return interrupt.asked, late, progress.waits

            while not self.finished:
                agreed = self.ranks.agree(flags)
                self.learner.update(self.update)
                self.update += 1
                self.seconds = time.monotonic() - started
                progress.advance()

                epoch, within = divmod(self.update, per_epoch)
                if self.update % _READ_EVERY == 0 or within == 0 or waits:
                    self.read_statistics()
                    progress.show(*self._line(self._means()))
                if within == 0:
                    self._end_epoch(epoch)
                    if self.history[-1].get("log_likelihood") is not None:
                        progress.report(*self._line(self.history[-1]))
                asked, late, waits = agreed()
                if self.finished:  # what was asked during the last update too
                    asked, late, waits = self.ranks.agree(flags)()
                due = within == 0 and (epoch % self.cadence.checkpoint_every == 0 or self.finished)
                if due or asked or late:
                    self.save("last")
                    saved = time.monotonic()
                if asked:
                    raise Interrupted(self.update / per_epoch, self.cadence.epochs, self.folder.path)

    def _end_epoch(self, epoch: int) -> None:
        """Record the epoch (history, log, best checkpoint, warnings), and ask the user's function whether to stop."""
        last = epoch == self.cadence.epochs
        means = [total / self.cadence.updates_per_epoch for total in self.totals]
        self.totals = [0.0] * len(means)
        entry = {"epoch": epoch, "update": self.update, **dict(zip(self.learner.statistics, means, strict=True))}
        entry |= self.learner.end_epoch(epoch, last)
        self.history.append(entry)
        self.times.append(round(self.seconds, 3))
        self.folder.append_log({**entry, "seconds": self.times[-1]})
        self.board.write(entry)
        health.warn_once(self.learner.diagnose(self.history), self.warned)
        self._keep_best(entry)
        if self.cadence.patience and epoch - self._best_epoch(epoch) >= self.cadence.patience:
            self.stopped = f"no better log-likelihood for {self.cadence.patience} epochs"
        self._ask_user()
        self._keep(epoch)
        if self.stopped is not None and self.best is None:  # A run that ends is judged at least once.
            judged = self.learner.end_epoch(epoch, True)
            entry |= judged
            self._keep_best(entry)
            self.open_log()
            self.board.write({"epoch": epoch, **judged})

    def _keep_best(self, entry: Mapping[str, Any]) -> None:
        if entry.get("log_likelihood") is None:
            return
        rank = [float(value) for value in health.rank(entry)]
        if self.best is None or rank > self.best:
            self.best = rank
            self.save("best")  # all of the run: one that is killed before it saves "last" goes on from here

    def _keep(self, epoch: int) -> None:
        if self.cadence.keep_every and epoch % self.cadence.keep_every == 0:
            self.save(str(epoch))

    def _best_epoch(self, otherwise: int) -> int:
        """The first of the best epochs, if any was judged."""
        judged = [entry for entry in self.history if entry.get("log_likelihood") is not None]
        return max(judged, key=lambda entry: health.rank(entry)[:2])["epoch"] if judged else otherwise

    def _ask_user(self) -> None:
        if (ask := self.on_epoch) is None:
            return
        try:
            with forked_randomness(self.device):
                if self.ranks.from_main(lambda: ask() is False):
                    self.stopped = "on_epoch ended it"
        except BaseException:
            self._keep(len(self.history))
            self.save("last")
            raise
        self.ranks.spread(tensor for part in self.learner.parts().values() for tensor in plain_state(part).values())
        self.learner.reload()

    def read_statistics(self) -> None:
        """Add the updates since the last call to the epoch's totals, one by one, so that the calls change no sum."""
        rows = self.learner.take_statistics().tolist()
        for update, row in enumerate(rows, start=self.update - len(rows) + 1):
            if not all(map(math.isfinite, row)):
                named = dict(zip(self.learner.statistics, row, strict=True))
                raise health.not_finite(update, named, self.tensors(), self._saved, self.learner.rates)
            self.totals = [total + value for total, value in zip(self.totals, row, strict=True)]

    def _means(self) -> dict[str, float]:
        """The means of the statistics over the epoch so far."""
        within = (self.update - 1) % self.cadence.updates_per_epoch
        return {n: t / (within + 1) for n, t in zip(self.learner.statistics, self.totals, strict=True)}

    def _line(self, means: Mapping[str, Any]) -> tuple[str, str, str]:
        """What `Progress` shows: the epoch, its means, the last log-likelihood and spread."""
        epoch = (self.update - 1) // self.cadence.updates_per_epoch + 1
        judged = [past for past in self.history if past.get("log_likelihood") is not None]
        score = f"{judged[-1]['log_likelihood']:.0f} nats" if judged else ""
        if judged and judged[-1].get("spread") is not None:
            score += f", spread {judged[-1]['spread']:.2f}"
        return f"epoch {epoch}/{self.cadence.epochs}", self.learner.describe(means), score

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor from which the run can be continued, by name."""
        named = state_of({**self.learner.parts(), "random": CpuRandomness()})
        if self.device.type == "cuda":
            named["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return named

    def save(self, name: str) -> None:
        """Write a checkpoint, after checking that all of it is finite."""
        self.read_statistics()
        self.check_finite()
        self.folder.write_checkpoint(name, self.tensors(), {name: getattr(self, name) for name in _PROGRESS})
        self._saved = self.update

    def check_finite(self) -> None:
        """Raise NonFiniteError if anything that a checkpoint holds is NaN or infinite."""
        health.check_finite(self.update, self.tensors(), self._saved, self.learner.rates)

    def restore(self, longer: bool = False) -> None:
        """Load the newest checkpoint that can be read, if there is one. The folder is only read.

        With `longer`, a run that was stopped continues.
        """
        states = self.folder.read_checkpoints()
        for name, (_, progress) in states.items():
            progress.setdefault("stopped", None)  # version 0.1 had no such thing
            if isinstance(progress.get("best"), float):  # as it was in version 0.1
                progress["best"] = [float(value) for value in health.rank({"log_likelihood": progress["best"]})]
            check_tables(progress, _PROGRESS, self.folder.checkpoint_path(name))
        if not states:
            return
        newest = max(states, key=lambda name: (states[name][1]["update"], name))  # "last", if both are equally new
        tensors, progress = states[newest]
        cuda = tensors.pop("random.cuda", None)  # A run may move from one device to another.
        parts = {**self.learner.parts(), "random": CpuRandomness()}
        take_over(parts, tensors, str(self.folder.checkpoint_path(newest)))
        for name in _PROGRESS:
            setattr(self, name, progress[name])
        if "best" not in states:
            self.best = None  # The best of the epochs to come is kept, or at least the last.
        if longer:
            self.stopped = None
        self._saved, self._last_is_old = self.update, newest == "best"
        self.learner.reload()
        if self.device.type == "cuda" and cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)

    def open_log(self) -> None:
        """Open the log at the end of the history; what was logged after the newest checkpoint is removed."""
        if self._last_is_old:  # a kill came after "best": what follows it at the end of an epoch is made up for
            self._ask_user()
            self._keep(len(self.history))
            self.save("last")
            self._last_is_old = False
        self.folder.write_log([{**e, "seconds": s} for e, s in zip(self.history, self.times, strict=True)])
