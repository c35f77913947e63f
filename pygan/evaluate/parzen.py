"""Gaussian Parzen-window log-likelihood, as section 5 of Goodfellow et al. 2014 defines it."""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from pygan._terminal import warn
from pygan.evaluate.chunks import Chunks, Rows
from pygan.ops import parzen_logsumexp
from pygan.progress import Task
from pygan.settings import random_generator

__all__ = ["PAPER_SIGMAS", "ParzenEstimate", "ParzenWindow"]

PAPER_SIGMAS: tuple[float, ...] = tuple(np.logspace(-1, 0, 10).tolist())
"""The bandwidths that the authors' script tries: ten from 0.1 to 1, evenly spaced in the logarithm."""

_PAPER_SAMPLES = 10_000  # with fewer, a window scores less: no published figure compares

_GROUPS = 50  # of samples, drawn with replacement to see what another draw would have given


@dataclass(frozen=True)
class ParzenEstimate:
    """Mean log-density of a test set under a Parzen window, in nats.

    With fewer samples than the paper's 10,000 it cannot be compared with published figures, and its text says so.

    Attributes:
        mean: mean log-density over the test points.
        standard_error: as in the paper, the standard deviation over the test points divided by sqrt(n_test); NaN for a
            single point. It does not include the variation of the samples.
        sigma: the bandwidth.
        n_test, n_samples: number of test points and of samples.
        draws_spread: standard deviation of the mean over resampled draws of the samples; None unless requested.
        choice_spread: the same, with the bandwidth chosen again for each draw on resampled validation points.
    """

    mean: float
    standard_error: float
    sigma: float
    n_test: int
    n_samples: int
    draws_spread: float | None = None
    choice_spread: float | None = None

    def __str__(self) -> str:
        error = "" if math.isnan(self.standard_error) else f" +- {self.standard_error:.1f}"
        text = (
            f"{self.mean:.1f}{error} nats ({self.n_test} test points, {self.n_samples} samples, sigma {self.sigma:.3f})"
        )
        if self.draws_spread is not None:
            text += f"; spread over draws of the samples {self.draws_spread:.2f}"
        if self.choice_spread is not None:
            text += f", with sigma chosen anew {self.choice_spread:.2f}"
        if self.n_samples < _PAPER_SAMPLES:
            text += f"; published figures have {_PAPER_SAMPLES:,} samples and are not comparable"
        return text


