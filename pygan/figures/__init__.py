"""Figures of the paper and of runs, drawn with matplotlib, which is imported when the first one is drawn."""

from pygan.figures.curves import draw_curves
from pygan.figures.game import COLOURS, Stage, draw_game
from pygan.figures.paper import draw_interpolation, draw_samples, paper, play_on_the_line

__all__ = [
    "COLOURS",
    "Stage",
    "draw_curves",
    "draw_game",
    "draw_interpolation",
    "draw_samples",
    "paper",
    "play_on_the_line",
]
