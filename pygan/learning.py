"""Training of what is no game: a folder, settings that must not change, and `pygan.fit.Fit` around one learner.

The learners are in the modules named after what they are for: `pygan.semi_supervised`, `pygan.inference`,
`pygan.conditionals`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from pygan._nearest import nearest
from pygan._session import find_device, own_defaults, own_randomness
from pygan._terminal import counted
from pygan._threads import check_threads, choose_threads, own_threads, refuse_many_processes
from pygan.checkpoint import Part
from pygan.data import fingerprint
from pygan.fit import Cadence, Fit
from pygan.folder import RunFolder, begun_with, check_tables, choose_folder
from pygan.settings import AT_LEAST_ONE, POSITIVE, Settings, check_seed, setting
from pygan.step import StatisticsRows

__all__ = ["Keeping", "LearnerSettings", "LearnerWithParts", "autocast", "in_words", "learn", "settings_from"]

_CONFIG = {"task": str, "seed": int, "settings": dict, "data": dict}


@dataclass(frozen=True, kw_only=True)
class LearnerSettings(Settings):
    """The settings that all learners have."""

    epochs: int = setting(30, "passes over the training images", AT_LEAST_ONE)
    batch_size: int = setting(100, "images in one update", AT_LEAST_ONE)
    learning_rate: float = setting(1e-3, "Adam's; it falls linearly to 0 over the last half of the updates", POSITIVE)

    def rate(self, update: int, updates_per_epoch: int) -> float:
        """Return the learning rate of update number `update`, counted from 0."""
        left = 1 - update / (self.epochs * updates_per_epoch)
        return self.learning_rate * min(1.0, 2 * left)


class LearnerWithParts:
    """The methods of `pygan.fit.Learner` that most learners share.

    Args:
        parts: what has a state that a checkpoint must hold, by name.
        statistics: names of the numbers that each update gives; `rows` takes them.
        cadence: how long, and how often.
    """

    rates: tuple[str, ...] = ("learning_rate",)

    def __init__(self, parts: Mapping[str, Part], statistics: tuple[str, ...], cadence: Cadence) -> None:
        self._parts, self.statistics, self.cadence = parts, statistics, cadence
        self.rows = StatisticsRows(len(statistics))

    def update(self, number: int) -> None:
        """See `pygan.fit.Learner`."""
        raise NotImplementedError

    def parts(self) -> Mapping[str, Part]:
        """See `pygan.fit.Learner`."""
        return self._parts

    def take_statistics(self) -> Tensor:
        """See `pygan.fit.Learner`."""
        return self.rows.take()

    def end_epoch(self, epoch: int, last: bool) -> dict[str, Any]:
        """See `pygan.fit.Learner`."""
        return {}

    def reload(self) -> None:
        """See `pygan.fit.Learner`."""

    def describe(self, means: Mapping[str, float]) -> str:
        """See `pygan.fit.Learner`."""
        return " ".join(f"{name.replace('_', ' ')} {means[name]:.3f}" for name in self.statistics)

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        """See `pygan.fit.Learner`."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where and how something is trained; the arguments of the same names of `pygan.train`.

    Attributes:
        begun: the settings of the run that is resumed, if `out` names it.
        known_seed: its seed, if none was given, or else 0.

    Raises TypeError or ValueError for an impossible value, RuntimeError for a device that is not there.
    """

    out: str | Path | None = None
    device: str | torch.device = "auto"
    seed: int | None = None
    resume: bool = False
    progress: bool = True
    threads: int | None = None
    found_device: torch.device = field(init=False)
    known_seed: int = field(init=False)
    begun: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        refuse_many_processes()
        check_threads(self.threads)
        config = begun_with(self.out) if self.resume and self.out is not None else {}
        seed = config.get("seed", 0) if self.seed is None else self.seed
        object.__setattr__(self, "known_seed", check_seed("train: seed", seed))
        object.__setattr__(self, "begun", config.get("settings", {}))
        object.__setattr__(self, "found_device", find_device(self.device))

    def own_defaults(self) -> AbstractContextManager[None]:
        """Training's own settings of torch, see `pygan._session.own_defaults`."""
        return own_defaults(self.found_device)


