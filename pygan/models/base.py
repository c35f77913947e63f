"""The base class of models: the settings of an architecture, which make its two players."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pygan.settings import Settings

__all__ = ["Model"]


@dataclass(frozen=True, kw_only=True)
class Model(Settings):
    """The base class of models: settings as dataclass fields, a `name`, and a method that makes each player.

    A field that describes only one player is marked by `setting(..., player="generator")` or "discriminator". Weights
    are drawn from torch's default generator.
    """

    name: ClassVar[str]
    channels_last: ClassVar[bool] = False
    """Whether its players are faster on a CPU if the channels of a pixel are neighbours in memory."""

    def make_generator(
        self, shape: Sequence[int], noise_size: int, classes: int = 0, mean_image: Tensor | None = None
    ) -> nn.Module:
        """Return the generator: noise [n, noise_size] -> images [n, C, H, W] in the pixel scale of the game.

        Args:
            shape: (C, H, W) of the images.
            noise_size: numbers in one noise vector.
            classes: number of classes that it is conditional on, or 0; its `forward` then takes noise and labels [n].
            mean_image: the mean training image [C, H, W] in the pixel scale; None if weights are loaded afterwards.
        """
        raise NotImplementedError

    def make_discriminator(self, shape: Sequence[int], classes: int = 0) -> nn.Module:
        """Return the discriminator: images [n, C, H, W] (and labels [n], if `classes` > 0) -> logits [n].

        Its attribute `hidden` has its hidden layers in order, those that depend on the image alone: `Run.features`.
        """
        raise NotImplementedError

    def place(self, player: nn.Module, device: torch.device) -> nn.Module:
        """Return a player of this model on the device, in the memory format in which it is fastest there."""
        if self.channels_last and device.type == "cpu":
            player = player.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return player.to(device)

    def rate_scale(self, shape: Sequence[int]) -> float:
        """Return the factor for the learning rates of a named recipe on images of shape (C, H, W)."""
        return 1.0

    def refuse_classes(self, classes: int) -> None:
        """Raise ValueError if `classes` > 0, for a model that has no conditional form."""
        if classes:
            raise ValueError(
                f"conditional=True: the model {self.name!r} has no conditional form; "
                "'conditional_mlp' and 'dcgan' have one (recipe='conditional2014', recipe='dcgan')"
            )
