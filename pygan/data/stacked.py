"""Stacked MNIST: three digits as the three channels of one image, which makes 1,000 modes that can be counted."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["stack_digits"]


def stack_digits(images: Tensor, labels: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return n colour images, each of three digits drawn at random with replacement, and their labels.

    After Metz et al. 2017 (Unrolled Generative Adversarial Networks).

    Args:
        images: grey digits [N, 1, H, W], of any dtype.
        labels: their classes, int64 [N] in 0..9.
        n: number of stacked images.
        seed: of the draw, which uses a generator of its own.

    Returns:
        Images [n, 3, H, W] in the dtype of `images`, and labels int64 [n] in 0..999: 100 a + 10 b + c for the digits
        a, b, c in the channels 0, 1, 2.

    Raises:
        ValueError: a wrong shape, or a label that is not a digit.
    """
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
        raise ValueError(f"stack_digits: images must have shape [N >= 1, 1, H, W], got {list(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"stack_digits: labels must have shape [{len(images)}], got {list(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) > 9:
        raise ValueError(f"stack_digits: labels must be in 0..9, got {int(labels.min())}..{int(labels.max())}")
    drawn = torch.randint(len(images), (n, 3), generator=torch.Generator().manual_seed(seed)).to(images.device)
    a, b, c = labels[drawn.to(labels.device)].long().unbind(1)
    return images[drawn, 0], 100 * a + 10 * b + c
