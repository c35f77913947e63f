"""The fully connected players of the 2014 code for CIFAR-10 and TFD: the generator has a ReLU and a sigmoid layer.

TFD was trained in two phases. The second one puts two new layers before the generator of the first, whose weights go
on training, and starts with a new discriminator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pygan.models.fully_connected import Activated, Activation, FullyConnected, start_at_mean, start_uniform
from pygan.models.maxout_mlp import Discriminator, maxout_discriminator
from pygan.settings import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SIZES, setting

__all__ = ["DeepenedGenerator", "ReluSigmoidGenerator", "ReluSigmoidMLP", "relu_sigmoid"]


def relu_sigmoid(inputs: int, hidden: Sequence[int], init_range: float, sigmoid_bias: float = 0.0) -> nn.Sequential:
    """Return a ReLU layer and a sigmoid layer of these sizes, [n, inputs] -> [n, hidden[1]].

    Weights start in U(-init_range, init_range), the biases of the sigmoid layer at `sigmoid_bias`, the others at 0.
    """
    rectified, squashed = hidden
    second = nn.Linear(rectified, squashed)
    layers = nn.Sequential(nn.Linear(inputs, rectified), nn.ReLU(), second, nn.Sigmoid())
    start_uniform(layers, init_range)
    nn.init.constant_(second.bias, sigmoid_bias)
    return layers


_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid"}


def _activated(layers: nn.Sequential) -> list[Activated]:
    """Return the layers of a `relu_sigmoid`, each with the activation that it has now."""
    parts = list(layers)
    return [(layer, _ACTIVATIONS[type(after)]) for layer, after in zip(parts[::2], parts[1::2], strict=True)]


class ReluSigmoidGenerator(nn.Module):
    """A ReLU layer, a sigmoid layer, then one number for each value of the image.

    Args:
        shape: (C, H, W) of the images.
        noise_size: numbers in one noise vector.
        hidden: units of the ReLU layer and of the sigmoid layer.
        output: "linear" or "sigmoid".
        init_range: hidden weights start in U(-init_range, init_range).
        sigmoid_bias: bias of the sigmoid layer at the start; that of the ReLU layer is 0.
        output_range: output weights start in U(-output_range, output_range).
        output_sparse: if not 0, so many weights of each output unit start from N(0, 1) instead, and the others at 0.
        mean_image: mean training image [C, H, W] in [0, 1]; its logit is the bias of a sigmoid output at the start.
            Otherwise that bias is 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_size: int = 100,
        hidden: Sequence[int] = (8000, 8000),
        output: str = "linear",
        init_range: float = 0.05,
        sigmoid_bias: float = 0.0,
        output_range: float = 0.5,
        output_sparse: int = 0,
        mean_image: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.squashed = tuple(shape), output == "sigmoid"
        self.hidden = relu_sigmoid(noise_size, hidden, init_range, sigmoid_bias)
        self.output = nn.Linear(hidden[1], math.prod(shape))
        start_uniform(self.output, output_range)
        if output_sparse:
            _start_sparse(self.output.weight, output_sparse)
        if self.squashed and mean_image is not None:
            start_at_mean(self.output.bias, mean_image)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, C, H, W]."""
        x = self.output(self.hidden(noise))
        return (x.sigmoid() if self.squashed else x).unflatten(1, self.shape)

    def layers(self) -> list[Activated]:
        """Return the layers that `forward` applies, in order."""
        return [*_activated(self.hidden), (self.output, "sigmoid" if self.squashed else "none")]


class DeepenedGenerator(nn.Module):
    """A ReLU and a sigmoid layer before another generator, whose noise they take the place of.

    Args:
        front: maps noise [n, noise_size] to the input of `generator`.
        generator: that of the first phase; it goes on training.
    """

    def __init__(self, front: nn.Sequential, generator: ReluSigmoidGenerator) -> None:
        super().__init__()
        self.front, self.generator = front, generator

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, C, H, W]."""
        return self.generator(self.front(noise))

    def layers(self) -> list[Activated]:
        """Return the layers that `forward` applies, in order."""
        return [*_activated(self.front), *self.generator.layers()]


@dataclass(frozen=True, kw_only=True)
class ReluSigmoidMLP(FullyConnected):
    """The fully connected architecture of 2014 for CIFAR-10 (the defaults) and for faces; no rate is fitted to it."""

    name = "relu_sigmoid_mlp"
    relu_units: int = setting(8000, "units of the generator's ReLU layer", AT_LEAST_ONE, player="generator")
    sigmoid_units: int = setting(
        8000, "units of the generator's sigmoid layer, which follows", AT_LEAST_ONE, player="generator"
    )
    generator_output: Literal["linear", "sigmoid"] = setting(
        "linear", "the generator's last step: sigmoid fits pixels 'unit', linear 'gcn'", player="generator"
    )
    sigmoid_bias: float = setting(0.0, "bias of the generator's sigmoid layer at the start", player="generator")
    output_range: float = setting(
        0.5, "the generator's output weights start in U(-range, range)", POSITIVE, player="generator"
    )
    output_sparse: int = setting(
        0,
        "if not 0, so many weights of each output unit start from N(0, 1), the others at 0",
        NOT_NEGATIVE,
        player="generator",
    )
    front_units: int = setting(
        0,
        "phase 2: units of a new ReLU layer before the generator of phase 1, and of a sigmoid layer of the noise's "
        "size after it; 0 = phase 1",
        NOT_NEGATIVE,
        player="generator",
    )
    first_phase: str = setting(
        "", "phase 2: the run folder of phase 1, whose last generator is trained further", player="generator"
    )
    discriminator_hidden: tuple[int, ...] = setting(
        (1600, 1600), "units of the discriminator's maxout layers", SIZES, player="discriminator"
    )

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> ReluSigmoidGenerator | DeepenedGenerator:
        self.refuse_classes(classes)
        generator = ReluSigmoidGenerator(
            shape,
            noise_size,
            (self.relu_units, self.sigmoid_units),
            self.generator_output,
            self.generator_range,
            self.sigmoid_bias,
            self.output_range,
            self.output_sparse,
            mean_image,
        )
        if not self.front_units:
            return generator
        if mean_image is not None:
            self._take_first_phase(generator)
        sizes = self.front_units, noise_size
        return DeepenedGenerator(relu_sigmoid(noise_size, sizes, self.generator_range, self.sigmoid_bias), generator)

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> Discriminator:
        self.refuse_classes(classes)
        return maxout_discriminator(self, shape, self.discriminator_hidden)

    def _take_first_phase(self, generator: ReluSigmoidGenerator) -> None:
        """Overwrite the weights by those of the last checkpoint of phase 1, as the authors did."""
        from pygan.run import load  # a run knows its model

        if not self.first_phase:
            raise ValueError("first_phase must name the run folder of phase 1, as front_units is not 0, got ''")
        before = load(self.first_phase, checkpoint="last").generator.state_dict()
        shapes, wanted = ({name: list(t.shape) for name, t in of.items()} for of in (before, generator.state_dict()))
        if shapes != wanted:
            raise ValueError(f"first_phase: the generator of {self.first_phase} must have {wanted}, got {shapes}")
        generator.load_state_dict(before)


@torch.no_grad()
def _start_sparse(weight: Tensor, count: int) -> None:
    """Draw `count` weights of each row [units, inputs] from N(0, 1), or all there are, and set the others to 0."""
    chosen = torch.rand_like(weight).topk(min(count, weight.shape[1])).indices
    weight.zero_().scatter_(1, chosen, torch.randn(chosen.shape, device=weight.device))
