"""The convolutional players of Radford, Metz and Chintala 2016 (arXiv 1511.06434), and their conditional form.

The generator projects its noise to a few small maps and doubles their side by fractionally strided convolutions; the
discriminator halves it by strided ones. There is no pooling and no hidden layer that is fully connected. Batch norm
follows every layer except the generator's last and the discriminator's first. The kernels are 4x4 with stride 2, as in
the Torch code of the third author, since the paper does not give their size.

In the conditional form the generator's input is the noise beside the one-hot label. The discriminator adds to its logit
the inner product of a learned vector for the label with its last maps: the projection of Miyato and Koyama 2018 (arXiv
1802.05637, section 3), here without their sum over the pixels, as the DCGAN has none.
"""

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

_SMALLEST = (4, 7)  # sides of the maps that the noise is projected to
_SPREAD = 0.02  # standard deviation of the weights at the start
_SLOPE = 0.2  # of the discriminator's LeakyReLU below 0


class DCGANGenerator(nn.Module):
    """Noise -> maps of 4x4 or 7x7 pixels -> twice the side by each fractionally strided convolution -> tanh.

    Args:
        shape: (C, H, W) of the images, with H = W = 4 * 2^k or 7 * 2^k, k >= 1.
        noise_size: numbers in one noise vector.
        channels: maps of the last hidden layer; each layer before has twice as many.
        classes: number of classes that it is conditional on, or 0.
    """

    def __init__(self, shape: Sequence[int], noise_size: int = 100, channels: int = 128, classes: int = 0) -> None:
        super().__init__()
        side, doublings = _sides(shape)
        maps = [channels << power for power in reversed(range(doublings))]
        self.classes = classes
        self.project = nn.Linear(noise_size + classes, maps[0] * side * side, bias=False)
        self.first = nn.Sequential(nn.Unflatten(1, (maps[0], side, side)), nn.BatchNorm2d(maps[0]), nn.ReLU())
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for before, after in pairwise(maps)
            )
        )
        self.output = nn.ConvTranspose2d(maps[-1], shape[0], 4, stride=2, padding=1)
        _start(self)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise [n, noise_size], and labels [n] if conditional -> images [n, C, H, W] in [-1, 1]."""
        if labels is not None:
            noise = torch.cat([noise, one_hot(labels, self.classes).to(noise.dtype)], 1)
        return self.output(self.hidden(self.first(self.project(noise)))).tanh()


class DCGANDiscriminator(nn.Module):
    """Half the side by each strided convolution, down to maps of 4x4 or 7x7 pixels -> one logit.

    Args:
        shape: (C, H, W) of the images, with H = W = 4 * 2^k or 7 * 2^k, k >= 1.
        channels: maps of the first layer; each layer after it has twice as many.
        classes: number of classes that it is conditional on, or 0.
        norm: "batch", or "none" for objectives with a penalty on the slope at single images.
    """

    def __init__(self, shape: Sequence[int], channels: int = 128, classes: int = 0, norm: str = "batch") -> None:
        super().__init__()
        self.independent_examples = norm == "none"
        side, halvings = _sides(shape)
        maps = [channels << power for power in range(halvings)]
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
        self.output = nn.Linear(maps[-1] * side * side, 1)
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
    try:
        _sides(shape)
    except ValueError:
        return False
    return True


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    """Return the side of the smallest maps and how often it is doubled; ValueError if no doubling gives the image's."""
    _, height, width = shape
    for side in _SMALLEST:
        doublings = (height // side).bit_length() - 1
        if height == width and doublings >= 1 and height == side << doublings:
            return side, doublings
    raise ValueError(
        "model 'dcgan': images must be squares whose side is 4 or 7 times a power of two, such as 28, 32 or 64, "
        f"got {height}x{width}; image_size=32 resizes them"
    )


def _start(player: nn.Module) -> None:
    """Draw weights from N(0, .02), and the gains of batch norm from N(1, .02); set biases to 0."""
    for module in player.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, _SPREAD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@dataclass(frozen=True, kw_only=True)
class DCGAN(Model):
    """The convolutional architecture of 2016, for square images of any number of channels on the "signed" scale."""

    name = "dcgan"
    channels: int = setting(
        128, "maps of the layer next to the image, in both players; they double with each halving", AT_LEAST_ONE
    )
    discriminator_norm: Literal["batch", "none"] = setting(
        "batch",
        "none leaves batch norm out of the discriminator, as penalties on its slope need it",
        player="discriminator",
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> DCGANGenerator:
        return DCGANGenerator(shape, noise_size, self.channels, classes)

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> DCGANDiscriminator:
        return DCGANDiscriminator(shape, self.channels, classes, self.discriminator_norm)
