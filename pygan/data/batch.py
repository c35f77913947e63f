"""Images together with their labels: the form in which all data travel through the package."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Images and, where they are known, their labels.

    Attributes:
        images: [n, C, H, W].
        labels: int64 [n] on the same device as the images, or None where there are no labels.
        mapped: whether the images are in a file that is mapped, in random order, so that a slice is a sample of them.

    Raises:
        TypeError: labels that are not int64.
        ValueError: labels of another shape than [n].
    """

    images: Tensor
    labels: Tensor | None = None
    mapped: bool = False

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        if self.labels.dtype != torch.int64:
            raise TypeError(f"Batch: labels must be int64, got {self.labels.dtype}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"Batch: labels must have shape [{len(self.images)}], got {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """Return the images and labels at `index`, a slice or a tensor of indices."""
        mapped = self.mapped and isinstance(index, slice)  # anything else is a copy
        return Batch(self.images[index], None if self.labels is None else self.labels[index], mapped)

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else "labels"
        return f"Batch({self.images.dtype} images {list(self.images.shape)}, {labels})"

    def of_class(self, label: int) -> Batch:
        """Return the images with this label; none where there are no labels."""
        return self[:0] if self.labels is None else self[self.labels == label]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        images = self.images.to(device)
        return Batch(images, None if self.labels is None else self.labels.to(device), self.mapped and images.is_cpu)
