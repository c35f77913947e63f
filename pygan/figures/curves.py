"""How runs went, epoch by epoch: the curves of a log, of one run or of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pygan.data.names import printable
from pygan.figures.game import COLOURS
from pygan.record import Record, as_record, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pygan.run import Run


__all__ = ["RUN_COLOURS", "Line", "Panel", "draw_curves", "draw_panel", "panels", "short_names"]

_GREY = "#808080"
RUN_COLOURS = (COLOURS["discriminator"], "#D55E00", COLOURS["generator"], COLOURS["other"], _GREY)
"""Of several runs, in turn. All have a contrast of at least 2.9 to white, and of 3 to the dark page of a report."""

_UNNAMED = "_"  # matplotlib lists no line whose label begins so
_POINTS = 400  # of one curve; a longer one is drawn by the means of so many stretches
_WIDTH, _HEIGHT = 4.5, 2.7  # inches, of a panel


class Line(NamedTuple):
    """An entry of the history, what it is called, and how it is drawn; the colour is that of a run alone."""

    entry: str
    name: str
    colour: str = COLOURS["discriminator"]
    style: str = "-"


class Panel(NamedTuple):
    """One plot: its title, what its styles mean where colours stand for runs, its lines, the limits of its axis.

    Where all lines of a run would be the same, one is drawn, which is called `together`, if that is not empty.
    """

    title: str
    styles: str
    lines: tuple[Line, ...]
    limits: tuple[float | None, float | None] = (None, None)
    together: str = ""


def _players(
    title: str,
    discriminator: tuple[str, str],
    generator: tuple[str, str],
    limits: tuple[float | None, float | None] = (None, None),
    together: str = "",
) -> Panel:
    """A panel of the discriminator's numbers on data, solid, and the generator's or on its samples, dashed."""
    styles = f"solid: {discriminator[1]}{' or both' if together else ''}, dashed: {generator[1]}"
    lines = Line(*discriminator), Line(*generator, COLOURS["generator"], "--")
    return Panel(title, styles, lines, limits, together)


_PANELS = (
    Panel(
        "log-likelihood of validation images, nats",
        "dotted: training images",
        (Line("log_likelihood", "samples"), Line("reference", "training images", _GREY, ":")),
    ),
    _players("losses", ("d_loss", "discriminator"), ("g_loss", "generator")),
    _players("discriminator's output", ("d_real", "D(x)"), ("d_fake", "D(G(z))"), (0, 1)),
    Panel("sigmoid of D(x) - D(G(z)), mean over pairs", "", (Line("d_paired", "pairs"),), (0, 1)),
    Panel("critic's distance", "", (Line("distance", "distance"),)),
    Panel("spread of the samples, where 1 is that of the data", "", (Line("spread", "spread"),), (0, None)),
    _players(
        "learning rates",
        ("discriminator_lr", "discriminator"),
        ("generator_lr", "generator"),
        (0, None),
        "both players",
    ),
)
_NO_STATISTICS = {"epoch", "update", "seconds", "sigma"}  # of an entry of the history


def draw_curves(runs: Sequence[Run | Record | str | Path] | Run | str | Path, figure: Figure | None = None) -> Figure:
    """Draw the curves of runs, a panel for each kind of number; what no run has is left out.

    These are: the log-likelihood, with the score of training images as a dotted line and a dot at the best epoch; both
    losses; D(x) and D(G(z)), or the critic's distance; the spread of the samples; the learning rates. Of several runs
    each has a colour.

    Args:
        runs: at least one, or the folders of runs, which may still be training.
        figure: where to draw; None makes one, which pyplot does not know.

    Returns:
        The figure. `figure.savefig("curves.svg")` writes it; in a notebook it shows itself.

    Raises:
        FileNotFoundError: a folder that holds no run.
        ValueError: no run, a damaged folder, or no run that has completed an epoch.
    """
    records = [as_record(run) for run in listed(runs)]
    shown = panels(records)
    if not shown:
        paths = ", ".join(str(record.path) for record in records) or "no run"
        raise ValueError(f"draw_curves: runs must have at least one completed epoch, got {paths}")
    rows, places = -(-len(shown) // 2), {}
    if figure is None:
        from pygan.figures.canvas import ShownFigure

        height = _HEIGHT * rows
        figure = ShownFigure(figsize=(2 * _WIDTH, height))
        # To compute the layout would take as long as to draw the figure.
        places = {"left": 0.07, "right": 0.985, "bottom": 0.5 / height, "top": 1 - 0.45 / height, "hspace": 0.55}
    grid, wide = figure.add_gridspec(rows, 2, **places), len(shown) % 2  # of an odd number the first has a row
    for place, panel in enumerate(shown, start=wide):
        draw_panel(figure.add_subplot(grid[0, :] if place == wide == 1 else grid[divmod(place, 2)]), panel, records)
    return figure


def panels(records: Sequence[Record]) -> list[Panel]:
    """Return the panels for which some run has numbers; statistics of a user's own objective come last."""
    known = {line.entry for panel in _PANELS for line in panel.lines} | _NO_STATISTICS
    own = dict.fromkeys(name for record in records for entry in record.history[-1:] for name in entry.keys() - known)
    every = [*_PANELS, *(Panel(name, "", (Line(name, name),)) for name in sorted(own))]
    return [panel for panel in every if any(_points(r, line.entry)[0] for r in records for line in panel.lines)]


