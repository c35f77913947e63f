"""Mode coverage: how many of the known modes of the data a generator finds, and how evenly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pygan.evaluate.classifier import Classifier
from pygan.ops._checks import check_shape

__all__ = ["ModeCoverage", "class_modes", "gaussian_modes", "stacked_digit_modes"]


@dataclass(frozen=True)
class ModeCoverage:
    """How samples spread over known modes.

    Attributes:
        found: number of modes with at least one sample.
        modes: number of modes there are.
        near: share of the samples that count as belonging to a mode; 1 where a classifier assigns each of them.
        kl: KL(samples' distribution over the modes, uniform) in nats, over the samples that belong to a mode: from 0 to
            log(modes); NaN if there are none. n perfect samples have about (modes - 1) / 2n, not 0.
        counts: int64 [modes], number of samples of each mode.
    """

    found: int
    modes: int
    near: float
    kl: float
    counts: Tensor

    def __str__(self) -> str:
        return f"{self.found} of {self.modes} modes, {self.near:.1%} of the samples near one, KL {self.kl:.3f} nats"


def gaussian_modes(samples: Tensor, centres: Tensor, std: float, within: float = 3.0) -> ModeCoverage:
    """Return the modes found and the share of samples near one (Srivastava et al. 2017, VEEGAN).

    A sample belongs to its nearest centre if it lies within `within` standard deviations of it. Of the mixture itself
    in two dimensions, 1 - exp(-9/2) = 98.9 % of the points lie within 3.

    Args:
        samples: [n, ...] floats with d values per sample, in the coordinates of `centres`; n >= 1. A sample that is not
            finite is near no mode.
        centres: [K, d].
        std: standard deviation of each coordinate around a centre.
        within: radius in standard deviations.

    Raises:
        ValueError: samples that do not have d values each, or none.
    """
    centres = centres.to(samples.device, torch.float64)
    d = centres.shape[1]
    fits = samples.ndim >= 2 and len(samples) > 0 and samples[0].numel() == d
    check_shape("gaussian_modes", "samples", samples, f"[n >= 1, ...] with {d} values per sample", fits)
    points = samples.detach().flatten(1).double()
    distance, mode = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    near = distance <= within * std
    return _coverage(mode[near], len(centres), len(points))


def class_modes(classes: Tensor, modes: int) -> ModeCoverage:
    """Return how samples spread over classes: `classes`, int64 [n >= 1] in 0..modes - 1, is what a classifier says."""
    check_shape("class_modes", "classes", classes, "[n >= 1]", classes.ndim == 1 and len(classes) > 0)
    if int(classes.min()) < 0 or int(classes.max()) >= modes:
        raise ValueError(
            f"class_modes: classes must be in 0..{modes - 1}, got {int(classes.min())}..{int(classes.max())}"
        )
    return _coverage(classes, modes, len(classes))


def stacked_digit_modes(images: Tensor, classifier: Classifier) -> ModeCoverage:
    """Return how many of the 1,000 modes of stacked MNIST `images` show (Metz et al. 2017, Unrolled GANs).

    Args:
        images: [n, 3, H, W], uint8 or float32 in [0, 1]; each channel is one digit.
        classifier: of single digits [1, H, W] into 10 classes, by `train_classifier`. Its errors move samples into
            modes that they do not show, so `found` is a little too high for a generator that misses modes.

    Raises:
        ValueError: images without three channels, or a classifier of other classes.
    """
    check_shape("stacked_digit_modes", "images", images, "[n >= 1, 3, H, W]", images.ndim == 4 and images.shape[1] == 3)
    if classifier.classes != 10:
        raise ValueError(f"stacked_digit_modes: classifier must know 10 classes, got {classifier.classes}")
    a, b, c = (classifier.predict(images[:, i : i + 1]) for i in range(3))
    return class_modes(100 * a + 10 * b + c, 1000)


def _coverage(belongs: Tensor, modes: int, n: int) -> ModeCoverage:
    counts = torch.bincount(belongs, minlength=modes).cpu()
    share = counts.double() / counts.sum()
    kl = float(torch.special.xlogy(share, share * modes).sum())
    return ModeCoverage(int((counts > 0).sum()), modes, len(belongs) / n, kl, counts)
