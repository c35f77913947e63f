"""The base class of objectives: losses of both players from logits, a penalty on D, what is logged, warnings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import grad

from pygan.settings import Settings

__all__ = ["Judged", "Objective", "slopes", "squared_slopes"]


class Judged(NamedTuple):
    """One pass of the discriminator over a batch: its input images, and their logits [n]."""

    real: Tensor
    fakes: Tensor
    real_logits: Tensor
    fake_logits: Tensor


@dataclass(frozen=True, kw_only=True)
class Objective(Settings):
    """The base class of objectives. All losses are means over the batch, in nats where logits are log odds.

    A subclass has settings as dataclass fields, a `name`, and the two losses; everything else has a default.
    """

    name: ClassVar[str]
    statistics: ClassVar[tuple[str, ...]] = ("d_loss", "g_loss", "d_real", "d_fake")
    """The numbers of `row`, by the names that history and log give them; "d_loss" and "g_loss" are among them."""

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the discriminator's loss without the penalty: logits [n], [m] -> scalar, to be minimised."""
        raise NotImplementedError

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the generator's loss: logits [n] of its samples -> scalar, to be minimised.

        `real_logits` are None unless `compares` is true.
        """
        raise NotImplementedError

    @property
    def compares(self) -> bool:
        """Whether the generator's loss depends on the logits of real images."""
        return False

    @property
    def needs_slopes(self) -> bool:
        """Whether `penalty` differentiates logits with respect to the images of a `Judged`."""
        return False

    @property
    def penalises(self) -> bool:
        """Whether there is a penalty on the discriminator's slope at single images, which batch norm would falsify."""
        return self.needs_slopes

    def penalty(self, judged: Judged, judge: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Return what is added to the discriminator's loss, a scalar or None. `judge` maps images to logits [n]."""
        return None

    def constrain(self, discriminator: nn.Module) -> None:
        """Change the discriminator's weights in place after each of its updates. By default nothing is done."""

    @torch.no_grad()
    def row(self, d_loss: Tensor, g_loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the numbers that are logged for one update: float64, in the order of `statistics`."""
        return torch.stack([d_loss, g_loss, real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]).double()

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the means of the epoch so far as text for the progress line."""
        return (
            f"D(x) {means['d_real']:.2f} D(G(z)) {means['d_fake']:.2f} "
            f"D loss {means['d_loss']:.2f} G loss {means['g_loss']:.2f}"
        )

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        """Return the problems that the statistics of a history show.

        By default there is one, a loss of more than 50 nats. This is suitable for losses of log odds.

        Returns:
            Name -> the first epoch that shows the problem, and a sentence with advice.
        """
        for entry in history:
            if max(abs(entry["d_loss"]), abs(entry["g_loss"])) > 50:
                sentence = (
                    f"the losses diverge: d_loss = {entry['d_loss']:.3g}, g_loss = {entry['g_loss']:.3g} nats. "
                    "Lower both learning rates (generator_lr, discriminator_lr)"
                )
                return {"divergence": (entry["epoch"], sentence)}
        return {}


def slopes(logits: Tensor, images: Tensor) -> Tensor:
    """Return d logit_i / d image_i for each example, [n, values per image], with a graph for second derivatives.

    It is exact if the discriminator treats examples separately.
    """
    (gradient,) = grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1)


def squared_slopes(logits: Tensor, images: Tensor) -> Tensor:
    """Return |d logit_i / d image_i|^2 for each example, [n]; see `slopes`."""
    return slopes(logits, images).square().sum(1)