def draw_panel(axes: Axes, panel: Panel, records: Sequence[Record]) -> None:
    """Draw one panel. Of one run, the legend names the lines; of several it names the runs."""
    from matplotlib.ticker import MaxNLocator

    several = len(records) > 1
    for record, name, own in zip(records, short_names(records), cycle(RUN_COLOURS), strict=False):
        for i, line in enumerate(_distinct(panel, record)):
            x, y = _points(record, line.entry)
            if x:
                label = (name if i == 0 else _UNNAMED) if several else line.name
                colour = own if several else line.colour
                axes.plot(x, y, line.style, color=colour, lw=1.5, label=label, marker="." if len(x) == 1 else "")
        if panel.lines[0].entry == "log_likelihood" and (best := record.best()) is not None:
            axes.plot(best["epoch"], best["log_likelihood"], "o", color=own if several else panel.lines[0].colour)
    styles = f"\n({panel.styles})" if several and panel.styles else ""
    axes.set_title(panel.title + styles, fontsize=10, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    low, high = panel.limits
    if low is not None and high is None and (most := axes.dataLim.y1) > low:
        high = most + 0.05 * (most - low)  # matplotlib's margin is a share of what the lines span, which may be 0
    axes.set_ylim(low, high)
    axes.spines[["top", "right"]].set_visible(False)
    if several or len(panel.lines) > 1:
        for text in axes.legend(fontsize=9, frameon=False).get_texts():
            text.set_parse_math(False)  # names of runs may have dollars


def _distinct(panel: Panel, record: Record) -> tuple[Line, ...]:
    """The lines of a panel, or one in place of equal ones where it has a name."""
    first, *others = panel.lines
    points = _points(record, first.entry)
    if panel.together and all(_points(record, line.entry) == points for line in others):
        return (first._replace(name=panel.together),)
    return panel.lines


def short_names(records: Sequence[Record]) -> list[str]:
    """Return the names of the run folders, or their paths where names alone would be the same."""
    named = [printable(record.path.resolve().name) for record in records]
    if len(set(named)) < len(named):
        named = [printable(record.path) for record in records]
    return [f" {name}" if name.startswith(_UNNAMED) else name for name in named]


def _points(record: Record, entry: str) -> tuple[list[float], list[float]]:
    """The epochs that have this entry, and its values; both empty if none has."""
    if entry in ("generator_lr", "discriminator_lr"):
        pairs = [(e["epoch"], getattr(record.rates(e), entry)) for e in record.history]
    else:
        pairs = [(e["epoch"], e[entry]) for e in record.history if e.get(entry) is not None]
    size = -(-len(pairs) // _POINTS) or 1
    pieces = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    x, y = ([sum(pair[k] for pair in piece) / len(piece) for piece in pieces] for k in (0, 1))
    return x, y
