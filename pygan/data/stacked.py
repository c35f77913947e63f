"""Stacked MNIST: three digits as the three channels of one image, which makes 1,000 modes that can be counted."""

from __future__ import annotations

from pathlib import Path

import torch

from pygan.data import mnist
from pygan.data.batch import Batch
from pygan.data.splits import Source

__all__ = ["load", "stack_digits"]


def load(root: str | Path | None = None) -> Source:
    """Return stacked MNIST: each split is drawn from the digits of the same split of MNIST, with the seed 0, 1 or 2."""
    digits = mnist.load(root)
    train, valid, test = (
        stack_digits(split, len(split), seed)
        for seed, split in enumerate((digits.train, digits.valid, digits.test))
        if split is not None
    )
    return Source(
        "stacked_mnist",
        train,
        f"stacked MNIST: three digits of one split in each image, drawn at random with replacement. {digits.protocol}",
        valid=valid,
        test=test,
        classes=tuple(f"{label:03d}" for label in range(1000)),
    )


def stack_digits(digits: Batch, n: int, seed: int) -> Batch:
    """Return n colour images, each of three digits drawn at random with replacement, with their labels.

    After Metz et al. 2017 (Unrolled Generative Adversarial Networks).

    Args:
        digits: grey images [N, 1, H, W], of any dtype, with labels in 0..9.
        n: number of stacked images.
        seed: of the draw, which uses a generator of its own.

    Returns:
        Images [n, 3, H, W] in the same dtype, and labels in 0..999: 100 a + 10 b + c for the digits a, b, c in the
        channels 0, 1, 2.

    Raises:
        ValueError: images that are not grey, no labels, or a label that is not a digit.
    """
    images, labels = digits.images, digits.labels
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
        raise ValueError(f"stack_digits: digits must have images [N >= 1, 1, H, W], got {list(images.shape)}")
    if labels is None or int(labels.min()) < 0 or int(labels.max()) > 9:
        got = "none" if labels is None else f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"stack_digits: digits must have labels in 0..9, got {got}")
    drawn = torch.randint(len(images), (n, 3), generator=torch.Generator().manual_seed(seed)).to(images.device)
    a, b, c = labels[drawn].unbind(1)
    return Batch(images[drawn, 0], 100 * a + 10 * b + c)
