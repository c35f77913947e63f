"""The formulas in plain torch: what every native kernel is tested and measured against.

Nothing here imports anything of pygan, and nothing here is clever: each function is its formula, differentiable by
autograd to any order, on any device that torch supports.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

__all__ = ["discriminator_loss", "generator_loss", "maxout", "maxout_pool", "parzen_logsumexp"]


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
