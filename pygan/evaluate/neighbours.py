"""Two sets of points compared by nearest neighbours: what of the real data is covered, and what is made up.

All functions take points [n, ...] of any shape, flattened to [n, d]: pixels, or better the features of a classifier.
Distances are Euclidean, in float64, and taken a block of rows at a time, so that memory does not grow with n^2.
A point lies in a ball if its distance from the centre is at most the radius.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pygan.ops._checks import check_device, check_dtype, check_finite, check_shape, check_tensor
from pygan.progress import Task

__all__ = [
    "DensityCoverage",
    "PrecisionRecall",
    "TwoSampleTest",
    "density_coverage",
    "nearest",
    "nearest_neighbour_accuracy",
    "precision_recall",
    "two_sample_test",
]

_BLOCK = 1 << 22  # distances that are held at a time; 32 MiB
_DIRECT_BELOW = 16  # values per point up to which differences cost no more than a matrix product


@dataclass(frozen=True)
class PrecisionRecall:
    """Improved precision and recall.

    Attributes:
        precision: share of the fake points that lie in a ball of the real points, in [0, 1]: are samples realistic?
        recall: share of the real points that lie in a ball of the fake points, in [0, 1]: is all of the data covered?
        k: the ball around a point reaches to its k-th nearest neighbour in its own set.
    """

    precision: float
    recall: float
    k: int


@dataclass(frozen=True)
class DensityCoverage:
    """Density and coverage.

    Attributes:
        density: mean number of balls of the real points that a fake point lies in, divided by k; >= 0, and 1 on average
            if both sets come from one distribution.
        coverage: share of the real points with a fake point in their ball, in [0, 1].
        k: the ball around a real point reaches to its k-th nearest neighbour among the real points.
        ideal_coverage: what coverage is on average if both sets come from one continuous distribution.
    """

    density: float
    coverage: float
    k: int
    ideal_coverage: float


@dataclass(frozen=True)
class TwoSampleTest:
    """Leave-one-out accuracy of the 1-nearest-neighbour classifier that tells real from fake points.

    Attributes:
        accuracy: mean of the two below; 1/2 if both sets come from one distribution, 1 if they are far apart, and 0 if
            each fake point is a copy of a real one.
        real: share of the real points whose nearest neighbour is real.
        fake: share of the fake points whose nearest neighbour is fake.
    """

    accuracy: float
    real: float
    fake: float


def nearest(points: Tensor, references: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the distances, float64 [n, k] ascending, and indices, int64 [n, k], of the k nearest references.

    Args:
        points: floats [n, ...].
        references: floats [m, ...] with as many values per point, m >= k. Pass the training images to see whether
            samples are copies of them.
        k: number of neighbours, at least 1.

    Raises:
        TypeError: a set that is not a tensor of floats.
        ValueError: wrong shapes, two devices, a value that is not finite, or k outside of 1..m.
    """
    points, references = _flat("nearest", points=points, references=references)
    _check_k("nearest", "references", k, len(references))
    found = [square.topk(k, dim=1, largest=False) for _, square in _blocks(points, references)]
    return torch.cat([smallest.values for smallest in found]).sqrt(), torch.cat(
        [smallest.indices for smallest in found]
    )


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Return the improved precision and recall of Kynkaanniemi et al. 2019 (arXiv 1904.06991, section 2).

    Args:
        real: floats [n, ...], n > k.
        fake: floats [m, ...] with as many values per point, m > k. The paper takes m = n.
        k: which neighbour sets the radius of a ball. The paper's choice is 3.

    Raises:
        TypeError: a set that is not a tensor of floats.
        ValueError: wrong shapes, two devices, a value that is not finite, or k outside of 1..min(n, m) - 1.
    """
    real, fake = _flat("precision_recall", real=real, fake=fake)
    radius_real = _radii("precision_recall", "real", real, k)
    radius_fake = _radii("precision_recall", "fake", fake, k)
    realistic = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, square in _blocks(real, fake):
        realistic |= (square <= radius_real[rows, None]).any(0)
        covered[rows] = (square <= radius_fake).any(1)
    return PrecisionRecall(float(realistic.double().mean()), float(covered.double().mean()), k)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Return the density and coverage of Naeem et al. 2020 (arXiv 2002.09797, section 3).

    Args:
        real: floats [n, ...], n > k.
        fake: floats [m, ...] with as many values per point, m >= 1.
        k: which neighbour sets the radius of a ball. The paper's choice is 5.

    Raises:
        TypeError: a set that is not a tensor of floats.
        ValueError: wrong shapes, two devices, a value that is not finite, or k outside of 1..n - 1.
    """
    real, fake = _flat("density_coverage", real=real, fake=fake)
    radius = _radii("density_coverage", "real", real, k)
    balls, covered = 0, 0
    for rows, square in _blocks(real, fake):
        inside = square <= radius[rows, None]
        balls += int(inside.sum())
        covered += int(inside.any(1).sum())
    n, m = len(real), len(fake)
    missed = 1.0
    for i in range(1, k + 1):  # a real point is missed if its k nearest of all other points are real
        missed *= (n - i) / (n + m - i)
    return DensityCoverage(balls / (k * m), covered / n, k, 1 - missed)


