"""Images in memory, cropped to a square and resized."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Integral

import torch
from torch import Tensor

from pygan.data.batch import Batch
from pygan.data.folders import check_memory
from pygan.data.splits import Source, as_float

__all__ = ["check_image_size", "resized"]

_CHUNK = 1 << 24  # values that are resized at a time


def check_image_size(image_size: object) -> int | None:
    """Return image_size as an int or None. Raises TypeError or ValueError for anything else."""
    if image_size is None:
        return None
    if not isinstance(image_size, Integral) or isinstance(image_size, bool):
        raise TypeError(f"image_size: must be an integer, the side in pixels, got {image_size!r}")
    if image_size < 1:
        raise ValueError(f"image_size: must be at least 1, got {image_size}")
    return int(image_size)


def resized(source: Source, image_size: int | None, what: str) -> Source:
    """Return `source` with all images cropped about the centre to squares and resized to `image_size`, antialiased."""
    _, channels, height, width = source.train.images.shape
    if image_size is None or height == width == image_size:
        return source
    if height == 1:
        raise ValueError(f"image_size: {what} must be images to be resized, got vectors of {channels * width} values")
    check_memory(len(source.train), (channels, image_size, image_size), what)
    parts = {
        split: Batch(_square(batch.images, image_size), batch.labels)
        for split in ("train", "valid", "test")
        if (batch := getattr(source, split)) is not None
    }
    size = f"{image_size}x{image_size}"
    sentence = f"{source.protocol}; from {width}x{height} pixels centre-cropped and resized to {size}"
    return replace(source, protocol=sentence, **parts)  # type: ignore[arg-type]


def _square(images: Tensor, size: int) -> Tensor:
    """Return [N, C, size, size] of the same dtype, a chunk of images at a time."""
    count, channels, height, width = images.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    result = torch.empty(count, channels, size, size, dtype=images.dtype)
    chunk = max(1, _CHUNK // math.prod((channels, max(side, size), max(side, size))))
    for start in range(0, count, chunk):
        part = as_float(images[start : start + chunk, :, top : top + side, left : left + side])
        part = torch.nn.functional.interpolate(part, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        result[start : start + chunk] = part if images.is_floating_point() else part.mul(255).round()
    return result
