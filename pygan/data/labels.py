"""Labels as everyone writes them, turned into indices of named classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["encode", "translate"]


def encode(labels: Any, count: int, what: str, names: Sequence[Any] | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels as int64 [count] in 0..len(classes) - 1, and the classes in label order.

    Args:
        labels: `count` integers or booleans: a tensor, an array or a sequence, of shape [count] or [count, 1].
        count: the number of images.
        what: the name of the argument, for messages.
        names: names of the classes 0, 1, 2, ... Without them, or if a label lies outside of them, the classes are the
            numbers that occur, in ascending order, named by their digits.

    Raises:
        TypeError: labels that are not integers.
        ValueError: labels of another shape.
    """
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.ndim == 2 and len(values) == count:
        raise ValueError(f"{what}: labels must have shape [{count}], got {list(values.shape)}; pass labels.argmax(1)")
    if values.shape != (count,):
        raise ValueError(f"{what}: labels must have shape [{count}], one for each image, got {list(values.shape)}")
    if values.dtype.kind not in "iub":
        raise TypeError(f"{what}: labels must be integers, got {values.dtype}")
    if names is not None and count and values.min() >= 0 and values.max() < len(names):
        return torch.from_numpy(values.astype(np.int64)), tuple(map(str, names))
    found, indices = np.unique(values.astype(np.int64), return_inverse=True)
    return torch.from_numpy(indices.reshape(count).astype(np.int64)), tuple(str(number) for number in found)


def translate(labels: Tensor, classes: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor | None:
    """Return labels of `classes` as labels of `wanted`, matched by name; None if a class that occurs is not in it."""
    used = set(labels.unique().tolist())
    table = [wanted.index(name) if name in wanted else -1 for name in classes]
    if any(table[label] < 0 for label in used):
        return None
    return torch.tensor(table, dtype=torch.int64)[labels]
