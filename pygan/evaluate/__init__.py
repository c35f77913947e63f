"""Judging a generator by its samples: the Parzen-window log-likelihood of the 2014 paper, in nats."""

from pygan.evaluate.parzen import PAPER_SIGMAS, ParzenEstimate, ParzenWindow

__all__ = ["CAVEAT", "PAPER_SIGMAS", "ParzenEstimate", "ParzenWindow", "reference_rows"]


def __getattr__(name: str) -> object:
    if name in ("CAVEAT", "reference_rows"):  # scikit-learn is slow to import
        from pygan.evaluate import references

        return getattr(references, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
