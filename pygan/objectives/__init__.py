"""Objectives: what both players minimise, from logits. One file for each family; `OBJECTIVES` has them by name."""

from pygan.objectives.base import Judged, Objective, squared_slopes
from pygan.objectives.logistic import NonSaturating, Saturating

__all__ = ["OBJECTIVES", "Judged", "NonSaturating", "Objective", "Saturating", "squared_slopes"]

OBJECTIVES: dict[str, type[Objective]] = {
    "non_saturating": NonSaturating,
    "saturating": Saturating,
    "minimax": Saturating,  # the paper's word for the saturating game
}
