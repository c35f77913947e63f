"""Figures that need no pyplot and no display, and that show themselves in a notebook."""

import io
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

__all__ = ["ShownFigure", "new_figure", "own_style", "picture"]

_NO_METADATA: dict[str, dict[str, Any]] = {  # of the program and the moment
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
}


class ShownFigure(Figure):
    """A figure that a notebook shows where it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        return picture(self, "png")


def new_figure(inches: tuple[float, float]) -> ShownFigure:
    """Return an empty figure of this width and height; what is drawn into it is laid out without overlaps."""
    return ShownFigure(figsize=inches, layout="constrained")


def own_style(changes: Mapping[str, Any] | None = None) -> AbstractContextManager[None]:
    """Within this context figures look as matplotlib's defaults and these changes say, whatever the user has set."""
    return matplotlib.style.context(["default", dict(changes or {})])


def picture(figure: Figure, form: str, dpi: int = 100) -> bytes:
    """Return the figure as the content of a "png" or "svg" file, the same for the same figure; dpi is of a PNG."""
    content = io.BytesIO()
    # Text stays text, so that an SVG can be searched and read aloud, and ids do not depend on the process.
    own: Any = {"svg.fonttype": "none", "svg.hashsalt": "pygan"}
    with matplotlib.rc_context(own), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks, in the name of a run
        figure.savefig(content, format=form, dpi=dpi, metadata=_NO_METADATA[form])
    return content.getvalue()