def two_sample_test(real: Tensor, fake: Tensor) -> TwoSampleTest:
    """Return the leave-one-out accuracy of 1-nearest neighbours (Lopez-Paz and Oquab 2017, arXiv 1610.06545).

    Args:
        real, fake: floats [n, ...] each, n >= 2, as many points of both: else chance is not 1/2. A point at the same
            distance from both sets counts as nearer to the other one.

    Raises:
        TypeError: a set that is not a tensor of floats.
        ValueError: wrong shapes, two devices, a value that is not finite, or sets of different sizes.
    """
    real, fake = _flat("two_sample_test", real=real, fake=fake)
    if len(real) != len(fake):
        raise ValueError(f"two_sample_test: real and fake must have as many points, got {len(real)} and {len(fake)}")
    of_real, of_fake = _radii("two_sample_test", "real", real, 1), _radii("two_sample_test", "fake", fake, 1)
    to_real = torch.full_like(of_fake, torch.inf)
    to_fake = torch.empty_like(of_real)
    for rows, square in _blocks(real, fake):
        to_fake[rows] = square.amin(1)
        to_real = torch.minimum(to_real, square.amin(0))
    shares = [float((own < other).double().mean()) for own, other in ((of_real, to_fake), (of_fake, to_real))]
    return TwoSampleTest(sum(shares) / 2, *shares)


def nearest_neighbour_accuracy(points: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor) -> float:
    """Return the share of points, in [0, 1], whose nearest reference has their label.

    It is how Donahue et al. 2017 (arXiv 1605.09782, table 2) judge inferred noise, beside pixels.

    Args:
        points: floats [n, ...], such as the noise inferred from the test images.
        labels: int64 [n].
        references: floats [m, ...] with as many values per point, such as the noise inferred from the training images.
        reference_labels: int64 [m].

    Raises:
        TypeError, ValueError: as in `nearest`; ValueError for labels of another number than points.
    """
    for name, given, of in (("labels", labels, points), ("reference_labels", reference_labels, references)):
        if given.shape != of.shape[:1]:
            raise ValueError(f"nearest_neighbour_accuracy: {name} must have shape [{len(of)}], got {list(given.shape)}")
    _, indices = nearest(points, references)
    return float((reference_labels[indices[:, 0].to(reference_labels.device)] == labels).double().mean())


def _radii(op: str, name: str, points: Tensor, k: int) -> Tensor:
    """Return each point's squared distance from its k-th nearest neighbour among the others, [n]."""
    _check_k(op, f"other points of {name}", k, len(points) - 1)
    radii = torch.empty(len(points), dtype=torch.float64, device=points.device)
    for rows, square in _blocks(points, points):
        square[torch.arange(len(square)), torch.arange(rows.start, rows.stop)] = torch.inf  # not its own neighbour
        radii[rows] = square.topk(k, dim=1, largest=False).values[:, -1]  # five times as fast as kthvalue
    return radii


def _blocks(points: Tensor, references: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of `points` and their squared distances from all references, [rows, m].

    Inner products cancel where two points lie close together, and leave noise where they are equal: what is below the
    rounding error counts as 0.
    """
    size = max(1, _BLOCK // len(references))
    squares = references.square().sum(1)
    with Task("distances to neighbours", len(points)) as task:
        for begin in range(0, len(points), size):
            block = points[begin : begin + size]
            rows = slice(begin, begin + len(block))
            if points.shape[1] <= _DIRECT_BELOW:
                yield rows, torch.cdist(block, references, compute_mode="donot_use_mm_for_euclid_dist").square_()
            else:
                sums = block.square().sum(1, keepdim=True) + squares
                distances = torch.addmm(sums, block, references.T, alpha=-2)
                yield rows, distances.masked_fill_(distances <= 1e-13 * sums, 0)
            task.advance(len(block))


def _flat(op: str, **sets: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets of points as float64 [n, d], moved so that the mean of the second lies at the origin."""
    for name, points in sets.items():
        check_tensor(op, name, points)
        check_shape(op, name, points, "[n >= 1, ...]", points.ndim >= 2 and points.numel() > 0)
        check_dtype(op, name, points)
        check_finite(op, name, points)
    (first_name, first), (second_name, second) = sets.items()
    check_device(op, second_name, second, first_name, first)
    first, second = first.detach().flatten(1).double(), second.detach().flatten(1).double()
    check_shape(op, second_name, second, f"[m, {first.shape[1]}] when flattened", first.shape[1] == second.shape[1])
    centre = second.mean(0)
    return first - centre, second - centre


def _check_k(op: str, what: str, k: int, most: int) -> None:
    if not 1 <= k <= most:
        raise ValueError(f"{op}: k must be in 1..{most}, the number of {what}, got {k}")
