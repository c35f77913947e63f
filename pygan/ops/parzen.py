"""The Parzen-window estimate's inner sum (section 5 of the paper)."""

from collections.abc import Sequence

from torch import Tensor

from pygan.ops import reference

__all__ = ["parzen_logsumexp"]


def parzen_logsumexp(x: Tensor, samples: Tensor, sigmas: Tensor | Sequence[float]) -> Tensor:
    """log sum_i exp(-|x - s_i|^2 / (2 sigma^2)): x [n, d], samples [N, d], sigmas [S] -> [S, n]."""
    return reference.parzen_logsumexp(x, samples, sigmas)
