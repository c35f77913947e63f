"""Gaussian Parzen-window log-likelihood, as section 5 of Goodfellow et al. 2014 defines it."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pygan.ops import parzen_logsumexp

__all__ = ["PAPER_SIGMAS", "ParzenEstimate", "ParzenWindow"]

PAPER_SIGMAS: tuple[float, ...] = tuple(np.logspace(-1, 0, 10).tolist())
"""The bandwidths that the authors' script tries: ten from 0.1 to 1, evenly spaced in the logarithm."""


@dataclass(frozen=True)
class ParzenEstimate:
    """Mean log-density of a test set under a Parzen window, in nats.

    `standard_error` is the paper's: the standard deviation over test points divided by sqrt(n_test).
    """

    mean: float
    standard_error: float
    sigma: float
    n_test: int
    n_samples: int

    def __str__(self) -> str:
        return (
            f"{self.mean:.1f} +- {self.standard_error:.1f} nats "
            f"({self.n_test} test points, {self.n_samples} samples, sigma {self.sigma:.3f})"
        )


class ParzenWindow:
    """The density p(x) = 1/N sum_i Normal(x; s_i, sigma^2 I) around N samples of a generator.

    Args:
        samples: [N, ...] floats, N >= 1; everything after the first axis is flattened to d values.

    Attributes:
        samples: [N, d] tensor.
        sigma: the bandwidth that `fit` chose, or None; may be set by hand.

    Theis et al. 2015 (arXiv 1511.01844) show that in high dimension this estimate says little about either the true
    likelihood or the look of the samples: compare it only with estimates made in exactly the same way.
    """

    def __init__(self, samples: Tensor | np.ndarray[Any, Any]) -> None:
        self.samples = _rows("samples", samples)
        if len(self.samples) == 0:
            raise ValueError("ParzenWindow: samples must hold at least one sample, got 0")
        self.sigma: float | None = None
        self._fitted_on: Tensor | None = None

    def log_density(self, x: Tensor | np.ndarray[Any, Any], sigma: float | Sequence[float] | Tensor) -> Tensor:
        """Normalised log p(x) in nats: [n] for one sigma, [S, n] for S sigmas in one pass over the distances.

        x is [n, ...] with the samples' number d of values a row.
        """
        x = self._points("x", x)
        sigmas = torch.as_tensor(sigma, dtype=torch.float64)
        if sigmas.ndim > 1 or not bool((sigmas > 0).all() and sigmas.isfinite().all()):
            raise ValueError(f"ParzenWindow: sigma must be positive and finite, one number or a sequence, got {sigma}")
        log_sum = parzen_logsumexp(x, self.samples, sigmas.reshape(-1).to(x.device))
        count, d = self.samples.shape
        log_normaliser = math.log(count) + d * (sigmas.reshape(-1, 1).log() + math.log(2 * math.pi) / 2)
        density = (log_sum.double() - log_normaliser.to(log_sum.device)).to(log_sum.dtype)
        return density[0] if sigmas.ndim == 0 else density

    def fit(self, valid: Tensor | np.ndarray[Any, Any], sigmas: Sequence[float] | None = None) -> Self:
        """Set `sigma` to the bandwidth of the grid with the highest mean log-density of `valid` [n, ...]; return self.

        The default grid is the authors' (PAPER_SIGMAS); they used the first 1000 validation points. Warns when the best
        bandwidth lies at the grid's edge, for then a better one may lie outside.
        """
        grid = PAPER_SIGMAS if sigmas is None else tuple(float(sigma) for sigma in sigmas)
        points = self._points("valid", valid)
        if len(points) == 0 or len(grid) == 0:
            raise ValueError("ParzenWindow.fit: needs at least one validation point and one sigma")
        means = self.log_density(points, grid).double().mean(dim=1).cpu()
        if not bool(means.isfinite().any()):
            raise ValueError(f"ParzenWindow.fit: no sigma of {list(grid)} gives a finite mean log-density")
        best = int(means.nan_to_num(nan=-math.inf).argmax())
        if len(grid) > 2 and grid[best] in (min(grid), max(grid)):
            warnings.warn(
                f"the best bandwidth, {grid[best]:.4g}, lies at the edge of the grid "
                f"[{min(grid):.4g}, {max(grid):.4g}]: a better one may lie outside",
                stacklevel=2,
            )
        self.sigma = grid[best]
        self._fitted_on = points
        return self

    def score(self, test: Tensor | np.ndarray[Any, Any]) -> ParzenEstimate:
        """Mean log-density of `test` [n, ...] at `sigma`, with its standard error.

        Refuses test points that `fit` has seen: a bandwidth tuned on the test set flatters the model.
        """
        if self.sigma is None:
            raise RuntimeError("ParzenWindow.score: no bandwidth yet; call fit(valid) first or set sigma")
        points = self._points("test", test)
        if len(points) == 0:
            raise ValueError("ParzenWindow.score: test must hold at least one point, got 0")
        if self._fitted_on is not None and _share_points(points, self._fitted_on):
            raise ValueError("ParzenWindow.score: test holds points on which fit chose sigma; use others")
        log_density = self.log_density(points, self.sigma).double()
        n = len(log_density)
        return ParzenEstimate(
            mean=float(log_density.mean()),
            standard_error=float(log_density.std()) / math.sqrt(n) if n > 1 else math.nan,
            sigma=self.sigma,
            n_test=n,
            n_samples=len(self.samples),
        )

    def _points(self, name: str, points: Tensor | np.ndarray[Any, Any]) -> Tensor:
        rows = _rows(name, points)
        if rows.shape[1] != self.samples.shape[1]:
            raise ValueError(
                f"ParzenWindow: {name} must have {self.samples.shape[1]} values a row, as the samples, "
                f"got {rows.shape[1]}"
            )
        return rows.to(self.samples)


def _rows(name: str, array: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """`array` [n, ...] as a tensor [n, d] of floats, without a copy where none is needed."""
    tensor = torch.as_tensor(array).detach()
    if not tensor.is_floating_point():
        raise TypeError(f"ParzenWindow: {name} must be floating-point (pixels in [0, 1]), got {tensor.dtype}")
    if tensor.ndim < 2:
        raise ValueError(f"ParzenWindow: {name} must have shape [n, ...], got {list(tensor.shape)}")
    return tensor.flatten(1)


def _share_points(a: Tensor, b: Tensor) -> bool:
    """Whether two [n, d] tensors overlap in memory or are equal."""

    def span(t: Tensor) -> tuple[int, int]:
        extent = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) + 1
        return t.data_ptr(), t.data_ptr() + extent * t.element_size()

    (a_start, a_stop), (b_start, b_stop) = span(a), span(b)
    return (a_start < b_stop and b_start < a_stop) or torch.equal(a, b)
