"""Distances between two sets of feature vectors: between their Gaussians, and by a polynomial kernel.

On the features of one published Inception network they are called FID and KID. On any other features they are other
numbers, to be named after the features (see `pygan.evaluate.classifier_distances`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pygan.ops._checks import check_device, check_dtype, check_finite, check_shape, check_tensor

__all__ = ["frechet_distance", "kernel_distance"]

_ROWS = 1000  # of a kernel matrix that are held at a time


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return |mean_x - mean_y|^2 + trace(C_x + C_y - 2 (C_x C_y)^(1/2)), for means and covariances of two sets.

    It is the squared 2-Wasserstein distance between two Gaussians with these means and covariances (Dowson and Landau
    1982; Heusel et al. 2017, arXiv 1706.08500). Few points make it too large: compare only equal numbers of points.

    Args:
        x: floats [n, d], n >= 2.
        y: floats [m, d], m >= 2.

    Raises:
        TypeError: a set that is not a tensor of floats.
        ValueError: wrong shapes or two devices.
    """
    x, y = _checked("frechet_distance", x, y)
    root = _square_root(_covariance(x))
    cross = torch.linalg.eigvalsh(root @ _covariance(y) @ root).clamp_min_(0).sqrt().sum()
    variances = x.var(0).sum() + y.var(0).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + variances - 2 * cross)


def _covariance(x: Tensor) -> Tensor:
    return x.T.cov().reshape(x.shape[1], x.shape[1])  # of one column it would be a scalar


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy by the kernel (<a, b> / d + 1)^3.

    Gretton et al. 2012, equation 3, with the kernel of Binkowski et al. 2018 (arXiv 1801.01401), over all pairs and not
    over subsets. Its mean is 0 if both sets come from one distribution, so it may well be negative.

    Args:
        x: floats [n, d], n >= 2.
        y: floats [m, d], m >= 2.

    Raises:
        TypeError: a set that is not a tensor of floats.
        ValueError: wrong shapes or two devices.
    """
    x, y = _checked("kernel_distance", x, y)
    return _mean_kernel(x) + _mean_kernel(y) - 2 * _sum_kernel(x, y) / (len(x) * len(y))


def _mean_kernel(x: Tensor) -> float:
    """Return the mean of the kernel over all pairs of different points."""
    n, d = x.shape
    diagonal = float((x.square().sum(1) / d + 1).pow(3).sum())
    return (_sum_kernel(x, x) - diagonal) / (n * (n - 1))


def _sum_kernel(x: Tensor, y: Tensor) -> float:
    return sum(float((rows @ y.T / x.shape[1] + 1).pow_(3).sum()) for rows in x.split(_ROWS))


def _square_root(covariance: Tensor) -> Tensor:
    """Return the symmetric root of a covariance; eigenvalues that rounding made negative count as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _checked(op: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for name, points in (("x", x), ("y", y)):
        check_tensor(op, name, points)
        check_shape(
            op, name, points, "[n >= 2, d >= 1]", points.ndim == 2 and len(points) >= 2 and points.shape[1] >= 1
        )
        check_dtype(op, name, points)
        check_finite(op, name, points)
    check_shape(op, "y", y, f"[m, {x.shape[1]}]", x.shape[1] == y.shape[1])
    check_device(op, "y", y, "x", x)
    return x.detach().double(), y.detach().double()
