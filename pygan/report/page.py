"""The page: what its sections say of the runs, and the template that they are put into."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from pygan._version import __version__
from pygan.data.names import printable
from pygan.evaluate.references import CAVEAT
from pygan.figures.curves import short_names
from pygan.progress import duration
from pygan.recipes import Recipe, start_of
from pygan.record import Record
from pygan.report import charts
from pygan.report.subject import Subject

__all__ = ["render"]

_SECTIONS = {
    "result": "Result",
    "warnings": "Warnings",
    "curves": "Curves",
    "samples": "Samples",
    "neighbours": "Nearest training images",
    "interpolation": "Interpolation",
    "settings": "Settings",
    "machine": "Versions and hardware",
}
_UNKNOWN = "\N{EM DASH}"
_ABSENT = object()  # the value of a setting that there is not


def render(subjects: Sequence[Subject]) -> str:
    """Return the HTML of a page about some runs. Whatever comes from users is escaped."""
    records = [subject.record for subject in subjects]
    names = short_names(records)
    return _template().render(
        title=f"pygan: {names[0]}" if len(names) == 1 else f"pygan: {len(names)} runs",
        names=names,
        sections=_SECTIONS.items(),
        runs=[
            {
                "name": name,
                "subject": subject,
                "state": _state(subject.record),
                "weights": f", {subject.weights}" if subject.weights else "",
                "warnings": subject.record.warnings(),
            }
            for name, subject in zip(names, subjects, strict=True)
        ],
        results=_rows(records, _RESULTS) + _references(records),
        chart_of_results=charts.results(records),
        caveat=CAVEAT,
        charts=charts.curves(records),
        settings=_differences(records),
        machine=_rows(records, _MACHINE),
        written=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        version=__version__,
        css=(Path(__file__).parent / "page.css").read_text(),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html")


def _state(record: Record) -> str:
    """What a reader must know of a run that is not finished; "" of one that is."""
    if record.result is not None:
        return ""
    done = f"{len(record.history):,} of {record.recipe.epochs:,} epochs"
    judged = "" if record.judged() else " It has not been evaluated yet."
    return f"Not finished: {done}.{judged} If it is still training, reload this page after the next evaluation."


_Row = tuple[str, list[str]]
_Fact = Callable[[Record], Any]  # None where it is not known


def _rows(records: Sequence[Record], facts: Mapping[str, _Fact]) -> list[_Row]:
    """The facts that are known of some run, with a cell for each run."""
    rows = []
    for label, fact in facts.items():
        found = [fact(record) for record in records]
        if any(value is not None for value in found):
            rows.append((label, [_UNKNOWN if value is None else str(value) for value in found]))
    return rows


def _of_result(*names: str) -> _Fact:
    """An entry of result.json, or of a table in it."""

    def fact(record: Record) -> Any:
        value: Any = record.result
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return f"{value:,}" if isinstance(value, int) else value

    return fact


def _score(record: Record) -> str | None:
    result = record.result or {}
    mean, error = result.get("log_likelihood"), result.get("standard_error")
    if mean is None:
        return None
    return f"{mean:.1f} nats" if error is None else f"{mean:.1f} \N{PLUS-MINUS SIGN} {error:.1f} nats"


def _validation(record: Record) -> str | None:
    best = record.best()
    return None if best is None else f"{best['log_likelihood']:.1f} nats"


def _best_epoch(record: Record) -> str | None:
    best = record.best()
    return None if best is None else f"{best['epoch']:,} of {len(record.history):,}"


def _spread(record: Record) -> str | None:
    best = record.best()
    return None if best is None or best.get("spread") is None else f"{best['spread']:.2f}"


def _seconds(record: Record) -> str | None:
    seconds = (record.result or {}).get("seconds")
    return None if seconds is None else duration(seconds)


def _sigma(record: Record) -> str | None:
    sigma = (record.result or {}).get("sigma")
    return None if sigma is None else f"{sigma:.3g}"


_RESULTS: dict[str, _Fact] = {
    "run folder": lambda record: printable(record.path),
    "data": lambda record: record.data.get("name"),
    "recipe": lambda record: record.recipe.name,
    "log-likelihood of test images": _score,
    "log-likelihood of validation images": _validation,
    "best epoch": _best_epoch,
    "spread of the samples (1 is that of the data)": _spread,
    "bandwidth sigma": _sigma,
    "samples in the window": _of_result("n_samples"),
    "test images": _of_result("n_test"),
    "training time": _seconds,
    "ended because": _of_result("stopped"),
}
_MACHINE: dict[str, _Fact] = {
    "pygan": _of_result("versions", "pygan"),
    "torch": _of_result("versions", "torch"),
    "Python": _of_result("versions", "python"),
    "hardware": _of_result("hardware"),
    "threads": lambda record: record.threads,
    "seed": lambda record: record.seed,
    "data": lambda record: record.data.get("protocol"),
}


def _references(records: Sequence[Record]) -> list[_Row]:
    """What other images score in place of samples."""
    rows: dict[str, _Fact] = {}
    for name in dict.fromkeys(name for record in records for name in record.references()):

        def fact(record: Record, name: str = name) -> str | None:
            value = record.references().get(name)
            return None if value is None else f"{value:.1f} nats"

        rows[f"in place of samples: {name}"] = fact
    return _rows(records, rows)


def _differences(records: Sequence[Record]) -> list[_Row]:
    """The settings in which a run differs from its recipe: its value, and the recipe's where that is another."""
    pairs = [(record.recipe.flat(), _start(record).flat()) for record in records]
    names = dict.fromkeys(n for own, start in pairs for n, value in own.items() if value != start.get(n, _ABSENT))
    return [(name, [_cell(own, start, name) for own, start in pairs]) for name in names if name != "name"]


def _start(record: Record) -> Recipe:
    """The recipe that a run's settings started from, fitted to its data; without one, the run's own."""
    shape, images = record.data["shape"], record.data.get("train")
    return (None if images is None else start_of(record.recipe, shape, images)) or record.recipe


def _cell(own: Mapping[str, Any], start: Mapping[str, Any], name: str) -> str:
    if name not in own:
        return _UNKNOWN
    value, before = own[name], start.get(name, _ABSENT)
    return _shown(value) if before in (value, _ABSENT) else f"{_shown(value)} ({_shown(before)})"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)
