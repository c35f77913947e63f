"""Judging a generator by its samples: the Parzen-window log-likelihood of the 2014 paper, in nats."""

from pygan.evaluate.parzen import PAPER_SIGMAS, ParzenEstimate, ParzenWindow

__all__ = ["PAPER_SIGMAS", "ParzenEstimate", "ParzenWindow"]
