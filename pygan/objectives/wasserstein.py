"""The game for the Wasserstein distance: the discriminator is a critic, whose values are not log odds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from pygan.objectives.base import Judged, Objective, slopes
from pygan.settings import POSITIVE, setting

__all__ = ["Wasserstein", "WassersteinPenalty"]


@dataclass(frozen=True, kw_only=True)
class _Critic(Objective):
    """The critic f maximises mean f(x) - mean f(G(z)), the generator mean f(G(z)).

    For the best f with Lipschitz constant K, the difference is K times the Wasserstein-1 distance between data and
    samples, in the pixel scale of the recipe. It is logged as "distance".
    """

    statistics = ("d_loss", "g_loss", "distance")

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()

    @torch.no_grad()
    def row(self, d_loss: Tensor, g_loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return torch.stack([d_loss, g_loss, real_logits.mean() - fake_logits.mean()]).double()

    def describe(self, means: Mapping[str, float]) -> str:
        return f"distance {means['distance']:.3g} G loss {means['g_loss']:.3g}"

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        """Only the distance is used, because the critic's values have no natural zero or scale."""
        for epoch, recent in _in_threes(history):
            if max(recent) <= 0:
                sentence = (
                    f"the critic does not keep up: the distance that it estimates is {recent[-1]:.3g}, and it was not "
                    "positive for three epochs, so that it leads the generator nowhere. Lower generator_lr, "
                    "give the critic more updates (larger k), and lower slope_penalty if there is one"
                )
                return {"weak critic": (epoch, sentence)}
        return {}


@dataclass(frozen=True, kw_only=True)
class Wasserstein(_Critic):
    """All weights of the critic stay in [-clip, clip] (Arjovsky, Chintala and Bottou 2017, arXiv 1701.07875).

    That bounds the critic's Lipschitz constant K, but does not tell it: "distance" is K times the Wasserstein distance
    with an unknown K. Compare it within one run only.
    """

    name = "wasserstein"
    clip: float = setting(0.01, "every weight of the critic is clipped to [-clip, clip] after each update", POSITIVE)

    @torch.no_grad()
    def constrain(self, discriminator: nn.Module) -> None:
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.clip, self.clip)


@dataclass(frozen=True, kw_only=True)
class WassersteinPenalty(_Critic):
    """A penalty keeps the critic's slope near 1 between data and samples (Gulrajani et al. 2017, arXiv 1704.00028).

    So K is about 1, and "distance" is about the Wasserstein distance itself.
    """

    name = "wasserstein_penalty"
    slope_penalty: float = setting(
        10.0,
        "weight of the mean of (|grad f| - 1)^2 at random points between data and samples, one norm for each point",
        POSITIVE,
    )

    @property
    def penalises(self) -> bool:
        return True

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        """Also report a distance that grows after it had fallen to half; while the critic learns it may rise."""
        found, distances = super().diagnose(history), [entry["distance"] for entry in history]
        peaks = list(accumulate(distances, max))
        before = next((peak for peak, now in zip(peaks, distances, strict=True) if now < peak / 2), math.inf)
        for epoch, recent in _in_threes(history):
            if min(recent) > 2 * before > 0:  # only after the fall: until then no distance is larger than `before`
                sentence = (
                    f"the distance grows: {recent[-1]:.3g}, after it had fallen from {before:.3g}, and it was so "
                    "for three epochs. The generator moves away from the data. Lower generator_lr"
                )
                return found | {"growing distance": (epoch, sentence)}
        return found

    def penalty(self, judged: Judged, judge: Callable[[Tensor], Tensor]) -> Tensor:
        """Equation 3 of the paper; pairs of one real and one generated image, each mixed in its own proportion."""
        real, fakes = judged.real.detach(), judged.fakes.detach().to(judged.real.dtype)
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
        between = torch.lerp(fakes, real, share).requires_grad_()
        norms = vector_norm(slopes(judge(between), between), dim=1)  # Its derivative at 0 is 0, not NaN.
        return self.slope_penalty * (norms - 1).square().mean()


def _in_threes(history: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, list[float]]]:
    """Each epoch from the third on, with the distances of the last three."""
    for three in zip(history, history[1:], history[2:], strict=False):
        yield three[-1]["epoch"], [entry["distance"] for entry in three]
