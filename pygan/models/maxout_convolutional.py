"""The convolutional players of the 2014 code for CIFAR-10: a deconvolution against maxout convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from pygan.models.fully_connected import PIECES, FullyConnected, start_uniform
from pygan.models.relu_sigmoid_mlp import relu_sigmoid
from pygan.nn import Maxout
from pygan.ops import dropout, maxout_pool
from pygan.settings import AT_LEAST_ONE, setting

__all__ = ["ConvolutionalDiscriminator", "ConvolutionalGenerator", "MaxoutConvolution", "MaxoutConvolutional"]

_KERNEL, _STRIDE = 5, 3  # of the deconvolution
_SMALLEST = 8  # side of an image that leaves the pooling windows something


class ConvolutionalGenerator(nn.Module):
    """A ReLU layer, a sigmoid layer that is taken as small maps, and one deconvolution, 5x5 with stride 3.

    The output is linear and has a bias for each of its values. Weights start in U(-init_range, init_range), biases
    at 0.

    Args:
        shape: (C, H, W) of the images; H and W are 3 n + 2, such as 32.
        noise_size: numbers in one noise vector.
        units: of the ReLU layer.
        maps: of (H - 2) / 3 x (W - 2) / 3 units, which make up the sigmoid layer.
        init_range: see above.
    """

    def __init__(
        self, shape: Sequence[int], noise_size: int = 100, units: int = 8000, maps: int = 80, init_range: float = 0.05
    ) -> None:
        super().__init__()
        self.maps = (maps, *_map_sides(shape))
        _, height, width = self.maps
        self.hidden = relu_sigmoid(noise_size, (units, maps * height * width), init_range)
        self.kernel = nn.Parameter(torch.empty(maps, shape[0], _KERNEL, _KERNEL))
        self.bias = nn.Parameter(torch.zeros(*shape))
        nn.init.uniform_(self.kernel, -init_range, init_range)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, C, H, W]."""
        maps = self.hidden(noise).unflatten(1, self.maps)
        return conv_transpose2d(maps, self.kernel, stride=_STRIDE) + self.bias


class Window(NamedTuple):
    """Of one maxout convolution: side of the kernel, padding, side of the pooling windows (their stride is 2)."""

    kernel: int
    padding: int
    pool: int


_WINDOWS = (Window(8, 4, 4), Window(8, 3, 4), Window(5, 3, 2))  # on 32x32: 33 -> 16, 15 -> 7, 9 -> 5


class MaxoutConvolution(nn.Module):
    """Dropout of the input, a convolution, the maximum over the pieces, then max pooling.

    Pooling windows have stride 2 and may hang over the edge, so that no pixel is left out.

    Args:
        channels: of the input.
        units: maps of the output.
        pieces: linear pieces of one unit.
        window: sizes.
        dropout: probability of dropping an input value.
    """

    def __init__(self, channels: int, units: int, pieces: int, window: Window, dropout: float) -> None:
        super().__init__()
        self.pieces, self.window, self.dropout = pieces, window, dropout
        self.weight = nn.Parameter(torch.empty(units * pieces, channels, window.kernel, window.kernel))
        self.bias = nn.Parameter(torch.empty(units * pieces))

    def forward(self, x: Tensor) -> Tensor:
        """x [n, channels, H, W] -> [n, units, about H / 2, about W / 2]."""
        x = dropout(x, self.dropout) if self.training else x
        x = maxout_pool(conv2d(x, self.weight, self.bias, padding=self.window.padding), self.pieces)
        return max_pool2d(x, self.window.pool, stride=2, ceil_mode=True)


