"""The charts of a page: SVG that stands in the HTML itself, so that its text has the colour of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pygan.figures.canvas import new_figure, own_style, picture
from pygan.figures.curves import RUN_COLOURS, draw_panel, panels, short_names
from pygan.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Chart", "curves", "results"]

_INK = "#123456"  # is replaced by the colour of the page's text
_STYLE = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "text.parse_math": False,  # names of runs may have dollars
}
_SIZE = (4.6, 2.7)  # inches; a page scales them to its width
_PLACE = (0.13, 0.18, 0.85, 0.67)  # of the axes in a chart of curves; a computed layout takes twice the time


class Chart(NamedTuple):
    """What it shows, for those who do not see it, and the SVG element."""

    alt: str
    svg: str


def curves(records: Sequence[Record]) -> list[Chart]:
    """Return a chart for each kind of number that the runs have logged."""
    charts = []
    with own_style(_STYLE):
        for i, panel in enumerate(panels(records)):
            figure = Figure(figsize=_SIZE)
            axes = figure.add_axes(_PLACE)
            draw_panel(axes, panel, records)
            charts.append(_chart(f"Curves over the epochs, {panel.title}: {_ends(axes)}", figure, f"curve{i}"))
    return charts


def results(records: Sequence[Record]) -> Chart | None:
    """Return the test log-likelihood of finished runs with its standard error, among its reference rows."""
    rows: list[tuple[str, float, float | None, str]] = []
    for i, (record, name) in enumerate(zip(records, short_names(records), strict=True)):
        score = (record.result or {}).get("log_likelihood")
        if record.result is not None and score is not None:
            rows.append((name, score, record.result.get("standard_error"), RUN_COLOURS[i % len(RUN_COLOURS)]))
            rows += [(row, value, None, _INK) for row, value in record.references().items()]
    if not rows:
        return None
    with own_style(_STYLE):
        figure = new_figure((_SIZE[0], 0.7 + 0.26 * len(rows)))
        axes = figure.add_subplot()
        for y, (_, score, error, colour) in enumerate(rows):
            filled = "none" if colour == _INK else colour
            axes.errorbar(score, y, xerr=error, fmt="o", color=colour, capsize=4, markerfacecolor=filled)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(rows))
        axes.set_xlabel("log-likelihood of test images, nats")
        axes.spines[["top", "right"]].set_visible(False)
        said = (f"{n} {v:.1f}" + (f" +- {e:.1f}" if e is not None else "") for n, v, e, _ in rows)
        return _chart(f"Log-likelihood of test images, nats: {'; '.join(said)}", figure, "results")


def _ends(axes: Axes) -> str:
    """Where each curve begins and ends, in words."""
    said = ((str(line.get_label()), np.asarray(line.get_ydata())) for line in axes.lines if line.get_marker() != "o")
    return "; ".join(f"{name.strip('_') or 'dashed or dotted'} from {y[0]:.3g} to {y[-1]:.3g}" for name, y in said)


def _chart(alt: str, figure: Figure, prefix: str) -> Chart:
    svg = picture(figure, "svg").decode()
    return Chart(alt, re.sub("<[^>]*>", lambda tag: _adapt(tag[0], prefix), svg[svg.index("<svg") :]))


def _adapt(tag: str, prefix: str) -> str:
    """A tag of an SVG with the page's colour and font, and ids that no other chart of the page has."""
    tag = re.sub(r"font-family: [^;\"]*; ", "", tag.replace(_INK, "currentColor"))
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", tag)
