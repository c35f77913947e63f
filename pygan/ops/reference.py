"""The formulas in plain torch: what every native kernel is tested and measured against.

Nothing here imports anything of pygan, and nothing here is clever: each function is its formula, differentiable by
autograd to any order, on any device that torch supports.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

__all__ = [
    "discriminator_loss",
    "dropout",
    "generator_loss",
    "maxout",
    "maxout_pool",
    "momentum_update",
    "parzen_logsumexp",
    "philox",
]


def maxout(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """max_j (x . weight[u, j] + bias[u, j]): x [..., in], weight [units, pieces, in] -> [..., units]."""
    units, pieces, _ = weight.shape
    z = linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return z.unflatten(-1, (units, pieces)).max(dim=-1).values


def maxout_pool(x: Tensor, pieces: int) -> Tensor:
    """Maximum over each group of `pieces` channels: x [batch, units * pieces, ...] -> [batch, units, ...]."""
    return x.unflatten(1, (-1, pieces)).max(dim=2).values


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-mean log D(x) - mean log(1 - D(G(z))) with D = sigmoid(logit), in nats."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor, objective: str = "non_saturating") -> Tensor:
    """Non-saturating: -mean log D(G(z)).  Saturating: +mean log(1 - D(G(z)))."""
    if objective == "non_saturating":
        return softplus(-fake_logits).mean()
    return -softplus(fake_logits).mean()


def parzen_logsumexp(x: Tensor, samples: Tensor, sigmas: Tensor | Sequence[float]) -> Tensor:
    """log sum_i exp(-|x - s_i|^2 / (2 sigma^2)): x [n, d], samples [N, d], sigmas [S] -> [S, n]."""
    sigmas = torch.as_tensor(sigmas, dtype=x.dtype, device=x.device)
    if len(samples) == 0:
        return x.new_full((len(sigmas), len(x)), -math.inf)
    squared = torch.stack([(row - samples).square().sum(-1) for row in x]) if len(x) else x.new_empty(0, len(samples))
    return torch.logsumexp(-squared / (2 * sigmas.square())[:, None, None], dim=-1)


def philox(seed: Tensor, counter: Tensor) -> Tensor:
    """Philox4x32-10 of Salmon et al. 2011: seed [] int64, counter [n] int64 >= 0 -> four words [n, 4] in [0, 2^32)."""
    low = 0xFFFFFFFF
    key = [seed & low, (seed >> 32) & low]
    c = [counter & low, counter >> 32, torch.zeros_like(counter), torch.zeros_like(counter)]
    for _ in range(10):
        high_a, low_a = _multiply_32(0xD2511F53, c[0])
        high_b, low_b = _multiply_32(0xCD9E8D57, c[2])
        c = [high_b ^ c[1] ^ key[0], low_b, high_a ^ c[3] ^ key[1], low_a]
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    return torch.stack(c, dim=-1)


def _multiply_32(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a b, for a, b in [0, 2^32), without leaving int64."""
    upper, lower = a * (b >> 16), a * (b & 0xFFFF)
    return (upper + (lower >> 16)) >> 16, (lower + ((upper & 0xFFFF) << 16)) & 0xFFFFFFFF


def dropout(x: Tensor, p: float, seed: Tensor, first: int = 0) -> Tensor:
    """x * 1 / (1 - p) where a uniform 32-bit word is below (1 - p) 2^32, else 0; the words are `philox` under the seed.

    Element i of a larger tensor, of which x is the part from `first` on, has word (i % 64) // 16 of counter
    16 (i // 64) + i % 16.
    """
    start, end = first // 64, -(-(first + x.numel()) // 64)  # groups of 64 elements
    words = philox(seed, torch.arange(16 * start, 16 * end, device=x.device))
    words = words.view(end - start, 16, 4).transpose(1, 2).flatten()[first % 64 :][: x.numel()]
    kept = words < round((1 - p) * 2**32)
    return torch.where(kept.view(x.shape), x * (1 / (1 - p)), 0)


def momentum_update(
    parameters: Sequence[Tensor],
    velocities: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Tensor,
    copies: Sequence[Tensor] = (),
) -> None:
    """v <- m v - r g, p <- p + v in place, with rates [2] = (r, m); copies receive the parameters, rounded."""
    rate, momentum = rates
    for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
        velocity.mul_(momentum).sub_(rate * gradient.to(velocity.dtype))
        parameter.add_(velocity)
    for copy, parameter in zip(copies, parameters, strict=bool(copies)):
        copy.copy_(parameter)
