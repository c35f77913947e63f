"""Table 1 of the paper: the published rows beside what the same recipes give here.

table = pygan.table1()                           # trains what is missing, and goes on where it was interrupted
table = pygan.table1(budget=30)                  # a short version, which says that it is one
table = pygan.table1(runs=["runs/mnist"])        # takes finished runs
print(table.markdown())
"""

import hashlib
import json
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pygan.data
from pygan._files import replace_file
from pygan._session import find_device
from pygan._version import __version__
from pygan.data import Splits, as_float, fingerprint
from pygan.data.tfd import FOLDS
from pygan.distributed import Ranks, apart, join
from pygan.evaluate import ParzenEstimate, ParzenWindow
from pygan.evaluate.references import CAVEAT, centroids, training_samples
from pygan.folder import RunFolder
from pygan.plan import plan
from pygan.progress import Task, duration
from pygan.run import SIGMA_POINTS, Run, load, read_result
from pygan.settings import check_seed
from pygan.train import train

__all__ = ["PUBLISHED", "Row", "Score", "Table", "table1"]

PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "DBN": {"mnist": (138, 2), "tfd": (1909, 66)},
    "stacked CAE": {"mnist": (121, 1.6), "tfd": (2110, 50)},
    "deep GSN": {"mnist": (214, 1.1), "tfd": (1890, 29)},
    "adversarial nets": {"mnist": (225, 2), "tfd": (2057, 26)},
}
"""The paper's Table 1, by model and data set. Each entry is a log-likelihood and its standard error, in nats."""
_DATA = {"mnist": "MNIST", "tfd": "TFD"}
_PROTOCOL = (
    "Mean log-likelihood of the test split in nats, under a Parzen window on {} samples, its bandwidth chosen from "
    "ten of .1 to 1 on validation images: on MNIST the first 1000, with the standard error over test points; on TFD "
    "all of a fold, with mean and standard error over the five folds."
)


@dataclass(frozen=True)
class Score:
    """What one set of samples scores, and how the run that they are from came about.

    Attributes:
        mean: log-likelihood of the test split in nats; on TFD the mean over folds.
        standard_error: over test points; on TFD over folds.
        sigma: bandwidth; on TFD the mean over folds.
        n_samples: samples in the window.
        run: for samples of a run, "path", "seed", "epochs", "best_epoch", "seconds", "stopped" and "hardware", as
            result.json has them; on TFD with the epochs and seconds of both phases.
    """

    mean: float
    standard_error: float
    sigma: float
    n_samples: int
    run: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table, measured here.

    Attributes:
        model: what the samples are from.
        data: "mnist" or "tfd".
        scores: one for each seed.
    """

    model: str
    data: str
    scores: tuple[Score, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds, nats."""
        return statistics.mean(score.mean for score in self.scores)

    @property
    def standard_error(self) -> float:
        """The mean over seeds of the standard error over test points, or over folds."""
        return statistics.mean(score.standard_error for score in self.scores)

    @property
    def seeds_error(self) -> float | None:
        """The standard error of the mean over seeds; None for one seed."""
        means = [score.mean for score in self.scores]
        return statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else None


@dataclass(frozen=True)
class Table:
    """Table 1.

    Attributes:
        rows: what was measured here.
        missing: the data that were not, each with a sentence that says why.
        budget: minutes of a short version, or None.
    """

    rows: tuple[Row, ...]
    missing: Mapping[str, str]
    budget: float | None = None

    def markdown(self) -> str:
        """Return the table, how each run came about, and what it is to be read with."""
        lines = ["# Table 1: Parzen-window log-likelihood, nats", ""]
        if self.budget is not None:
            lines += [
                f"**A short version, of {self.budget:g} minutes: the runs did not have the recipes' length.**",
                "",
            ]
        lines += [f"| model | {' | '.join(_DATA.values())} |", f"|---|{'---|' * len(_DATA)}"]
        for model, cells in PUBLISHED.items():
            lines.append(f"| {model}, as published | {' | '.join(_published(*cells[data]) for data in _DATA)} |")
        for model in dict.fromkeys(row.model for row in self.rows):
            ours = {row.data: _cell(row) for row in self.rows if row.model == model}
            lines.append(f"| {model} | {' | '.join(ours.get(data, '') for data in _DATA)} |")
        lines += ["", self._protocol(), "", CAVEAT, *(f"\nNot measured: {why}" for why in self.missing.values())]
        if any(score.run for row in self.rows for score in row.scores):
            lines += ["", "| run | seed | nats | sigma | best epoch | time | on |", "|---|---|---|---|---|---|---|"]
        for row in self.rows:
            lines += [_details(row, score, score.run) for score in row.scores if score.run]
        return "\n".join(lines) + "\n"

    def _protocol(self) -> str:
        counts = sorted({score.n_samples for row in self.rows for score in row.scores})
        numbers = " or ".join(f"{count:,}" for count in counts)
        more = "" if len(counts) == 1 else " Figures from different numbers of samples cannot be compared."
        return _PROTOCOL.format(numbers) + more

    def json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(
            {
                "budget_minutes": self.budget,
                "published": PUBLISHED,
                "rows": [
                    {
                        **asdict(row),
                        "mean": row.mean,
                        "standard_error": row.standard_error,
                        "standard_error_over_seeds": row.seeds_error,
                    }
                    for row in self.rows
                ],
                "missing": dict(self.missing),
                "protocol": self._protocol(),
                "caveat": CAVEAT,
            },
            indent=2,
        )


