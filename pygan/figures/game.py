"""A game on the line, stage by stage: Figure 1 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pygan.ops._checks import check_shape, check_tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["COLOURS", "Stage", "draw_game"]

COLOURS = {
    "data": "#000000",
    "generator": "#009E73",
    "discriminator": "#0072B2",
    "optimal": "#E69F00",
    "other": "#CC79A7",
}
"""Colours that colour-blind readers can tell apart (Okabe and Ito 2008), by what they stand for in the figures."""


@dataclass(frozen=True)
class Stage:
    """One moment of a game on the line.

    Attributes:
        title: what is drawn above the panel.
        x: points of the line, [n], increasing.
        p_data: density of the data at x, [n].
        p_g: density of the generator's samples at x, [n].
        d: the discriminator's D(x), in [0, 1], [n].
        d_optimal: D*(x), in [0, 1], [n]; NaN where it is not to be drawn. None: not drawn at all.
        z: a few values of the noise, [m], in increasing order.
        g_z: G(z) for each of them, [m], in the unit of x.
    """

    title: str
    x: Tensor
    p_data: Tensor
    p_g: Tensor
    d: Tensor
    z: Tensor
    g_z: Tensor
    d_optimal: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises TypeError for what is no tensor, ValueError for a shape that does not fit."""
        for name, other in {"p_data": "x", "p_g": "x", "d": "x", "d_optimal": "x", "g_z": "z"}.items():
            value, like = getattr(self, name), getattr(self, other)
            if value is not None:
                check_tensor("Stage", other, like)
                check_tensor("Stage", name, value)
                ok = like.ndim == 1 and len(like) > 0 and value.shape == like.shape
                check_shape("Stage", name, value, f"[n] as {other}, {list(like.shape)}", ok)


def draw_game(stages: Sequence[Stage], figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Draw a game on the line, stage by stage, as Figure 1 of the paper.

    Above, the density of the data (dotted), the density of the generator's samples (solid), D (dashed) and D* (thin).
    Below, arrows from the noise z to x = G(z): they crowd where the generator's density is high. The density axis ends
    at twice the highest density of the data, so that a generator that collapses to a point leaves the rest readable.

    Args:
        stages: at least one; the panels share their axes.
        figure: where to draw; its layout should be "constrained", as that of
            `pyplot.figure(figsize=(11, 3.6), layout="constrained")`. None: a new figure, which pyplot does not know.

    Returns:
        The figure; `figure.savefig("figure1.svg")` writes it.

    Raises:
        ValueError: no stage.
    """
    from pygan.figures.canvas import new_figure

    if not stages:
        raise ValueError("draw_game: stages must hold at least one Stage, got none")
    if figure is None:
        figure = new_figure((2.75 * len(stages), 3.4))
    rows = figure.subplots(2, len(stages), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, stage in enumerate(stages):
        _draw_densities(rows[0, column], stage)
        _draw_mapping(rows[1, column], stage)
    rows[0, 0].set_ylabel("density;  D(x)")
    top = max(float(stage.p_data.max()) for stage in stages)
    rows[0, 0].set_ylim(0, max(1.1, 2 * top))
    rows[1, 0].set_ylabel("z", rotation=0, labelpad=8, y=0.9)
    curves = {curve.get_label(): curve for axes in rows[0] for curve in axes.lines}  # one entry for each name
    figure.legend(curves.values(), curves.keys(), loc="outside upper center", ncols=len(curves), frameon=False)
    return figure


def _draw_densities(axes: Axes, stage: Stage) -> None:
    """Both densities, D and D*."""
    x = stage.x.numpy(force=True)
    axes.set_title(stage.title)
    axes.plot(x, stage.p_data.numpy(force=True), ":", color=COLOURS["data"], lw=2, label="data")
    axes.plot(x, stage.p_g.numpy(force=True), "-", color=COLOURS["generator"], lw=2, label="generator")
    if stage.d_optimal is not None:
        axes.plot(x, stage.d_optimal.numpy(force=True), "-", color=COLOURS["optimal"], lw=1.2, label="D*, optimal")
    axes.plot(x, stage.d.numpy(force=True), "--", color=COLOURS["discriminator"], lw=2, label="D, trained")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_mapping(axes: Axes, stage: Stage) -> None:
    """Arrows from the noise, on a line above, to the samples, on the x axis; z is stretched to the width of x."""
    z, g_z, x = stage.z.numpy(force=True), stage.g_z.numpy(force=True), stage.x.numpy(force=True)
    width = (x[-1] - x[0]) / max(z[-1] - z[0], 1e-30)
    for start, end in zip(x[0] + (z - z[0]) * width, g_z, strict=True):
        arrow = {"arrowstyle": "-|>", "color": COLOURS["generator"], "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=(end, 0), xytext=(start, 1), arrowprops=arrow)
    axes.axhline(1, color="black", lw=0.8)
    axes.set(ylim=(0, 1.04), yticks=[], xlabel="x")
    axes.spines[["top", "right", "left"]].set_visible(False)
