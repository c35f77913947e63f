"""What a run folder says about its run: everything but the weights, so it is read in a moment, also in training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pygan import health
from pygan.folder import RunFolder, check_numbers, check_tables
from pygan.optim import Rates
from pygan.recipes import Recipe
from pygan.run import Run, read_config, read_result

__all__ = ["Record", "as_record", "listed", "read_record"]

_ENTRY = {"epoch": int, "update": int, "d_loss": float, "g_loss": float}  # each line of a log holds these


@dataclass(frozen=True)
class Record:
    """A run without its weights.

    Attributes:
        path: the run folder.
        recipe: every setting.
        seed: of the run.
        threads: number of CPU threads of the training, where it is known.
        data: what config.toml says about the data.
        history: see `Run.history`.
        result: what result.json holds; None for a run that is not finished.
    """

    path: Path
    recipe: Recipe
    seed: int
    threads: int | None
    data: Mapping[str, Any]
    history: list[dict[str, Any]]
    result: Mapping[str, Any] | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the record of a run that is in memory."""
        result = read_result(RunFolder(run.path))
        return cls(run.path, run.recipe, run.seed, run.threads, run.data, run.history, result)

    def judged(self) -> list[dict[str, Any]]:
        """Return the entries of the epochs that were evaluated."""
        return [entry for entry in self.history if entry.get("log_likelihood") is not None]

    def best(self) -> dict[str, Any] | None:
        """Return the entry of the best epoch, or None if none was evaluated."""
        return max(self.judged(), key=health.rank, default=None)

    def references(self) -> dict[str, float]:
        """Return what other images score in place of samples on the test split, in nats, by their names."""
        rows = (self.result or {}).get("reference_log_likelihood")
        numbers = rows.items() if isinstance(rows, Mapping) else ()
        return {name: value for name, value in numbers if isinstance(value, int | float)}

    def rates(self, entry: Mapping[str, Any]) -> Rates:
        """Return the learning rates and the momentum of the last update before an entry of the history."""
        return self.recipe.rates(entry["update"] - 1, max(1, entry["update"] // entry["epoch"]))

    def warnings(self) -> list[tuple[int, str]]:
        """Return the warnings that the training gave: the epoch and the sentence with advice, in order."""
        return sorted((health.diagnose(self.history) | self.recipe.objective.diagnose(self.history)).values())


def read_record(path: str | Path) -> Record:
    """Return what the folder of a run says about it.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: a file is damaged, or of another kind of run.
    """
    folder = RunFolder(path)
    config, history = read_config(folder), folder.read_log()
    needed = {**_ENTRY, **dict.fromkeys(config["recipe"].objective.statistics, float)}
    for entry in history:
        check_tables(entry, needed, folder.path / "log.jsonl")
        check_numbers(entry, folder.path / "log.jsonl", {"epoch": 1, "update": 1})
    about = config["recipe"], config["seed"], config.get("threads"), config["data"]
    return Record(folder.path, *about, history, read_result(folder))


def listed(runs: Any) -> list[Any]:
    """Return runs, or the folders of runs, as a list; one may stand alone."""
    if runs is None:
        return []
    return [runs] if isinstance(runs, Run | str | Path) else list(runs)


def as_record(run: Run | Record | str | Path) -> Record:
    """Return the record of a run, or of the run in a folder; a record as it is."""
    if isinstance(run, Record):
        return run
    return Record.of(run) if isinstance(run, Run) else read_record(run)
