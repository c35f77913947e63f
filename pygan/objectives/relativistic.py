"""The relativistic pairing game with two gradient penalties: the objective of R3GAN."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pygan.objectives.base import Judged, Objective, squared_slopes
from pygan.settings import NOT_NEGATIVE, setting

__all__ = ["Relativistic"]


@dataclass(frozen=True, kw_only=True)
class Relativistic(Objective):
    """Each real image is compared with one generated image: only the difference of their logits matters.

    Huang, Gokaslan, Kuleshov and Tompkin 2024, The GAN is dead; long live the GAN! (arXiv 2501.05441, section 2). The
    statistic "d_paired" is the mean of sigmoid(D(x) - D(G(z))): how sure the discriminator is of which is real, .5
    where it cannot tell.
    """

    name = "relativistic"
    statistics = ("d_loss", "g_loss", "d_paired")
    r1: float = setting(
        1.0, "half of this times the mean of |grad logit|^2 at the data is added to D's loss", NOT_NEGATIVE
    )
    r2: float = setting(1.0, "the same at the samples", NOT_NEGATIVE)

    @property
    def compares(self) -> bool:
        return True

    @property
    def needs_slopes(self) -> bool:
        return self.r1 > 0 or self.r2 > 0

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(-_difference(real_logits, fake_logits)).mean()

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        if real_logits is None:
            raise ValueError("relativistic: generator_loss needs real_logits, got None")
        return softplus(_difference(real_logits, fake_logits)).mean()

    def penalty(self, judged: Judged, judge: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Return R1 at the data and R2 at the samples."""
        weights = (self.r1, judged.real_logits, judged.real), (self.r2, judged.fake_logits, judged.fakes)
        terms = [weight / 2 * squared_slopes(*seen).mean() for weight, *seen in weights if weight > 0]
        return torch.stack(terms).sum() if terms else None

    @torch.no_grad()
    def row(self, d_loss: Tensor, g_loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return torch.stack([d_loss, g_loss, (real_logits - fake_logits).sigmoid().mean()]).double()

    def describe(self, means: Mapping[str, float]) -> str:
        return f"D(x, G(z)) {means['d_paired']:.2f} D loss {means['d_loss']:.2f} G loss {means['g_loss']:.2f}"


def _difference(one: Tensor, other: Tensor) -> Tensor:
    if one.shape != other.shape:
        raise ValueError(
            f"relativistic: real_logits and fake_logits must both be [n], got {list(one.shape)} and {list(other.shape)}"
        )
    return one - other
