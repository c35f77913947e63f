"""The distributions of a generator's noise."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["NOISES", "clamp_noise", "draw_noise"]

Draw = Callable[[Tensor, torch.Generator | None], object]


_BOUNDS = {"uniform": math.sqrt(3), "unit_uniform": 1.0}  # of those that have one


def _within(bound: float) -> Draw:
    return lambda out, random: out.uniform_(-bound, bound, generator=random)


def _normal(out: Tensor, random: torch.Generator | None) -> None:
    """Fill `out` so that, on the CPU, few numbers are the first ones of many: torch draws them 16 at a time."""
    rest = -out.numel() % 16
    if rest == 0:
        out.normal_(generator=random)
    else:
        out.view(-1).copy_(out.new_empty(out.numel() + rest).normal_(generator=random)[: out.numel()])


NOISES: dict[str, Draw] = {
    "uniform": _within(_BOUNDS["uniform"]),  # mean 0, variance 1: the 2014 code's
    "normal": _normal,
    "unit_uniform": _within(_BOUNDS["unit_uniform"]),  # U(-1, 1): DCGAN's
}
"""The distributions by name: each fills a tensor in place, from a torch generator or (None) torch's default one."""


def draw_noise(
    distribution: str,
    n: int,
    size: int,
    *,
    device: torch.device | str | None = None,
    random: torch.Generator | None = None,
) -> Tensor:
    """Return n noise vectors [n, size], float32, from one of `NOISES`.

    They are drawn from `random`, or from torch's default generator of the device.
    """
    noise = torch.empty(n, size, dtype=torch.float32, device="cpu" if device is None else device)
    NOISES[distribution](noise, random)
    return noise


def clamp_noise(distribution: str, noise: Tensor) -> Tensor:
    """Return the nearest noise that the distribution can give: within its bound, if it has one."""
    bound = _BOUNDS.get(distribution)
    return noise if bound is None else noise.clamp(-bound, bound)
