"""Plain fully connected players, for points in the plane and small images: no dropout, no batch norm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from pygan.models.base import Model
from pygan.settings import NOT_NEGATIVE, SIZES, setting

__all__ = ["MLP", "PlainDiscriminator", "PlainGenerator"]

_OUTPUTS = {"linear": nn.Identity, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class PlainGenerator(nn.Module):
    """ReLU layers, then one number for each value of the image.

    Weights start as He et al. 2015 propose (arXiv 1502.01852), biases at 0.

    Args:
        shape: (C, H, W) of the images.
        noise_size: numbers in one noise vector.
        hidden: units of each ReLU layer.
        output: "linear", "sigmoid" or "tanh".
    """

    def __init__(
        self, shape: Sequence[int], noise_size: int, hidden: Sequence[int] = (128, 128, 128), output: str = "linear"
    ) -> None:
        super().__init__()
        layers = _layers([noise_size, *hidden, math.prod(shape)], 0.0)
        self.layers = nn.Sequential(*layers, _OUTPUTS[output](), nn.Unflatten(1, tuple(shape)))

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, C, H, W]."""
        return self.layers(noise)


class PlainDiscriminator(nn.Module):
    """Leaky ReLU layers, then one logit, or a critic's value. It treats each image by itself.

    Args:
        shape: (C, H, W) of the images.
        hidden: units of each hidden layer.
        leak: slope of a hidden unit below 0; 0 is a ReLU.
    """

    independent_examples = True

    def __init__(self, shape: Sequence[int], hidden: Sequence[int] = (128, 128, 128), leak: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *_layers([math.prod(shape), *hidden, 1], leak), nn.Flatten(0))

    @property
    def hidden(self) -> list[nn.Module]:
        """The hidden layers, each with its nonlinearity."""
        return [layer for layer in self.layers if isinstance(layer, nn.LeakyReLU)]

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] -> logits [n]."""
        return self.layers(images)


def _layers(sizes: Sequence[int], leak: float) -> list[nn.Module]:
    """Linear layers with leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for pair in pairwise(sizes):
        linear = nn.Linear(*pair)
        nn.init.kaiming_normal_(linear.weight, leak)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(leak)]
    return layers[:-1]


@dataclass(frozen=True, kw_only=True)
class MLP(Model):
    """A ReLU generator and a leaky ReLU discriminator."""

    name = "mlp"
    generator_hidden: tuple[int, ...] = setting(
        (128, 128, 128), "units of the generator's ReLU layers", SIZES, player="generator"
    )
    generator_output: Literal["linear", "sigmoid", "tanh"] = setting(
        "linear", "the generator's last step: sigmoid fits pixels 'unit', tanh 'signed'", player="generator"
    )
    discriminator_hidden: tuple[int, ...] = setting(
        (128, 128, 128), "units of the discriminator's hidden layers", SIZES, player="discriminator"
    )
    leak: float = setting(
        0.2, "slope of the discriminator's hidden units below 0", NOT_NEGATIVE, player="discriminator"
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> PlainGenerator:
        self.refuse_classes(classes)
        return PlainGenerator(shape, noise_size, self.generator_hidden, self.generator_output)

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> PlainDiscriminator:
        self.refuse_classes(classes)
        return PlainDiscriminator(shape, self.discriminator_hidden, self.leak)
