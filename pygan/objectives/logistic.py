"""The game of Goodfellow et al. 2014: log D(x) and log(1 - D(G(z)))."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from pygan import ops
from pygan.objectives.base import Judged, Objective, squared_slopes
from pygan.settings import NOT_NEGATIVE, setting

__all__ = ["NonSaturating", "Saturating"]


@dataclass(frozen=True, kw_only=True)
class _Logistic(Objective):
    discriminator_loss_scale: Literal["sum", "half"] = setting(
        "sum", "D minimises -mean log D(x) - mean log(1 - D(G(z))) as in the paper (sum), or half of it as in its code"
    )
    gradient_penalty: float = setting(
        0.0,
        "R1: half of this times the mean of |grad logit|^2 at the data is added to the sum of D's two losses",
        NOT_NEGATIVE,
    )

    @property
    def scale(self) -> float:
        """The factor of D's loss, penalty included."""
        return 0.5 if self.discriminator_loss_scale == "half" else 1.0

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.scale * ops.discriminator_loss(real_logits, fake_logits)

    @property
    def needs_slopes(self) -> bool:
        return self.gradient_penalty > 0

    def penalty(self, judged: Judged, judge: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Return R1 of Mescheder, Geiger and Nowozin 2018 (arXiv 1801.04406, equation 9)."""
        if self.gradient_penalty == 0:
            return None
        slopes = squared_slopes(judged.real_logits, judged.real)
        return self.scale * self.gradient_penalty / 2 * slopes.sum() / len(judged.real)

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        found = super().diagnose(history)
        for three in zip(history, history[1:], history[2:], strict=False):
            if all(entry["d_real"] > 0.99 and entry["d_fake"] < 0.01 for entry in three):
                last = three[-1]
                sentence = (
                    f"the discriminator wins: D(x) = {last['d_real']:.3f} and D(G(z)) = {last['d_fake']:.3f}, "
                    "and it was so for three epochs. The generator then learns little. "
                    "Add a gradient_penalty (try 1), drop more (lower keep_input and keep_hidden), or change the rates"
                )
                return found | {"discriminator wins": (last["epoch"], sentence)}
        return found


@dataclass(frozen=True, kw_only=True)
class NonSaturating(_Logistic):
    """The generator minimises -mean log D(G(z)) (section 3, last paragraph, of the paper)."""

    name = "non_saturating"

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return ops.generator_loss(fake_logits, "non_saturating")


@dataclass(frozen=True, kw_only=True)
class Saturating(_Logistic):
    """The generator minimises mean log(1 - D(G(z))): equation 1 of the paper, the minimax game itself."""

    name = "saturating"

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return ops.generator_loss(fake_logits, "saturating")
