"""One training iteration behind one seam: `make_step` returns the fastest `Step` that applies.

`plain.py` is the reference, in torch alone; every other step is tested against it.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pygan.models import Discriminator, Generator
from pygan.recipes import Rates, Recipe
from pygan.step.fused import FusedStep, can_fuse
from pygan.step.graph import GraphStep
from pygan.step.plain import PlainStep

__all__ = ["STATISTICS", "Step", "make_step"]

STATISTICS = ("d_loss", "g_loss", "d_real", "d_fake")


class Step(Protocol):
    """One iteration of the game: k discriminator updates and one of the generator, or one of both at once.

    A step owns the optimisers' state and changes both players' parameters in place. All its randomness comes from
    torch's default generators, in a fixed order, so that their state and `state_dict` are all that a checkpoint needs.
    """

    def __call__(self, real: Callable[[], Tensor], rates: Rates) -> None:
        """Update both players; `real()` is the next batch [batch_size, C, H, W] of the data, float32 in [0, 1]."""

    def statistics(self) -> Tensor:
        """float64 [iterations since the last call, 4] on the CPU, in the order of `STATISTICS`.

        The columns are both losses (nats), the mean of D(x) and the mean of D(G(z)), as the players saw them, with
        dropout; with k > 1 those of the last discriminator update. The discriminator's loss is half the sum.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """The optimisers' state by name, e.g. "generator.output.weight.velocity". The tensors may be the live ones."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what another step's `state_dict` held."""


def make_step(
    generator: nn.Module, discriminator: nn.Module, recipe: Recipe, shape: Sequence[int], device: torch.device
) -> Step:
    """The step for these players, which are on the device, and images of shape (C, H, W)."""
    if recipe.precision == "bf16" and device.type == "cpu" and not _has_bf16():
        warnings.warn(
            "precision='bf16': this CPU has no bfloat16 instructions, so float32 would be faster", stacklevel=3
        )
    if recipe.step == "plain":
        return PlainStep(generator, discriminator, recipe, shape, device)
    step: FusedStep | PlainStep
    if (
        isinstance(generator, Generator)
        and isinstance(discriminator, Discriminator)
        and can_fuse(generator, discriminator, device)
    ):
        step = FusedStep(generator, discriminator, recipe, device)
    else:
        step = PlainStep(generator, discriminator, recipe, shape, device)
    return GraphStep(step, (generator, discriminator), recipe.k, device) if device.type == "cuda" else step


def _has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers itself; yes if that cannot be found out."""
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text()) is not None
