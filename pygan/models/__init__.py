"""Architectures: one file each, with the settings that make its two players. `MODELS` has them by name.

Any module can take a player's place in `pygan.train(generator=..., discriminator=...)`:

* a generator maps noise [n, noise_size] to images [n, C, H, W], or [n, C * H * W], in the pixel scale of the recipe
  (by default [0, 1]);
* a discriminator maps images [n, C, H, W] to logits [n] or [n, 1], which have no bounds: it does not end in a sigmoid.
  In the logistic games D(x) is the sigmoid of a logit; a W-GAN takes the same number as its critic's value.

A discriminator that treats each image of a batch by itself (no batch norm) may say so by an attribute
`independent_examples = True`. It then sees real and generated images in one pass, which is faster.
"""

from pygan.models.base import Model
from pygan.models.conditional_mlp import ConditionalMLP
from pygan.models.dcgan import DCGAN
from pygan.models.maxout_convolutional import MaxoutConvolutional
from pygan.models.maxout_mlp import Discriminator, Generator, MaxoutMLP
from pygan.models.mlp import MLP
from pygan.models.relu_sigmoid_mlp import ReluSigmoidMLP

__all__ = [
    "DCGAN",
    "MLP",
    "MODELS",
    "ConditionalMLP",
    "Discriminator",
    "Generator",
    "MaxoutConvolutional",
    "MaxoutMLP",
    "Model",
    "ReluSigmoidMLP",
]

MODELS: dict[str, type[Model]] = {
    "maxout_mlp": MaxoutMLP,
    "conditional_mlp": ConditionalMLP,
    "relu_sigmoid_mlp": ReluSigmoidMLP,
    "maxout_convolutional": MaxoutConvolutional,
    "mlp": MLP,
    "dcgan": DCGAN,
}
"""The architectures by name. A new one is one entry."""
