"""Distributions whose density and modes are known: what a GAN learns can be checked on them number by number.

grid = gaussians25()
x = grid.sample(1000, seed=0)         # [1000, 2], raw coordinates
grid.log_prob(x)                      # [1000], nats
unit = grid.in_unit_box()             # the same distribution in [0, 1], as `pygan.train` wants it
images, labels = as_images(unit, 1000, seed=0)      # [1000, 1, 1, 2] and the mode that each point came from
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pygan.data.batch import Batch
from pygan.data.splits import Source
from pygan.settings import random_generator

__all__ = [
    "DENSITIES",
    "LOADERS",
    "Density",
    "GaussianMixture",
    "SwissRoll",
    "Uniform",
    "as_images",
    "gaussian",
    "gaussians8",
    "gaussians25",
    "load",
    "mixture",
    "swiss_roll",
    "uniform",
]


class Density(ABC):
    """A distribution of points [n, d].

    Attributes:
        centres: float64 [K, d], the mode centres. K is 0 for a distribution without separate modes.
        low, high: the box. In practice every coordinate of a sample lies in [low, high]. Both are one number for all
            coordinates, so that the map to the unit box keeps circles round.
    """

    centres: Tensor
    low: float
    high: float

    def sample(self, n: int, seed: int) -> Tensor:
        """Return n independent points, float32 [n, d], from a generator of their own with this seed."""
        return self.sample_with_modes(n, seed)[0]

    @abstractmethod
    def sample_with_modes(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return n points, float32 [n, d], and the index of the mode that each was drawn from, int64 [n]."""

    def to_unit(self, x: Tensor) -> Tensor:
        """Return (x - low) / (high - low), which lies in [0, 1] for x in the box."""
        return (x - self.low) / (self.high - self.low)

    def from_unit(self, u: Tensor) -> Tensor:
        """Return low + (high - low) u, the inverse of `to_unit`."""
        return self.low + (self.high - self.low) * u

    @abstractmethod
    def in_unit_box(self) -> Density:
        """Return the distribution of `to_unit(x)`; its box is [0, 1]."""


