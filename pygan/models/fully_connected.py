"""What the fully connected models of 2014 have in common: settings, the fit of their rates, and how weights start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pygan.models.base import Model
from pygan.settings import KEPT, POSITIVE, setting

__all__ = [
    "PIECES",
    "Activated",
    "Activation",
    "FullyConnected",
    "ScaledFullyConnected",
    "start_at_mean",
    "start_uniform",
]

Activation = Literal["none", "relu", "sigmoid"]
Activated = tuple[nn.Module, Activation]
"""A linear layer, and what follows it."""

PIECES = ("in 1..256", lambda value: 1 <= value <= 256)
_MNIST_NUMBERS = 784  # in an image of the data set that the 2014 rates were chosen for


@dataclass(frozen=True, kw_only=True)
class FullyConnected(Model):
    """A ReLU generator and a maxout discriminator with dropout; the defaults are those of the authors' code."""

    generator_range: float = setting(
        0.05, "the generator's weights start in U(-range, range)", POSITIVE, player="generator"
    )
    pieces: int = setting(5, "linear pieces of one maxout unit", PIECES, player="discriminator")
    discriminator_range: float = setting(
        0.005, "the discriminator's weights start in U(-range, range)", POSITIVE, player="discriminator"
    )
    keep_input: float = setting(
        0.8, "share of the discriminator's inputs that dropout keeps", KEPT, player="discriminator"
    )
    keep_hidden: float = setting(
        0.5, "share of the inputs of its other layers that dropout keeps", KEPT, player="discriminator"
    )


@dataclass(frozen=True, kw_only=True)
class ScaledFullyConnected(FullyConnected):
    """One whose rates for MNIST are scaled to images of another size."""

    def rate_scale(self, shape: Sequence[int]) -> float:
        """Return 784 / (numbers in an image), at most 1: the authors have .025 for CIFAR-10."""
        return min(1.0, _MNIST_NUMBERS / math.prod(shape))


def start_uniform(module: nn.Module, init_range: float) -> None:
    """Draw weights from U(-init_range, init_range) and set biases to 0."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.uniform_(parameter, -init_range, init_range)


@torch.no_grad()
def start_at_mean(bias: Tensor, mean_image: Tensor) -> None:
    """Set the bias before a sigmoid to the logit of the mean image [C, H, W] in [0, 1]."""
    # A pixel that is black in every image would have an infinite logit.
    bias.copy_(mean_image.flatten().double().clamp(1e-7, 1 - 1e-7).logit())
