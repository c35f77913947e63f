"""The space of noise: paths between noise vectors, and arithmetic on averages of them.

    path = pygan.latent.interpolate(run.noise(8, seed=0), run.noise(8, seed=1), steps=10)     # [8, 10, noise_size]
    images = run.generate(path.flatten(0, 1))
    tour = pygan.latent.walk(run.noise(5, seed=0), steps=20)                                  # [100, noise_size]
    y = pygan.latent.arithmetic([smiling_women, men], [women])                                # [noise_size]
    images = run.generate(pygan.latent.neighbours(y, 9, seed=0))

Straight lines are those of Figure 3 of the 2014 paper. In high dimensions their middle is shorter than the noise that
the generator was trained on; spherical ones keep the length (White 2016, arXiv 1609.04468). Arithmetic is that of
Radford et al. 2016 (arXiv 1511.06434, section 6.3.2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pygan.ops._checks import check_dtype, check_shape, check_tensor
from pygan.settings import random_generator, value_of_type, whole_number

__all__ = ["arithmetic", "interpolate", "neighbours", "walk"]

_PARALLEL = 1e-4  # radians; between vectors that are nearer to one direction the straight line is taken


def interpolate(start: Tensor, end: Tensor, steps: int, spherical: bool = False) -> Tensor:
    """Return points on the way from one noise vector to another, ends included: [n, steps, size].

    Args:
        start, end: [n, size].
        steps: at least 2.
        spherical: on the arc at an even angle, instead of the straight line. The length goes evenly from that of the
            one to that of the other.

    Raises:
        TypeError: no tensors.
        ValueError: wrong shapes, or fewer than two steps.
    """
    for name, noise in (("start", start), ("end", end)):
        check_tensor("interpolate", name, noise)
        check_dtype("interpolate", name, noise)
        check_shape("interpolate", name, noise, "[n, size]", noise.ndim == 2)
    check_shape("interpolate", "end", end, f"{list(start.shape)}, as start", end.shape == start.shape)
    steps = whole_number("interpolate: steps", steps, 2)
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    start, end = start[:, None], end[:, None]
    straight = start + share * (end - start)
    if not spherical:
        return straight
    lengths = start.norm(dim=2, keepdim=True), end.norm(dim=2, keepdim=True)
    units = [noise / length for noise, length in zip((start, end), lengths, strict=True)]
    angle = (units[0] * units[1]).sum(2, keepdim=True).clamp(-1, 1).acos()
    weights = [(part * angle).sin() / angle.sin() for part in (1 - share, share)]
    arc = (weights[0] * units[0] + weights[1] * units[1]) * (lengths[0] + share * (lengths[1] - lengths[0]))
    between = (angle > _PARALLEL) & (angle < torch.pi - _PARALLEL)
    return torch.where(between, arc, straight)


def walk(noise: Tensor, steps: int, spherical: bool = False) -> Tensor:
    """Return a round trip through noise vectors in their order and back to the first: [n * steps, size].

    Args:
        noise: [n, size], n >= 2.
        steps: from each vector to the next, at least 1.
        spherical: see `interpolate`.
    """
    check_tensor("walk", "noise", noise)
    check_shape("walk", "noise", noise, "[n >= 2, size]", noise.ndim == 2 and len(noise) >= 2)
    steps = whole_number("walk: steps", steps, 1)
    return interpolate(noise, noise.roll(-1, 0), steps + 1, spherical)[:, :-1].flatten(0, 1)


def arithmetic(plus: Sequence[Tensor], minus: Sequence[Tensor] = ()) -> Tensor:
    """Return the sum of the means of some sets of noise vectors, less the means of others: [size].

    One vector for a concept is unstable, so each concept is the mean of several, three in the paper.

    Args:
        plus, minus: sets of noise vectors, each [n, size], n >= 1; at least one in `plus`.
    """
    for name, sets in (("plus", plus), ("minus", minus)):
        if isinstance(sets, Tensor):
            raise TypeError(f"arithmetic: {name} must be a list of sets of noise vectors, got one tensor; pass [x]")
    if not plus:
        raise ValueError("arithmetic: plus must hold at least one set of noise vectors, got none")
    size = plus[0].shape[-1]
    for name, sets in (("plus", plus), ("minus", minus)):
        for noise in sets:
            check_tensor("arithmetic", name, noise)
            fits = noise.ndim == 2 and noise.shape[1] == size and len(noise) > 0
            check_shape("arithmetic", name, noise, f"[n >= 1, {size}]", fits)
    zero = torch.zeros((), device="cpu")
    return sum((noise.mean(0) for noise in plus), zero) - sum((noise.mean(0) for noise in minus), zero)


def neighbours(noise: Tensor, n: int, spread: float = 0.25, seed: int | None = None) -> Tensor:
    """Return a noise vector and n - 1 others around it, at U(-spread, spread) in each number: [n, size].

    They show whether a result of `arithmetic` is more than one lucky image.

    Args:
        noise: [size].
        n: at least 1.
        spread: at least 0; the paper has .25, for noise from U(-1, 1).
        seed: the same neighbours for the same seed; None for new ones.
    """
    check_tensor("neighbours", "noise", noise)
    check_shape("neighbours", "noise", noise, "[size]", noise.ndim == 1)
    n, spread = whole_number("neighbours: n", n, 1), value_of_type("neighbours: spread", spread, float)
    if spread < 0:
        raise ValueError(f"neighbours: spread must be at least 0, got {spread}")
    random = random_generator("neighbours: seed", seed)
    shifts = torch.empty(n, len(noise), dtype=torch.float32, device="cpu").uniform_(-spread, spread, generator=random)
    shifts[0] = 0
    return noise + shifts.to(noise.device)
