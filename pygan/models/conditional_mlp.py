"""The conditional players of Mirza and Osindero 2014 (arXiv 1411.1784, section 4.1): p(x given a label)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pygan.models.fully_connected import PIECES, ScaledFullyConnected, start_at_mean, start_uniform
from pygan.nn import Maxout
from pygan.ops import dropout
from pygan.settings import KEPT, setting

__all__ = ["ConditionalDiscriminator", "ConditionalGenerator", "ConditionalMLP"]


class ConditionalGenerator(nn.Module):
    """A ReLU layer for the noise and one for the label, a joint ReLU layer, and a sigmoid for each number of the image.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes.
        noise_size: numbers in one noise vector.
        units: of the noise's layer, of the label's layer, and of the joint layer.
        keep_hidden: share of a hidden layer that dropout keeps in training, scaled by 1 / keep_hidden; in (0, 1].
        init_range: weights start in U(-init_range, init_range), hidden biases at 0.
        mean_image: mean training image [C, H, W] in [0, 1]; its logit is the output bias at the start. None: bias 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        noise_size: int = 100,
        units: Sequence[int] = (200, 1000, 1200),
        keep_hidden: float = 0.5,
        init_range: float = 0.05,
        mean_image: Tensor | None = None,
    ) -> None:
        super().__init__()
        of_noise, of_label, joint = units
        self.shape, self.classes, self.dropout = tuple(shape), classes, 1 - keep_hidden
        self.noise = nn.Linear(noise_size, of_noise)
        self.label = nn.Linear(classes, of_label)
        self.joint = nn.Linear(of_noise + of_label, joint)
        self.output = nn.Linear(joint, math.prod(shape))
        start_uniform(self, init_range)
        if mean_image is not None:
            start_at_mean(self.output.bias, mean_image)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise [n, noise_size] and labels [n] -> images [n, C, H, W] in [0, 1]."""
        label = one_hot(labels, self.classes).to(noise.dtype)
        x = torch.cat([self.noise(noise), self.label(label)], 1).relu()
        x = self.joint(self._dropped(x)).relu()
        return self.output(self._dropped(x)).sigmoid().unflatten(1, self.shape)

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout) if self.training else x


class ConditionalDiscriminator(nn.Module):
    """A maxout layer for the image and one for the label, a joint maxout layer, and a logit.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes.
        units: of the image's layer, of the label's layer, and of the joint layer.
        pieces: linear pieces of a unit of the image's and of the label's layer.
        joint_pieces: linear pieces of a unit of the joint layer.
        init_range: weights start in U(-init_range, init_range), biases at 0.
        keep_input: share of the image that dropout keeps, scaled by 1 / keep_input; in (0, 1].
        keep_hidden: the same for the inputs of the joint layer and of the output.
    """

    independent_examples = True

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        units: Sequence[int] = (240, 50, 240),
        pieces: int = 5,
        joint_pieces: int = 4,
        init_range: float = 0.005,
        keep_input: float = 0.8,
        keep_hidden: float = 0.5,
    ) -> None:
        super().__init__()
        of_image, of_label, joint = units
        self.classes, self.dropout = classes, 1 - keep_hidden
        self.image = Maxout(math.prod(shape), of_image, pieces, dropout=1 - keep_input)
        self.label = Maxout(classes, of_label, pieces)
        self.joint = Maxout(of_image + of_label, joint, joint_pieces, dropout=self.dropout)
        self.output = nn.Linear(joint, 1)
        start_uniform(self, init_range)

    @property
    def hidden(self) -> list[nn.Module]:
        """The hidden layers that do not depend on the label."""
        return [self.image]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images [n, C, H, W] and labels [n] -> logits [n] of D(x)."""
        label = one_hot(labels, self.classes).to(images.dtype)
        x = self.joint(torch.cat([self.image(images.flatten(1)), self.label(label)], 1))
        x = dropout(x, self.dropout) if self.training else x
        return self.output(x).squeeze(1)


_THREE = ("three sizes, each at least 1", lambda value: len(value) == 3 and min(value) >= 1)


@dataclass(frozen=True, kw_only=True)
class ConditionalMLP(ScaledFullyConnected):
    """The conditional architecture of 2014 for MNIST; only for `conditional=True`.

    The paper does not say how weights start, nor how much of the image dropout keeps: both are as in `MaxoutMLP`.
    """

    name = "conditional_mlp"
    generator_units: tuple[int, ...] = setting(
        (200, 1000, 1200),
        "units of the generator's layers for noise, for labels, and for both",
        _THREE,
        player="generator",
    )
    generator_keep_hidden: float = setting(
        0.5, "share of the generator's hidden layers that dropout keeps", KEPT, player="generator"
    )
    discriminator_units: tuple[int, ...] = setting(
        (240, 50, 240),
        "units of the discriminator's layers for images, for labels, and for both",
        _THREE,
        player="discriminator",
    )
    joint_pieces: int = setting(
        4, "linear pieces of a maxout unit of the layer for both", PIECES, player="discriminator"
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> ConditionalGenerator:
        _refuse_no_classes(classes)
        return ConditionalGenerator(
            shape,
            classes,
            noise_size,
            self.generator_units,
            self.generator_keep_hidden,
            self.generator_range,
            mean_image,
        )

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> ConditionalDiscriminator:
        _refuse_no_classes(classes)
        return ConditionalDiscriminator(
            shape,
            classes,
            self.discriminator_units,
            self.pieces,
            self.joint_pieces,
            self.discriminator_range,
            self.keep_input,
            self.keep_hidden,
        )


def _refuse_no_classes(classes: int) -> None:
    if not classes:
        raise ValueError("the model 'conditional_mlp' needs labels: pass conditional=True")