@dataclass(frozen=True, eq=False)
class GaussianMixture(Density):
    """Gaussians with covariance std^2 I around each centre, all K of the same weight.

    Attributes:
        centres: float64 [K, d].
        std: standard deviation of each coordinate around its centre.
        low, high: the box, see `Density`. Points outside of it are possible, but 13 standard deviations away in the
            named distributions of this module.
    """

    centres: Tensor
    std: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.centres.ndim != 2 or self.centres.numel() == 0:
            raise ValueError(f"GaussianMixture: centres must have shape [K >= 1, d], got {list(self.centres.shape)}")
        if not (self.std > 0 and math.isfinite(self.std)):
            raise ValueError(f"GaussianMixture: std must be positive and finite, got {self.std}")
        _check_box("GaussianMixture", self.low, self.high)

    def sample_with_modes(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = random_generator("sample: seed", seed)
        modes = torch.randint(len(self.centres), (n,), generator=generator)
        noise = torch.randn(n, self.centres.shape[1], generator=generator, dtype=torch.float64)
        return (self.centres[modes] + self.std * noise).float(), modes

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, float64 [n], for points x [n, d]."""
        count, d = self.centres.shape
        _check_points("GaussianMixture", x, d)
        square = torch.cdist(
            x.double(), self.centres.to(x.device), compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        log_normaliser = math.log(count) + d * math.log(self.std * math.sqrt(2 * math.pi))
        return (-square / (2 * self.std**2)).logsumexp(1) - log_normaliser

    def in_unit_box(self) -> GaussianMixture:
        return GaussianMixture(self.to_unit(self.centres), self.std / (self.high - self.low), 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Uniform(Density):
    """The uniform distribution on [begin, end], d = 1."""

    begin: float
    end: float
    low: float
    high: float

    centres = torch.empty(0, 1, dtype=torch.float64)

    def __post_init__(self) -> None:
        if not self.begin < self.end:
            raise ValueError(f"Uniform: begin must be below end, got {self.begin} and {self.end}")
        _check_box("Uniform", self.low, self.high)

    def sample_with_modes(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = random_generator("sample: seed", seed)
        u = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return (self.begin + (self.end - self.begin) * u).float(), torch.zeros(n, dtype=torch.int64)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, float64 [n], for points x [n, 1]: -inf outside of [begin, end]."""
        _check_points("Uniform", x, 1)
        inside = (x[:, 0] >= self.begin) & (x[:, 0] <= self.end)
        return inside.double().log() - math.log(self.end - self.begin)

    def in_unit_box(self) -> Uniform:
        scale = self.high - self.low
        return Uniform((self.begin - self.low) / scale, (self.end - self.low) / scale, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class SwissRoll(Density):
    """A spiral in the plane: scale * (t cos t, t sin t), t ~ U(1.5 pi, 4.5 pi), plus noise N(0, std^2 I), plus low.

    The offset keeps the spiral in the middle of its box. The density has no closed form, so there is no `log_prob`.
    """

    scale: float
    std: float
    low: float
    high: float

    centres = torch.empty(0, 2, dtype=torch.float64)

    def sample_with_modes(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = random_generator("sample: seed", seed)
        t = math.pi * (1.5 + 3 * torch.rand(n, 1, generator=generator, dtype=torch.float64))
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        x = self.scale * t * torch.cat([t.cos(), t.sin()], 1) + self.std * noise
        return (x + (self.low + self.high) / 2).float(), torch.zeros(n, dtype=torch.int64)

    def in_unit_box(self) -> SwissRoll:
        width = self.high - self.low
        return SwissRoll(self.scale / width, self.std / width, 0.0, 1.0)


def gaussians8() -> GaussianMixture:
    """Return 8 Gaussians of std 0.02 on a ring of radius 2, the first at angle 0; box [-3, 3].

    Radius and std are those of Metz et al. 2017 (Unrolled GANs) and Gulrajani et al. 2017 (WGAN-GP, before their
    division by sqrt 2).
    """
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return GaussianMixture(2 * torch.stack([angles.cos(), angles.sin()], 1), 0.02, -3.0, 3.0)


def gaussians25() -> GaussianMixture:
    """Return 25 Gaussians of std 0.05 on the grid {-4, -2, 0, 2, 4}^2; box [-5, 5].

    As in Lin et al. 2018 (PacGAN) and Gulrajani et al. 2017 (WGAN-GP, before their division by 2 sqrt 2).
    """
    ticks = torch.arange(-4, 5, 2, dtype=torch.float64)
    return GaussianMixture(torch.cartesian_prod(ticks, ticks), 0.05, -5.0, 5.0)


def swiss_roll() -> SwissRoll:
    """Return the Swiss roll of scikit-learn, seen along its axis, with noise 0.25; box [-16, 16].

    As in Gulrajani et al. 2017 (WGAN-GP, before their division by 7.5).
    """
    return SwissRoll(1.0, 0.25, -16.0, 16.0)


def gaussian(mean: float = 0.0, std: float = 1.0) -> GaussianMixture:
    """Return N(mean, std^2), d = 1; the box is mean +- 13 std."""
    return mixture([mean], std)


def mixture(means: list[float], std: float) -> GaussianMixture:
    """Return Gaussians of the same weight and std around `means`, d = 1; the box has 13 std at either side."""
    centres = torch.tensor(means, dtype=torch.float64)[:, None]
    return GaussianMixture(centres, std, min(means) - 13 * std, max(means) + 13 * std)


def uniform(begin: float = 0.0, end: float = 1.0) -> Uniform:
    """Return U(begin, end), d = 1; the box is [begin, end]."""
    return Uniform(begin, end, begin, end)


DENSITIES: dict[str, Callable[[], Density]] = {
    "gaussian": gaussian,
    "gaussians2": partial(mixture, [-2.0, 2.0], 0.5),
    "gaussians8": gaussians8,
    "gaussians25": gaussians25,
    "swiss_roll": swiss_roll,
}
"""The distributions that can be trained on by name: two of the line, the others of the plane."""


def as_images(density: Density, n: int, seed: int) -> Batch:
    """Return n points as images, float32 [n, 1, 1, d] in [0, 1], with their modes as labels if there are modes.

    The points are mapped by `density.to_unit`, and clipped to [0, 1] if a Gaussian throws one out of its box.
    """
    x, modes = density.sample_with_modes(n, seed)
    images = density.to_unit(x.double()).float().clamp(0, 1)[:, None, None]
    return Batch(images, modes if len(density.centres) else None)


def load(name: str, root: str | Path | None = None) -> Source:
    """Return a distribution of `DENSITIES` as data: 50,000 training, 10,000 validation and 10,000 test points.

    The splits are drawn with the seeds 0, 1 and 2. `root` is not used.
    """
    density = DENSITIES[name]()
    train, valid, test = (as_images(density, n, seed) for seed, n in enumerate((50_000, 10_000, 10_000)))
    modes = len(density.centres)
    return Source(
        name,
        train,
        f"{name}: points of a known density, mapped from [{density.low:g}, {density.high:g}] to [0, 1]; 50,000 train, "
        "10,000 valid and 10,000 test, drawn with the seeds 0, 1 and 2",
        valid=valid,
        test=test,
        classes=tuple(map(str, range(modes))) if modes else None,
    )


LOADERS: dict[str, Callable[[str | Path | None], Source]] = {name: partial(load, name) for name in DENSITIES}
"""A loader for each of `DENSITIES`, of the kind that `pygan.data.NAMED` holds."""


def _check_box(what: str, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"{what}: low must be below high, got {low} and {high}")


def _check_points(what: str, x: Tensor, d: int) -> None:
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(f"{what}: x must have shape [n, {d}], got {list(x.shape)}")
