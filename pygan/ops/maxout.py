"""Maxout units (Goodfellow et al. 2013), the hidden layers of the paper's discriminators."""

from torch import Tensor

from pygan.ops import reference

__all__ = ["maxout", "maxout_pool"]


def maxout(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """max_j (x . weight[u, j] + bias[u, j]): x [..., in], weight [units, pieces, in] -> [..., units]."""
    return reference.maxout(x, weight, bias)


def maxout_pool(x: Tensor, pieces: int) -> Tensor:
    """Maximum over each group of `pieces` channels: x [batch, units * pieces, ...] -> [batch, units, ...]."""
    return reference.maxout_pool(x, pieces)