class ConvolutionalDiscriminator(nn.Module):
    """Three maxout convolutions, a maxout layer, and a logit, with dropout before every layer.

    Args:
        shape: (C, H, W) of the images.
        maps: units of each convolution.
        units: of the maxout layer.
        convolution_pieces: linear pieces of a unit of the convolutions.
        pieces: linear pieces of a unit of the maxout layer.
        init_range: weights start in U(-init_range, init_range), biases at 0.
        keep_input: share of the image's values that dropout keeps, scaled by 1 / keep_input; in (0, 1].
        keep_hidden: the same for the inputs of all other layers.
    """

    independent_examples = True

    def __init__(
        self,
        shape: Sequence[int],
        maps: Sequence[int] = (32, 32, 192),
        units: int = 500,
        convolution_pieces: int = 2,
        pieces: int = 5,
        init_range: float = 0.005,
        keep_input: float = 0.8,
        keep_hidden: float = 0.5,
    ) -> None:
        super().__init__()
        channels, dropped = [shape[0], *maps[:-1]], [1 - keep_input] + [1 - keep_hidden] * (len(maps) - 1)
        self.convolutions = nn.Sequential(
            *map(MaxoutConvolution, channels, maps, [convolution_pieces] * len(maps), _WINDOWS, dropped)
        )
        self.dropout = 1 - keep_hidden
        height, width = map(_pooled_side, shape[1:])
        self.hidden = Maxout(maps[-1] * height * width, units, pieces, dropout=self.dropout)
        self.output = nn.Linear(units, 1)
        start_uniform(self, init_range)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] -> logits [n] of D(x)."""
        x = self.hidden(self.convolutions(images).flatten(1))
        x = dropout(x, self.dropout) if self.training else x
        return self.output(x).squeeze(1)


_THREE = ("three sizes, each at least 1", lambda value: len(value) == 3 and min(value) >= 1)


@dataclass(frozen=True, kw_only=True)
class MaxoutConvolutional(FullyConnected):
    """The convolutional architecture of 2014 for CIFAR-10, for the pixel scale "gcn" or "standard"."""

    name = "maxout_convolutional"
    relu_units: int = setting(8000, "units of the generator's ReLU layer", AT_LEAST_ONE, player="generator")
    deconvolution_maps: int = setting(
        80,
        "maps of the generator's sigmoid layer, from which a deconvolution makes the image",
        AT_LEAST_ONE,
        player="generator",
    )
    convolution_maps: tuple[int, ...] = setting(
        (32, 32, 192), "units of the discriminator's maxout convolutions", _THREE, player="discriminator"
    )
    convolution_pieces: int = setting(
        2, "linear pieces of one unit of the maxout convolutions", PIECES, player="discriminator"
    )
    maxout_units: int = setting(
        500, "units of the discriminator's maxout layer behind the convolutions", AT_LEAST_ONE, player="discriminator"
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> ConvolutionalGenerator:
        self.refuse_classes(classes)
        return ConvolutionalGenerator(shape, noise_size, self.relu_units, self.deconvolution_maps, self.generator_range)

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> ConvolutionalDiscriminator:
        self.refuse_classes(classes)
        return ConvolutionalDiscriminator(
            shape,
            self.convolution_maps,
            self.maxout_units,
            self.convolution_pieces,
            self.pieces,
            self.discriminator_range,
            self.keep_input,
            self.keep_hidden,
        )


def _map_sides(shape: Sequence[int]) -> tuple[int, int]:
    """Return the sides of the maps from which the deconvolution makes images of this shape (C, H, W)."""
    _, *sides = shape
    if any(side < _SMALLEST or (side - _KERNEL) % _STRIDE for side in sides):
        raise ValueError(
            "model 'maxout_convolutional': the sides of images must be 3 n + 2, at least 8, such as 32, got "
            f"{sides[0]}x{sides[1]}; image_size=32 resizes them"
        )
    height, width = ((side - _KERNEL) // _STRIDE + 1 for side in sides)
    return height, width


def _pooled_side(side: int) -> int:
    """Return the side of the discriminator's last maps for images of this side."""
    for window in _WINDOWS:
        convolved = side + 2 * window.padding - window.kernel + 1
        side = -(-max(0, convolved - window.pool) // 2) + 1
    return side
