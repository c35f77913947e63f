"""scikit-learn's digits: 1,797 real 8x8 handwritten digits that come with the package, so nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from pygan.data.batch import Batch
from pygan.data.splits import Source


def load(root: str | Path | None = None) -> Source:
    """Return the digits as float32 [1797, 1, 8, 8]; pixels are counts 0..16, divided by 16. `root` is not used."""
    from sklearn.datasets import load_digits  # here, because importing scikit-learn takes a second

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div_(16).unsqueeze(1)
    return Source(
        "digits",
        Batch(images, torch.from_numpy(digits.target).long()),
        f"digits: scikit-learn's {len(images):,} handwritten digits, 8x8 pixels",
        classes=tuple(map(str, range(10))),
    )
