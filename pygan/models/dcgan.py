"""The convolutional players of Radford, Metz and Chintala 2016 (arXiv 1511.06434), and their conditional form.

The generator projects its noise to small maps and doubles their sides by fractionally strided convolutions; the
discriminator halves them by strided ones. There is no pooling and no hidden layer that is fully connected. Batch norm
follows every layer except the generator's last and the discriminator's first. The kernels are 4x4 with stride 2, as in
the Torch code of the third author, since the paper does not give their size. The paper has images of 64x64 pixels; here
the two sides may be odd and may differ.

In the conditional form the generator's input is the noise beside the one-hot label. The discriminator adds to its logit
the inner product of a learned vector for the label with its last maps: the projection of Miyato and Koyama 2018 (arXiv
1802.05637, section 3), here without their sum over the pixels, as the DCGAN has none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pygan.models.base import Model
from pygan.settings import AT_LEAST_ONE, setting

__all__ = ["DCGAN", "DCGANDiscriminator", "DCGANGenerator"]

_SMALLEST = 8  # pixels of a side that can be halved; the smallest maps have 4 to 7 on the shorter side
_SPREAD = 0.02  # standard deviation of the weights at the start
_SLOPE = 0.2  # of the discriminator's LeakyReLU below 0


class DCGANGenerator(nn.Module):
    """Noise -> small maps -> twice the side by each fractionally strided convolution -> tanh.

    Args:
        shape: (C, H, W) of the images; H and W are at least 8.
        noise_size: numbers in one noise vector.
        channels: maps of the last hidden layer; each layer before has twice as many.
        classes: number of classes that it is conditional on, or 0.
    """

    def __init__(self, shape: Sequence[int], noise_size: int = 100, channels: int = 128, classes: int = 0) -> None:
        super().__init__()
        (height, width), *larger = reversed(_sizes(shape))
        maps = [channels << power for power in reversed(range(len(larger)))]
        odd = [(h % 2, w % 2) for h, w in larger]  # the row and the column that doubling leaves out
        self.classes = classes
        self.project = nn.Linear(noise_size + classes, maps[0] * height * width, bias=False)
        self.first = nn.Sequential(nn.Unflatten(1, (maps[0], height, width)), nn.BatchNorm2d(maps[0]), nn.ReLU())
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, output_padding=more, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for (before, after), more in zip(pairwise(maps), odd[:-1], strict=True)
            )
        )
        self.output = nn.ConvTranspose2d(maps[-1], shape[0], 4, stride=2, padding=1, output_padding=odd[-1])
        _start(self)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise [n, noise_size], and labels [n] if conditional -> images [n, C, H, W] in [-1, 1]."""
        if labels is not None:
            noise = torch.cat([noise, one_hot(labels, self.classes).to(noise.dtype)], 1)
        return self.output(self.hidden(self.first(self.project(noise)))).tanh()


class DCGANDiscriminator(nn.Module):
    """Half the side by each strided convolution, rounded down, to 4 to 7 pixels on the shorter side -> one logit.

    Args:
        shape: (C, H, W) of the images; H and W are at least 8.
        channels: maps of the first layer; each layer after it has twice as many.
        classes: number of classes that it is conditional on, or 0.
        norm: "batch", or "none" for objectives with a penalty on the slope at single images.
    """

    def __init__(self, shape: Sequence[int], channels: int = 128, classes: int = 0, norm: str = "batch") -> None:
        super().__init__()
        self.independent_examples = norm == "none"
        sizes = _sizes(shape)
        maps = [channels << power for power in range(len(sizes) - 1)]
        first = nn.Sequential(nn.Conv2d(shape[0], maps[0], 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE))
        self.hidden = nn.Sequential(
            first,
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 4, stride=2, padding=1, bias=norm == "none"),
                    nn.BatchNorm2d(after) if norm == "batch" else nn.Identity(),
                    nn.LeakyReLU(_SLOPE),
                )
                for before, after in pairwise(maps)
            ),
        )
        self.output = nn.Linear(maps[-1] * math.prod(sizes[-1]), 1)
        self.labels = nn.Embedding(classes, self.output.in_features) if classes else None
        _start(self)
        if self.labels is not None:
            nn.init.normal_(self.labels.weight, 0.0, _SPREAD)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images [n, C, H, W] in [-1, 1], and labels [n] if conditional -> logits [n] of D(x)."""
        features = self.hidden(images).flatten(1)
        logits = self.output(features).squeeze(1)
        return logits if self.labels is None else logits + (features * self.labels(labels)).sum(1)


def fits_dcgan(shape: Sequence[int]) -> bool:
    """Return whether there are players for images of this shape (C, H, W)."""
    return min(shape[1:]) >= _SMALLEST


def _sizes(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return (height, width) of the image and of the maps after each halving; ValueError if it cannot be halved."""
    _, height, width = shape
    if not fits_dcgan(shape):
        raise ValueError(
            f"model 'dcgan': images must have at least {_SMALLEST} pixels on a side, got {height}x{width}; "
            "image_size=32 resizes them"
        )
    sizes = [(height, width)]
    while min(sizes[-1]) >= _SMALLEST:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def _start(player: nn.Module) -> None:
    """Draw weights from N(0, .02), and the gains of batch norm from N(1, .02); set biases to 0."""
    for module in player.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, _SPREAD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@dataclass(frozen=True, kw_only=True)
class DCGAN(Model):
    """The convolutional architecture of 2016, for images of at least 8x8 pixels on the "signed" scale."""

    name = "dcgan"
    channels_last = True
    channels: int = setting(
        128, "maps of the layer next to the image, in both players; they double with each halving", AT_LEAST_ONE
    )
    discriminator_norm: Literal["batch", "none"] = setting(
        "batch",
        "none: no batch norm in the discriminator, as penalties on its slope require",
        player="discriminator",
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> DCGANGenerator:
        return DCGANGenerator(shape, noise_size, self.channels, classes)

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> DCGANDiscriminator:
        return DCGANDiscriminator(shape, self.channels, classes, self.discriminator_norm)