class ParzenWindow:
    """The density p(x) = 1/N sum_i Normal(x; s_i, sigma^2 I) around N samples of a generator.

    Args:
        samples: [N, ...] floats, N >= 1; everything after the first axis is flattened to d values. A tensor, an array,
            a `numpy.memmap`, or an iterable of such chunks that can be read repeatedly, so that samples and points need
            not fit in memory. A list of single images is refused: stack them.
        group: a process group of torch.distributed (such as `torch.distributed.group.WORLD` under torchrun). The
            samples are distributed over its ranks: every rank passes the same samples, reads its own part of them,
            makes the same calls, and gets the complete result.

    Attributes:
        samples: as given.
        n_samples: N, the number of samples.
        sigma: the bandwidth that `fit` chose, or None; may be set by hand.

    Theis et al. 2015 (arXiv 1511.01844) show that in high dimension this estimate says little about the true likelihood
    or the quality of the samples: compare it only with estimates that were made in exactly the same way.
    """

    def __init__(self, samples: Rows, *, group: torch.distributed.ProcessGroup | None = None) -> None:
        rank, ranks = (0, 1) if group is None else (group.rank(), group.size())
        self.samples = samples
        # Held weakly: a gloo group that outlives destroy_process_group aborts the interpreter's exit.
        self._group = None if group is None else weakref.ref(group)
        self._samples = Chunks("samples", samples, rank, ranks)
        self.n_samples = self._samples.count
        if self.n_samples == 0:
            raise ValueError("ParzenWindow: samples must hold at least one sample, got 0")
        self.sigma: float | None = None
        self._fitted: tuple[Chunks, tuple[float, ...]] | None = None

    def log_density(self, x: Rows, sigma: float | Sequence[float] | Tensor | None = None) -> Tensor:
        """Return log p(x), normalised, in nats: [n] for one sigma, [S, n] for S sigmas in one pass over the distances.

        x is [n, ...] with d values per row, like the samples, and in any form that samples may have. Without `sigma`,
        that of the window is used. The result is on the device of the samples: float64 if x or the samples are float64
        or the samples come in several chunks, else float32.
        """
        sigma = self._own_sigma("log_density") if sigma is None else sigma
        sigmas = torch.as_tensor(sigma, dtype=torch.float64)
        if sigmas.ndim > 1 or not bool((sigmas > 0).all() and sigmas.isfinite().all()):
            raise ValueError(f"ParzenWindow: sigma must be positive and finite, one number or a sequence, got {sigma}")
        density = self._log_density(self._points("x", x), sigmas.reshape(-1))
        return density[0] if sigmas.ndim == 0 else density

    def score_samples(self, x: Rows) -> Tensor:
        """Return `log_density(x)`, [n], in nats; this is scikit-learn's name for it."""
        return self.log_density(x)

    def fit(self, valid: Rows, sigmas: float | Sequence[float] | Tensor | None = None, *, refine: bool = False) -> Self:
        """Set `sigma` to the bandwidth with the highest mean log-density of `valid` [n, ...]; return self.

        `sigmas` is one bandwidth or several. The default grid is the authors' (PAPER_SIGMAS); they used the first 1000
        validation points. Warns if the best bandwidth lies at the edge of the grid, since a better one may lie outside.
        `refine=True` also searches between the bandwidths of the grid and, if necessary, beyond it, to within .1 %.
        """
        grid = PAPER_SIGMAS if sigmas is None else _grid(sigmas)
        points = self._points("valid", valid)
        if points.count == 0 or len(grid) == 0:
            raise ValueError("ParzenWindow.fit: needs at least one validation point and one sigma")
        self.sigma, at_edge = self._best(points, grid)
        if refine:
            self.sigma = self._refined(points, self.sigma, grid)
        elif at_edge:
            warn(
                f"the best bandwidth, {self.sigma:.4g}, lies at the edge of the grid "
                f"[{min(grid):.4g}, {max(grid):.4g}]: a better one may lie outside"
            )
        self._fitted = points, grid
        return self

    def score(self, test: Rows, *, resamples: int = 0, seed: int = 0) -> ParzenEstimate:
        """Return the mean log-density of `test` [n, ...] at `sigma`, with its standard error.

        Refuses test points that `fit` has seen: a bandwidth tuned on the test set flatters the model.

        Args:
            test: the points, in any form that samples may have.
            resamples: if not 0, the number of resampled draws from which the estimate's spreads are taken: a draw picks
                50 groups of the samples with replacement. At least 2; for samples in one tensor or array.
            seed: of the resampling.
        """
        sigma = self._own_sigma("score")
        points = self._points("test", test)
        if points.count == 0:
            raise ValueError("ParzenWindow.score: test must hold at least one point, got 0")
        if self._fitted is not None and points.overlaps(self._fitted[0]):
            raise ValueError("ParzenWindow.score: test holds points on which fit chose sigma; use others")
        log_density = self._log_density(points, torch.tensor([sigma], dtype=torch.float64))[0].double()
        n = len(log_density)
        draws_spread, choice_spread = self._spreads(points, resamples, seed) if resamples else (None, None)
        return ParzenEstimate(
            mean=float(log_density.mean()),
            standard_error=float(log_density.std()) / math.sqrt(n) if n > 1 else math.nan,
            sigma=sigma,
            n_test=n,
            n_samples=self.n_samples,
            draws_spread=draws_spread,
            choice_spread=choice_spread,
        )

    def _own_sigma(self, caller: str) -> float:
        if self.sigma is None:
            raise RuntimeError(f"ParzenWindow.{caller}: no bandwidth yet; call fit(valid) first or set sigma")
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"ParzenWindow.{caller}: sigma must be positive and finite, got {self.sigma}")
        return float(self.sigma)

    def _points(self, name: str, rows: Rows) -> Chunks:
        points = Chunks(name, rows)
        if points.d != self._samples.d and points.count > 0:
            raise ValueError(
                f"ParzenWindow: {name} must have {self._samples.d} values a row, as the samples, got {points.d}"
            )
        return points

    def _log_density(self, points: Chunks, sigmas: Tensor) -> Tensor:
        with Task("log-likelihood", points.count * self._samples.count // self._samples.ranks) as task:
            parts = [self._log_sum(chunk, sigmas, task) for chunk in points]
        log_sum = torch.cat(parts, 1) if parts else torch.empty(len(sigmas), 0, dtype=torch.float64)
        if self._group is not None:
            log_sum = self._merged_over_ranks(log_sum)
        return self._normalised(log_sum, sigmas, self.n_samples)

    def _log_sum(self, points: Tensor, sigmas: Tensor, task: Task) -> Tensor:
        """The unnormalised log sums over this rank's samples, [S, n]; float64 once chunks are merged."""
        log_sum = None
        for samples in self._samples:
            part = _log_sum(points, samples, sigmas)
            task.advance(len(points) * len(samples))
            log_sum = part if log_sum is None else torch.logaddexp(log_sum.double(), part.double())
        if log_sum is None:  # a rank without samples
            log_sum = torch.full((len(sigmas), len(points)), -math.inf, dtype=torch.float64, device=points.device)
        return log_sum

    def _merged_over_ranks(self, log_sum: Tensor) -> Tensor:
        """Merged in the order of the ranks, so that every rank gets the same bits."""
        group = self._group() if self._group is not None else None
        if group is None:
            raise RuntimeError("ParzenWindow: the process group given as group has been destroyed")
        mine = log_sum.double().contiguous()
        parts = [torch.empty_like(mine) for _ in range(self._samples.ranks)]
        torch.distributed.all_gather(parts, mine, group=group)
        merged = parts[0]
        for part in parts[1:]:
            merged = torch.logaddexp(merged, part)
        return merged

    def _normalised(self, log_sum: Tensor, sigmas: Tensor, count: int) -> Tensor:
        log_normaliser = math.log(count) + self._samples.d * (sigmas.log() + math.log(2 * math.pi) / 2)
        return (log_sum.double() - log_normaliser[:, None].to(log_sum.device)).to(log_sum.dtype)

    def _best(self, points: Chunks, grid: Sequence[float]) -> tuple[float, bool]:
        """The grid's best bandwidth, and whether it lies at the grid's edge."""
        means = self._log_density(points, torch.tensor(grid, dtype=torch.float64)).double().mean(1).cpu()
        if not bool(means.isfinite().any()):
            if bool(means.isnan().all()):
                raise ValueError("ParzenWindow.fit: samples or valid hold NaN")
            raise ValueError(f"ParzenWindow.fit: no sigma of {list(grid)} gives a finite mean log-density")
        best = grid[int(means.nan_to_num(nan=-math.inf).argmax())]
        return best, len(grid) > 2 and best in (min(grid), max(grid))

    def _refined(self, points: Chunks, best: float, grid: Sequence[float]) -> float:
        """Ten bandwidths cost little more than one: grids of ten that close in on the best."""
        ratio = (max(grid) / min(grid)) ** (1 / (len(grid) - 1)) if max(grid) > min(grid) else 2.0
        for _ in range(100):
            fine = np.geomspace(best / ratio, best * ratio, 10).tolist()
            best, at_edge = self._best(points, fine)
            if not at_edge:
                ratio **= 2 / 9
            if ratio < 1.001:
                return best
        warn("ParzenWindow.fit: found no best sigma; are points of valid among the samples?")
        return best

    def _spreads(self, test: Chunks, resamples: int, seed: int) -> tuple[float, float | None]:
        """Standard deviations of the mean over resampled draws: with sigma as it is, and with sigma chosen anew."""
        if resamples < 2 or self._group is not None or not isinstance(self._samples.rows, Tensor | np.ndarray):
            raise ValueError(
                "ParzenWindow.score: resamples must be at least 2, and needs all samples in one tensor or array, "
                f"got {resamples}"
            )
        if self.n_samples < 2:
            raise ValueError("ParzenWindow.score: resamples needs at least two samples, got 1")
        assert self.sigma is not None
        grid = (self.sigma,) if self._fitted is None else (*self._fitted[1], self.sigma)
        sigmas = torch.tensor(grid, dtype=torch.float64)
        of_test = self._group_sums(test, sigmas)
        of_valid = None if self._fitted is None else self._group_sums(self._fitted[0], sigmas)
        sizes = torch.tensor(self._borders()).diff()
        generator = random_generator("ParzenWindow.score: seed", seed)
        fixed, chosen = [], []
        for _ in range(resamples):
            groups = torch.randint(len(of_test), (len(of_test),), generator=generator)
            drawn = int(sizes[groups].sum())
            means = self._normalised(of_test[groups].logsumexp(0), sigmas, drawn).mean(1)
            fixed.append(means[-1])
            if of_valid is not None:
                points = torch.randint(of_valid.shape[2], (of_valid.shape[2],), generator=generator)
                valid = self._normalised(of_valid[groups].logsumexp(0)[:-1, points], sigmas[:-1], drawn)
                chosen.append(means[valid.mean(1).argmax()])
        return float(torch.stack(fixed).std()), float(torch.stack(chosen).std()) if chosen else None

    def _group_sums(self, points: Chunks, sigmas: Tensor) -> Tensor:
        """Log sums over each of at most _GROUPS groups of samples, [groups, S, n], float64, on the CPU."""
        chunks, rows = list(points), self._samples.rows
        assert isinstance(rows, Tensor | np.ndarray)
        groups = []
        for begin, end in pairwise(self._borders()):
            group = torch.cat(list(Chunks("samples", rows[begin:end])))
            groups.append(torch.cat([_log_sum(chunk, group, sigmas).double().cpu() for chunk in chunks], 1))
        return torch.stack(groups)

    def _borders(self) -> list[int]:
        """Where the groups of samples begin, and the end of the last; their sizes differ by one at most."""
        parts = min(_GROUPS, self.n_samples)
        return [self.n_samples * part // parts for part in range(parts + 1)]


def _grid(sigmas: float | Sequence[float] | Tensor) -> tuple[float, ...]:
    values = torch.as_tensor(sigmas, dtype=torch.float64)
    if values.ndim > 1 or not bool((values > 0).all() and values.isfinite().all()):
        raise ValueError(f"ParzenWindow.fit: sigmas must be positive and finite, one or a sequence, got {sigmas}")
    return tuple(values.reshape(-1).tolist())


def _log_sum(points: Tensor, samples: Tensor, sigmas: Tensor) -> Tensor:
    """In the wider of the two dtypes, float32 at least."""
    dtype = torch.promote_types(points.dtype, samples.dtype)
    return parzen_logsumexp(points.to(samples.device, dtype), samples.to(dtype), sigmas.to(samples.device))
