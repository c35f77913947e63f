"""The players of the 2014 paper, and the noise that the generator starts from.

Any module can take a player's place in `pygan.train(generator=..., discriminator=...)`:

* a generator maps noise [n, noise_size] to images [n, C, H, W], or [n, C * H * W], in [0, 1];
* a discriminator maps images [n, C, H, W] to logits [n] or [n, 1], of which D(x) is the sigmoid.

A discriminator that treats each image of a batch by itself (no batch norm) may say so by an attribute
`independent_examples = True`: it then sees real and generated images in one pass, which is faster.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from pygan.nn import Maxout
from pygan.ops import dropout
from pygan.recipes import Recipe

__all__ = ["Discriminator", "Generator", "check_players", "evaluating", "make_players", "sample", "sample_noise"]


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
        _start_uniform(self, init_range)
        if mean_image is not None:
            with torch.no_grad():
                # A pixel that is black in every image would have an infinite logit.
                self.output.bias.copy_(mean_image.flatten().double().clamp(1e-7, 1 - 1e-7).logit())

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, C, H, W] in [0, 1]."""
        x = noise
        for layer in self.hidden:
            x = layer(x).relu()
        return self.output(x).sigmoid().unflatten(1, self.shape)


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
        _start_uniform(self, init_range)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] -> logits [n] of D(x)."""
        x = images.flatten(1)
        for layer in self.hidden:
            x = layer(x)
        x = dropout(x, self.dropout) if self.training else x
        return self.output(x).squeeze(1)


def sample_noise(
    n: int,
    size: int,
    distribution: Literal["uniform", "normal"] = "uniform",
    *,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n noise vectors [n, size], float32, of mean 0 and variance 1: U(-sqrt 3, sqrt 3), or N(0, 1) for "normal".

    Drawn from `generator`, or from torch's default generator of the device.
    """
    if distribution == "normal":
        return torch.randn(n, size, device=device, generator=generator)
    return torch.empty(n, size, device=device).uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)


@torch.no_grad()
def sample(
    generator: nn.Module, recipe: Recipe, shape: Sequence[int], n: int, source: torch.Generator | None = None
) -> Tensor:
    """n samples [n, C, H, W], float32, on the generator's device; it is in eval mode meanwhile.

    The noise is drawn on the CPU, from `source` or torch's default generator: every device gets the same.
    """
    device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))
    noise = sample_noise(n, recipe.noise_size, recipe.noise, generator=source).to(device)
    with evaluating(generator):
        parts = [generator(part).float() for part in noise.split(1000)]
    return torch.cat(parts).reshape(n, *shape)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside, the mode from before afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def make_players(
    recipe: Recipe, shape: Sequence[int], mean_image: Tensor | None = None
) -> tuple[Generator, Discriminator]:
    """The paper's two players in the recipe's sizes, their weights drawn from torch's default generator."""
    generator = Generator(shape, recipe.noise_size, recipe.generator_hidden, recipe.generator_range, mean_image)
    discriminator = Discriminator(
        shape,
        recipe.discriminator_hidden,
        recipe.pieces,
        recipe.discriminator_range,
        recipe.keep_input,
        recipe.keep_hidden,
    )
    return generator, discriminator


@torch.no_grad()
def check_players(generator: nn.Module, discriminator: nn.Module, recipe: Recipe, shape: Sequence[int]) -> None:
    """Raise ValueError if two noise vectors do not become two images, or these not two logits."""
    with evaluating(generator), evaluating(discriminator):
        device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))
        images = generator(torch.zeros(2, recipe.noise_size, device=device))
        if images.shape not in ((2, *shape), (2, math.prod(shape))):
            raise ValueError(
                f"train: generator must map noise [2, {recipe.noise_size}] to images {[2, *shape]} or "
                f"{[2, math.prod(shape)]}, got {list(images.shape)}"
            )
        if not bool((images >= 0).all() and (images <= 1).all()):
            raise ValueError(
                "train: generator must give images in [0, 1], as the data are (end it with a sigmoid), "
                f"got [{images.min():.3g}, {images.max():.3g}]"
            )
        logits = discriminator(images.reshape(2, *shape))
        if logits.shape not in ((2,), (2, 1)):
            raise ValueError(
                f"train: discriminator must map images {[2, *shape]} to logits [2] or [2, 1], got {list(logits.shape)}"
            )


def _start_uniform(module: nn.Module, init_range: float) -> None:
    """Weights U(-init_range, init_range), biases 0."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.uniform_(parameter, -init_range, init_range)
