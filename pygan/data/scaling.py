"""The scale on which the players see pixels, and the way back to a picture.

    scale = make_scale("gcn", splits.train)
    values = scale.apply(as_float(images))     # what the discriminator sees and the generator produces
    pictures = scale.invert(values)            # [0, 1] again
    scale = SCALES[scale.name](**scale.state())

A new scale is a subclass of `Scale` and one entry in `SCALES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from pygan._nearest import nearest
from pygan.data.batch import Batch
from pygan.data.splits import as_float

__all__ = ["SCALES", "Gcn", "Scale", "Signed", "Standard", "Unit", "make_scale"]

_GCN_NORM = 55.0  # of every image; the root mean square of 3 x 32 x 32 values is then 0.99
_GCN_FLAT = 1e-6  # root mean square contrast below which an image counts as constant: rounding, not a picture
_CHUNK = 1024  # images measured at a time


@dataclass(frozen=True)
class Scale(ABC):
    """A map from pictures in [0, 1] to the values that the players see. Its fields are its whole state.

    Attributes:
        name: its key in `SCALES`.
        exact: whether `invert` undoes `apply`, up to rounding. If not, `invert` gives a typical picture.
        range: the lowest and the highest value that the players may see, or None if there is no bound.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]
    range: ClassVar[tuple[float, float] | None] = None

    @classmethod
    def fit(cls, train: Batch) -> Self:
        """Return the scale for these training images; most scales need nothing from them."""
        return cls()

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """Return the values that the players see for images [n, C, H, W], floating-point in [0, 1]."""

    @abstractmethod
    def invert(self, values: Tensor) -> Tensor:
        """Return pictures for values [n, C, H, W], floating-point; in [0, 1] if the values lie in the scale's range."""

    def state(self) -> dict[str, float]:
        """Return the keyword arguments that build this scale again."""
        return asdict(self)


@dataclass(frozen=True)
class Unit(Scale):
    """Pixels in [0, 1], as they are."""

    name = "unit"
    exact = True
    range = (0.0, 1.0)

    def apply(self, images: Tensor) -> Tensor:
        """Return the images themselves."""
        return _checked(images)

    def invert(self, values: Tensor) -> Tensor:
        """Return the values themselves."""
        return values


@dataclass(frozen=True)
class Signed(Scale):
    """Pixels in [-1, 1], the range of tanh (Radford et al. 2016, section 3)."""

    name = "signed"
    exact = True
    range = (-1.0, 1.0)

    def apply(self, images: Tensor) -> Tensor:
        """Return 2 images - 1."""
        return 2 * _checked(images) - 1

    def invert(self, values: Tensor) -> Tensor:
        """Return (values + 1) / 2."""
        return (values + 1) / 2


@dataclass(frozen=True)
class Standard(Scale):
    """All values of the training images together have mean 0 and standard deviation 1. There is no bound.

    It suits points in the plane, and generators with a linear output.

    Attributes:
        mean: of all values of the training images, in [0, 1].
        std: their standard deviation; 1 if they are all alike.
    """

    mean: float
    std: float
    name = "standard"
    exact = True

    @classmethod
    def fit(cls, train: Batch) -> Self:
        """Measure the mean and the standard deviation of all values of the training images."""
        if len(train) == 0:
            raise ValueError("standard: needs at least one training image, got none")

        def chunks() -> Iterator[Tensor]:
            return (as_float(images).double() for images in train.images.split(_CHUNK))

        mean = sum(chunk.sum().item() for chunk in chunks()) / train.images.numel()
        square = sum((chunk - mean).square().sum().item() for chunk in chunks()) / train.images.numel()
        return cls(mean, math.sqrt(square) or 1.0)

    def apply(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std."""
        return (_checked(images) - self.mean) / self.std

    def invert(self, values: Tensor) -> Tensor:
        """Return values * std + mean, clipped to [0, 1]."""
        return (values * self.std + self.mean).clamp(0, 1)


@dataclass(frozen=True)
class Gcn(Scale):
    """Global contrast normalisation, as the code of 2014 has it for CIFAR-10.

    Each image minus the mean of all its values, divided by the L2 norm of what remains, times 55. Mean and norm of the
    single image are lost, so `invert` puts typical ones in their place.

    Attributes:
        mean: the mean value of the training images, in [0, 1].
        norm: the mean of the L2 norms of the training images, each without its own mean.
    """

    mean: float
    norm: float
    name = "gcn"
    exact = False

    @classmethod
    def fit(cls, train: Batch) -> Self:
        """Measure the mean and the norm of the training images."""
        if len(train) == 0:
            raise ValueError("gcn: needs at least one training image, got none")
        mean = norm = 0.0
        for images in train.images.split(_CHUNK):
            values = as_float(images).flatten(1)
            centres = values.mean(1, keepdim=True)
            mean += centres.double().sum().item()
            norm += (values - centres).norm(dim=1).double().sum().item()
        return cls(mean / len(train), norm / len(train))

    def apply(self, images: Tensor) -> Tensor:
        """Return the normalised images; an image whose values are all alike becomes zero."""
        values = _checked(images).flatten(1)
        centred = values - values.mean(1, keepdim=True)
        norm = centred.norm(dim=1, keepdim=True)
        flat = norm <= _GCN_FLAT * math.sqrt(values.shape[1])
        return (centred * torch.where(flat, 0.0, _GCN_NORM / norm)).reshape(images.shape)

    def invert(self, values: Tensor) -> Tensor:
        """Return values / 55 times the typical norm, plus the typical mean, clipped to [0, 1]."""
        return (values * (self.norm / _GCN_NORM) + self.mean).clamp(0, 1)


def _checked(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise TypeError(f"scale: images must be floating-point in [0, 1], got {images.dtype}; use as_float(images)")
    return images


SCALES: dict[str, type[Scale]] = {scale.name: scale for scale in (Unit, Signed, Standard, Gcn)}
"""The pixel scales by name. A new one is one entry."""


def make_scale(name: str, train: Batch) -> Scale:
    """Return the scale called `name`, fitted to the training images. Raises ValueError if there is none."""
    if name not in SCALES:
        raise ValueError(f"scale: must be one of {', '.join(SCALES)}, got {name!r}" + nearest(str(name), tuple(SCALES)))
    return SCALES[name].fit(train)