def autocast(precision: Literal["float32", "bf16"], device: torch.device) -> torch.autocast:
    """Return the context of a forward pass: matrix products in bfloat16, or all in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def in_words(model: object, path: Path, shape: Sequence[int], history: Sequence[Any]) -> str:
    """Return the representation of what was trained: its class, folder, images (C, H, W) and number of epochs."""
    return f"{type(model).__name__}({str(path)!r}: {'x'.join(map(str, shape))}, {counted(len(history), 'epoch')})"


S = TypeVar("S", bound=LearnerSettings)
L = TypeVar("L", bound=LearnerWithParts)


def settings_from(kind: type[S], given: Mapping[str, Any], begun: Mapping[str, Any]) -> S:
    """Return settings with the caller's values, and those of the run that is resumed where none is given.

    An unknown one is a TypeError that names the nearest right one.
    """
    known = [of.name for of in fields(kind)]
    for name in given:
        if name not in known:
            raise TypeError(f"unknown setting {name!r}{nearest(name, known)}")
    return kind(**{**{name: value for name, value in begun.items() if name in known}, **given})


def learn(
    task: str,
    name: str,
    make: Callable[[torch.device], L],
    settings: LearnerSettings,
    data: Mapping[str, Any],
    keeping: Keeping,
) -> tuple[L, Fit]:
    """Train a learner to the end of its epochs, or take it up where its folder has it.

    Args:
        task: the module that trains it, such as "semi_supervised".
        name: of the folder under runs/, where `keeping.out` gives none.
        make: returns the learner on a device; torch's default generators are seeded by `keeping.known_seed` then.
        settings: its settings; a folder that is resumed must have the same.
        data: what config.toml is to hold of the data; the same of a folder that is resumed.
        keeping: where and how.

    Returns:
        The learner, and the `Fit` with its history and folder.

    Raises:
        ValueError: a folder that holds another run, or something else; a setting that is not what it was.
        RuntimeError: another process trains in the folder, or another thread in this process.
        pygan.health.NonFiniteError: a NaN or an infinity appeared.
        KeyboardInterrupt: after Ctrl-C, when everything has been saved.
    """
    folder, device = choose_folder(keeping.out, name, keeping.resume), keeping.found_device
    with folder.locked(), keeping.own_defaults():
        before = _read_config(folder, task) if folder.holds_run() else None
        threads = choose_threads(keeping.threads, before)
        seed = keeping.known_seed
        config = {"task": task, "seed": seed, "threads": threads, "settings": settings.flat(), "data": data}
        if before is not None:
            _refuse_older(folder.path, before, settings)
            _refuse_changes(folder.path, {**before, "settings": type(settings)(**before["settings"]).flat()}, config)
        with own_threads(threads), own_randomness(seed, device, deterministic=False):
            learner = make(device)
            fit = Fit(learner, folder, learner.cadence, device)
            fit.restore()
            folder.write_config(config)
            fit.open_log()
            fit.play(keeping.progress)
    return learner, fit


def _read_config(folder: RunFolder, task: str) -> dict[str, Any]:
    config = folder.read_config()
    found = config.get("task", "a game of pygan.train")
    if found != task:
        raise ValueError(f"train: {folder.path} holds {found}, not {task}; choose another out=")
    check_tables(config, _CONFIG, folder.path / "config.toml")
    return config


def _refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless a run begun with `before` can go on with `now`."""
    _refuse_change(path, "seed", before["seed"], now["seed"])  # first, since the splits follow from it
    for table in ("settings", "data"):
        for name in before[table] | now[table]:
            if name != "checksums":
                _refuse_change(path, name, before[table].get(name), now[table].get(name))
    checksums = (config["data"].get("checksums", {}) for config in (before, now))
    if changed := fingerprint.changed(*checksums):
        raise ValueError(f"train: data must be the same as at the start of the run in {path}: {changed}")


def _refuse_older(path: Path, before: Mapping[str, Any], settings: LearnerSettings) -> None:
    for name in settings.flat():
        if name not in before["settings"]:
            raise ValueError(
                f"train: {path} was begun by an earlier version of pygan, which had no setting {name!r}; "
                "choose another out="
            )


def _refuse_change(path: Path, name: str, old: Any, new: Any) -> None:
    if old != new:
        raise ValueError(f"train: {name} was {old!r} in {path}, got {new!r}; to resume, it must be the same")