def table1(
    out: str | Path = "runs/table1",
    data: Sequence[str] = ("mnist", "tfd"),
    recipes: Sequence[str] = ("code2014",),
    seeds: Sequence[int] = (0, 1),
    budget: float | None = None,
    runs: Sequence[str | Path] = (),
    device: str | torch.device = "auto",
    root: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Table:
    """Train what the paper's Table 1 needs, or take finished runs, and return the table.

    Called again with the same `out`, it goes on where it was interrupted, and does nothing twice. If nothing can be
    measured, nothing is written.

    Several processes, as torchrun starts them, share out the runs: each trains whole runs by itself. The main process
    writes the table, and all of them return it.

    Args:
        out: folder of the runs, and of table1.md and table1.json. A short version has a folder of its own inside, and
            so has a table of `runs`, called "given".
        data: "mnist", "tfd". TFD, which needs a user's file, is trained in its two phases.
        recipes: for MNIST.
        seeds: a run for each.
        budget: minutes for all trainings of a process together, in equal shares; the time that earlier calls have
            trained counts. A run of which one epoch would take longer than its share is left out, and so are the
            k-means centroids. None: the recipes' own length.
        runs: run folders on MNIST or TFD (on TFD of the second phase). If there are any, nothing is trained.
        device: "auto" or any torch device.
        root: the folder of data sets; see `pygan.data.load`.
        progress: as in `pygan.train`.
        **settings: of all runs, as in `pygan.train`: precision, epochs, ...

    Raises:
        ValueError: other data, a run on other data or one that is not finished, anything that is given twice, a budget
            or settings for runs, several processes that are called differently, and what `pygan.train` raises.
        RuntimeError: as `pygan.train`.
    """
    for name in data:
        if name not in _DATA:
            raise ValueError(f"table1: data must be of {', '.join(map(repr, _DATA))}, got {name!r}")
    if budget is not None and not budget > 0:
        raise ValueError(f"table1: budget must be greater than 0 minutes, got {budget}")
    seeds = [check_seed("table1: seeds", seed) for seed in seeds]
    for what, given in (("data", data), ("recipes", recipes), ("seeds", seeds)):
        _refuse_twice(what, given)
    _refuse_twice("runs", [str(Path(path).expanduser().resolve()) for path in runs])
    if runs and budget is not None:
        raise ValueError("table1: budget is for trainings, and with runs nothing is trained; give one of the two")
    if runs and settings:
        raise ValueError(
            f"table1: the setting {next(iter(settings))!r} is for trainings, and with runs nothing is trained"
        )
    inside = "given" if runs else "" if budget is None else f"{budget:g}min"
    folder = Path(out).expanduser() / inside
    device = find_device(device)
    ranks = join(device)
    wanted = {"data": list(data), "recipes": list(recipes), "seeds": list(seeds), "runs": [str(path) for path in runs]}
    others = {name: str(value) for name, value in settings.items()}
    ranks.refuse_differences("table1", {"out": str(out), "budget": budget, **wanted, **others})
    work = _Work(folder, ranks.own(device), root, progress and ranks.is_main, budget, settings)
    scores = _of_runs(work, ranks, runs) if runs else _of_trainings(work, ranks, data, recipes, seeds)
    missing = {name: why for each in reversed(ranks.collect(work.missing)) for name, why in each.items()}
    work.missing = {name: missing[name] for name in data if name in missing}
    names = list(dict.fromkeys(of for _, of in scores)) if runs else [name for name in data if name not in missing]
    references = ranks.from_main(lambda: {name: work.references(name) for name in names})
    for name, of in references.items():
        scores |= {(model, name): [Score(**score)] for model, score in of.items()}
    rows = tuple(Row(model, name, tuple(each)) for (model, name), each in scores.items())
    table = Table(rows, work.missing, budget)
    if rows and ranks.is_main:
        work.keep("table1.md", table.markdown())
        work.keep("table1.json", table.json())
    return table


def _refuse_twice(what: str, given: Sequence[Any]) -> None:
    twice = [value for value, count in Counter(given).items() if count > 1]
    if twice:
        raise ValueError(f"table1: {what} must differ from each other, got {twice[0]!r} more than once")


_Scores = dict[tuple[str, str], list["Score"]]  # of each model and data set, one for each seed


def _of_runs(work: "_Work", ranks: Ranks, paths: Sequence[str | Path]) -> _Scores:
    """Judge finished runs."""
    runs: list[tuple[Run, str, list[str | Path]]] = []
    places: dict[tuple[str, str, int], str | Path] = {}
    for path in paths:
        run = load(path)
        name = run.data.get("sources", {}).get("data")
        if name not in _DATA:
            raise ValueError(f"table1: runs must be on {' or '.join(map(repr, _DATA))}, got {path} on {name!r}")
        first = places.setdefault((_model(run.recipe.name), name, run.seed), path)
        if first is not path:
            raise ValueError(
                f"table1: runs of one model must differ in their seeds, got seed {run.seed} in {first} and {path}"
            )
        _results([path])
        runs.append((run, name, [path]))
    mine = [work.score(*one) for one in runs[ranks.rank :: ranks.count]]
    scores: _Scores = {}
    for (run, name, _), score in zip(runs, _of_all(ranks, mine, len(runs)), strict=True):
        assert score is not None
        scores.setdefault((_model(run.recipe.name), name), []).append(score)
    return scores


def _of_trainings(
    work: "_Work", ranks: Ranks, data: Sequence[str], recipes: Sequence[str], seeds: Sequence[int]
) -> _Scores:
    """Train and judge."""
    of = {"mnist": recipes, "tfd": ["tfd2014"]}
    wanted = [(name, recipe, seed) for name in data for recipe in of[name] for seed in seeds]
    mine = wanted[ranks.rank :: ranks.count]
    with apart():
        trained = [work.train(*one, len(mine) - done) for done, one in enumerate(mine)]
    scores: _Scores = {}
    for (name, recipe, _), score in zip(wanted, _of_all(ranks, trained, len(wanted)), strict=True):
        if score is not None:
            scores.setdefault((_model(recipe), name), []).append(score)
    return scores


def _of_all(ranks: Ranks, mine: Sequence[Score | None], n: int) -> list[Score | None]:
    """The scores of n runs, of which each process has judged every `count`-th, in the order of the runs."""
    scores: list[Score | None] = [None] * n
    for rank, part in enumerate(ranks.collect([None if score is None else asdict(score) for score in mine])):
        scores[rank :: ranks.count] = [None if score is None else Score(**score) for score in part]
    return scores


def _model(recipe: str) -> str:
    return f"adversarial nets, {recipe.removesuffix('_phase2')}"


class _Work:
    """What is trained and judged for a table; each piece is kept in the folder and not done again."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        root: str | Path | None,
        progress: bool,
        budget: float | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.folder, self.device, self.root, self.progress, self.settings = folder, device, root, progress, settings
        self.missing: dict[str, str] = {}
        self.left = None if budget is None else 60 * budget  # seconds for the trainings that are still to come

    def train(self, data: str, recipe: str, seed: int, left: int) -> Score | None:
        """Train one run, of TFD both phases, and judge it. `left`: trainings that are still to come, this one included.

        Return None where it cannot be done, and note why.
        """
        if data in self.missing:
            return None
        common = {"seed": seed, "device": self.device, "root": self.root, **self.settings}
        path = self.folder / f"{data}-{recipe}-seed{seed}"
        phases: list[tuple[str, Path, dict[str, Any]]] = [(recipe, path, {})]
        if data == "tfd":
            phases.append((f"{recipe}_phase2", path.with_name(f"{path.name}-phase2"), {"first_phase": str(path)}))
        share = None if self.left is None else max(0.0, self.left) / left / len(phases)
        try:
            if share is not None and not path.exists():
                pygan.data.load(data, root=self.root)  # downloads what `plan` would only miss
                planned = plan(data, recipe, **common)
                one = planned.epoch_seconds + planned.evaluation_seconds
                if one > share:
                    self.missing[data] = (
                        f"{data}: an epoch of {recipe} takes {duration(one)} on this machine, and its share of the "
                        f"budget is {duration(share)}"
                    )
                    return None
            for name, out, more in phases:
                stop = None if share is None else _until(time.monotonic() + share - _trained_seconds(out))
                begun = RunFolder(out).holds_run()
                run = train(data, name, out, resume=begun, progress=self.progress, on_epoch=stop, **common, **more)
                if self.left is not None:
                    self.left -= _trained_seconds(out)
        except FileNotFoundError as error:
            self.missing[data] = str(error)
            return None
        return self.score(run, data, [out for _, out, _ in phases])

    def score(self, run: Run, data: str, paths: Sequence[str | Path]) -> Score:
        """Judge a finished run; `paths` are the folders of its phases."""
        results = _results(paths)
        about = {name: results[-1].get(name) for name in ("seed", "best_epoch", "stopped", "hardware")}
        for name in ("epochs", "seconds"):
            about[name] = sum(result[name] for result in results)
        about["path"] = str(paths[-1])
        with Task(f"table1: {_DATA[data]}, {run.recipe.name}, seed {run.seed}", show=self.progress):
            judges = [__version__, torch.__version__, self.device.type, *map(fingerprint.checksums, self._folds(data))]
            told = hashlib.sha256(json.dumps([about, results, judges]).encode()).hexdigest()
            return self._judge(
                f"score-{told:.16}", lambda: run.sample(run.recipe.evaluation_samples, seed=run.seed), data, about
            )

    def references(self, data: str) -> dict[str, dict[str, Any]]:
        """The `Score` of training images in place of samples and, in a full version, of k-means centroids."""

        def images() -> Tensor:
            return as_float(pygan.data.load(data, root=self.root).train.images)

        rows = {"training images in place of samples": lambda: training_samples(images())}
        if self.left is None:
            rows["k-means centroids of them"] = lambda: centroids(images())
        scores = {}
        for number, (name, make) in enumerate(rows.items()):
            with Task(f"table1: {_DATA[data]}, {name}", show=self.progress):
                scores[name] = asdict(self._judge(f"reference-{data}-{number}", make, data))
        return scores

    def keep(self, name: str, text: str) -> None:
        """Write a file of the table's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / name, text.encode())

    def _judge(self, name: str, make: Callable[[], Tensor], data: str, run: Mapping[str, Any] | None = None) -> Score:
        """Score samples [n, ...] by the authors' protocol, and keep the score by this name, once."""
        kept = self.folder / f"{name}.json"
        if kept.exists():
            return Score(**json.loads(kept.read_text()))
        samples = make()
        estimates: list[ParzenEstimate] = []
        for splits in self._folds(data):
            valid, test = (as_float(split.images) for split in (splits.valid, splits.test))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # The table has sigma; the grid's edge is no news here.
                window = ParzenWindow(samples.to(self.device)).fit(valid[:SIGMA_POINTS] if data == "mnist" else valid)
            estimates.append(window.score(test))
        means = [estimate.mean for estimate in estimates]
        error = estimates[0].standard_error if len(means) == 1 else statistics.stdev(means) / len(means) ** 0.5
        sigma = statistics.mean(estimate.sigma for estimate in estimates)
        score = Score(statistics.mean(means), error, sigma, len(samples), run)
        self.keep(kept.name, json.dumps(asdict(score)))
        return score

    def _folds(self, data: str) -> Iterator[Splits]:
        """What samples are judged by, one after the other."""
        for name in [data] if data == "mnist" else ["tfd", *(f"tfd_fold{fold}" for fold in range(1, FOLDS))]:
            yield pygan.data.load(name, root=self.root)


def _results(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The results of the phases of a run. Raises ValueError if one is not finished."""
    results = [result for path in paths if (result := read_result(RunFolder(path))) is not None]
    if len(results) < len(paths):
        raise ValueError(f"table1: {paths[-1]} must be a finished run; resume=True finishes it")
    return results


def _trained_seconds(path: Path) -> float:
    """The seconds that a run was trained so far; 0 if it has not begun."""
    folder = RunFolder(path)
    log = folder.read_log() if folder.holds_run() else []
    return float(log[-1]["seconds"]) if log else 0.0


def _until(end: float) -> Callable[[Run], bool]:
    """An `on_epoch` that ends a run after a moment of the monotonic clock."""
    return lambda run: time.monotonic() < end


def _published(mean: float, error: float) -> str:
    return f"{mean:g} +- {error:g}"


def _cell(row: Row) -> str:
    text = f"{row.mean:.1f} +- {row.standard_error:.1f}"
    if row.seeds_error is not None:
        text += f"; over {len(row.scores)} seeds +- {row.seeds_error:.1f}"
    return text


def _details(row: Row, score: Score, run: Mapping[str, Any]) -> str:
    epochs = f"{run['best_epoch']} of {run['epochs']}"
    cells = [
        row.model.removeprefix("adversarial nets, "),
        run["seed"],
        f"{score.mean:.1f} +- {score.standard_error:.1f}",
    ]
    cells += [f"{score.sigma:.3f}", epochs, duration(run["seconds"]), run["hardware"]]
    return f"| {' | '.join(map(str, cells))} |"
