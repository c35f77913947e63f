"""Objectives: what both players minimise, from logits. One file for each family; `OBJECTIVES` has them by name."""

from pygan.objectives.base import Judged, Objective, slopes, squared_slopes
from pygan.objectives.logistic import NonSaturating, Saturating
from pygan.objectives.relativistic import Relativistic
from pygan.objectives.wasserstein import Wasserstein, WassersteinPenalty

__all__ = [
    "OBJECTIVES",
    "Judged",
    "NonSaturating",
    "Objective",
    "Relativistic",
    "Saturating",
    "Wasserstein",
    "WassersteinPenalty",
    "slopes",
    "squared_slopes",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "non_saturating": NonSaturating,
    "saturating": Saturating,
    "minimax": Saturating,  # the paper's word for the saturating game
    "wasserstein": Wasserstein,
    "wasserstein_penalty": WassersteinPenalty,
    "relativistic": Relativistic,
}
"""The objectives by name. A new one is one entry."""
