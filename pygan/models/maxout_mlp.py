"""The fully connected players of the 2014 paper: a ReLU generator and a maxout discriminator with dropout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from pygan.models.fully_connected import (
    Activated,
    FullyConnected,
    ScaledFullyConnected,
    start_at_mean,
    start_uniform,
)
from pygan.nn import Maxout
from pygan.ops import dropout
from pygan.settings import SIZES, setting

__all__ = ["Discriminator", "Generator", "MaxoutMLP", "maxout_discriminator"]


class Generator(nn.Module):
    """The paper's fully connected generator: ReLU layers, then a sigmoid for each number of the image.

    Args:
        shape: (C, H, W) of the images.
        noise_size: numbers in one noise vector.
        hidden: units of each ReLU layer.
        init_range: weights start in U(-init_range, init_range), hidden biases at 0.
        mean_image: mean training image [C, H, W] in [0, 1]; its logit is the output bias at the start. None: bias 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_size: int = 100,
        hidden: Sequence[int] = (1200, 1200),
        init_range: float = 0.05,
        mean_image: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        sizes = [noise_size, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], math.prod(shape))
        start_uniform(self, init_range)
        if mean_image is not None:
            start_at_mean(self.output.bias, mean_image)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, C, H, W] in [0, 1]."""
        x = noise
        for layer in self.hidden:
            x = layer(x).relu()
        return self.output(x).sigmoid().unflatten(1, self.shape)

    def layers(self) -> list[Activated]:
        """Return the layers that `forward` applies, in order."""
        return [*((layer, "relu") for layer in self.hidden), (self.output, "sigmoid")]


class Discriminator(nn.Module):
    """The paper's maxout discriminator, with dropout before every layer.

    Args:
        shape: (C, H, W) of the images.
        hidden: units of each maxout layer.
        pieces: linear pieces of one maxout unit.
        init_range: weights start in U(-init_range, init_range), biases at 0.
        keep_input: share of the image that dropout keeps, scaled by 1 / keep_input; in (0, 1].
        keep_hidden: the same for the inputs of all other layers.
    """

    independent_examples = True

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (240, 240),
        pieces: int = 5,
        init_range: float = 0.005,
        keep_input: float = 0.8,
        keep_hidden: float = 0.5,
    ) -> None:
        super().__init__()
        sizes = [math.prod(shape), *hidden]
        dropped = [1 - keep_input] + [1 - keep_hidden] * (len(hidden) - 1)
        self.hidden = nn.ModuleList(
            Maxout(inputs, units, pieces, dropout=p) for inputs, units, p in zip(sizes, hidden, dropped, strict=False)
        )
        self.dropout = 1 - keep_hidden
        self.output = nn.Linear(sizes[-1], 1)
        start_uniform(self, init_range)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] -> logits [n] of D(x)."""
        x = images.flatten(1)
        for layer in self.hidden:
            x = layer(x)
        x = dropout(x, self.dropout) if self.training else x
        return self.output(x).squeeze(1)


def maxout_discriminator(model: FullyConnected, shape: Sequence[int], hidden: Sequence[int]) -> Discriminator:
    """Return a discriminator with the model's settings, and with these units in its maxout layers."""
    return Discriminator(shape, hidden, model.pieces, model.discriminator_range, model.keep_input, model.keep_hidden)


@dataclass(frozen=True, kw_only=True)
class MaxoutMLP(ScaledFullyConnected):
    """The paper's architecture for MNIST; the defaults are the sizes of its authors' code."""

    name = "maxout_mlp"
    generator_hidden: tuple[int, ...] = setting(
        (1200, 1200), "units of the generator's ReLU layers", SIZES, player="generator"
    )
    discriminator_hidden: tuple[int, ...] = setting(
        (240, 240), "units of the discriminator's maxout layers", SIZES, player="discriminator"
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> Generator:
        self.refuse_classes(classes)
        return Generator(shape, noise_size, self.generator_hidden, self.generator_range, mean_image)

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> Discriminator:
        self.refuse_classes(classes)
        return maxout_discriminator(self, shape, self.discriminator_hidden)
