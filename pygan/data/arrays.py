"""Tensors, arrays, .npy files and torch Datasets as images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pygan.data.folders import plain


def from_tensor(images: Tensor, what: str = "data") -> Tensor:
    """Returns images [N, C, H, W], uint8 or float32 in [0, 1], on the CPU.

    Args:
        images: [N, H, W], [N, C, H, W], or vectors [N, d], which become [N, 1, 1, d]; uint8, or floats in [0, 1].
        what: the name of the argument, for messages.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, a NaN, a value outside [0, 1]; the message names the remedy.
    """
    images = images.detach().cpu()
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{what}: must be uint8 (0..255) or floats in [0, 1], got {images.dtype}; try .to(torch.uint8)")
    shape = list(images.shape)
    if images.ndim not in (2, 3, 4) or 0 in shape[1:]:
        raise ValueError(f"{what}: must have shape [N, C, H, W], [N, H, W] or [N, d], got {shape}")
    if images.ndim == 4 and shape[3] <= 4 < min(shape[1], shape[2]):
        raise ValueError(f"{what}: must have shape [N, C, H, W], got {shape}: channels come last; permute (0, 3, 1, 2)")
    if images.is_floating_point() and images.numel():
        _check_range(images, what)
        images = images.float()
    if images.ndim == 2:
        return images[:, None, None, :]
    return images.unsqueeze(1) if images.ndim == 3 else images


def from_array(images: np.ndarray[Any, Any], what: str = "data") -> Tensor:
    """Returns a numpy array as `from_tensor` does; the array is copied."""
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise TypeError(f"{what}: must be uint8 (0..255) or floats in [0, 1], got {images.dtype}; try .astype('uint8')")
    native = np.array(images, dtype=images.dtype.newbyteorder("="), order="C", subok=False)
    return from_tensor(torch.from_numpy(native), what)


def from_dataset(dataset: Dataset[Any], what: str = "data") -> Tensor:
    """Returns all items of a map-style Dataset as `from_tensor` does.

    An item is an image or a tuple or list (image, ...), whose first part counts; an image is a tensor, an array or a
    PIL image. All must have one shape.
    """
    from PIL import Image

    if not hasattr(dataset, "__len__"):
        raise TypeError(f"{what}: a Dataset must have a length, got {type(dataset).__name__}")
    images: list[Tensor] = []
    for i in range(len(dataset)):
        item = dataset[i]
        image = item[0] if isinstance(item, tuple | list) else item
        if isinstance(image, Image.Image):
            image = np.array(plain(image, "L" if image.mode in ("1", "L") else "RGB"))
            image = image if image.ndim == 2 else image.transpose(2, 0, 1)
        try:
            image = torch.as_tensor(image)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{what}: item {i} must be an image or (image, ...), got {type(image).__name__}") from error
        if images and image.shape != images[0].shape:
            raise ValueError(
                f"{what}: items must have one shape, got {list(images[0].shape)}, item {i} {list(image.shape)}"
            )
        images.append(image)
    if not images:
        raise ValueError(f"{what}: the Dataset is empty")
    return from_tensor(torch.stack(images), what)


def read_npy(path: Path) -> np.ndarray[Any, Any]:
    """Reads an array from a .npy file; never a pickle. Raises ValueError with file, offset and what was expected."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = header(file)
        except Exception as error:  # numpy parses the header as Python literals: broken ones fail in many ways
            raise ValueError(f"{path}: expected a .npy header at offset 0: {error}") from error
        if dtype.hasobject:
            raise ValueError(f"{path}: expected numbers, got {dtype}, which numpy stores as a pickle")
        offset, size = file.tell(), math.prod(shape) * dtype.itemsize
        found = path.stat().st_size - offset
        if found != size:
            raise ValueError(
                f"{path}: expected {size:,} bytes for {dtype} {list(shape)} at offset {offset}, got {found:,}"
            )
        array = np.fromfile(file, dtype=dtype, count=math.prod(shape))
    return array.reshape(shape, order="F" if fortran_order else "C")


def _check_range(images: Tensor, what: str) -> None:
    low, high = (bound.item() for bound in images.aminmax())
    if math.isnan(low):
        first = images.isnan().flatten(1).any(1).nonzero()[0].item()
        raise ValueError(f"{what}: floats must lie in [0, 1], got NaN, first in image {first}")
    if low < 0 or high > 1:
        if low >= -0.1 and high <= 1.1:
            remedy = "x.clip(0, 1)"
        elif low >= 0:
            remedy = "x / 255" if 128 <= high <= 255 else "x / x.max()"
        elif low >= -1 and high <= 1:
            remedy = "(x + 1) / 2"
        else:
            remedy = "(x - x.min()) / (x.max() - x.min())"
        raise ValueError(f"{what}: floats must lie in [0, 1], got [{low:g}, {high:g}]; pass {remedy}")
