"""Tensors, arrays, .npy and .npz files and torch Datasets as images."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pygan.data.batch import Batch
from pygan.data.folders import LARGEST, plain
from pygan.data.labels import encode
from pygan.data.splits import Source, check_range


def from_tensor(images: Tensor, what: str = "data") -> Tensor:
    """Return images [N, C, H, W], uint8 or float32 in [0, 1], on the CPU.

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
        check_range(images, what)
    if images.is_floating_point():
        images = images.float()
    if images.ndim == 2:
        return images[:, None, None, :]
    return images.unsqueeze(1) if images.ndim == 3 else images


def from_array(images: np.ndarray[Any, Any], what: str = "data") -> Tensor:
    """Return a numpy array as `from_tensor` does; the array is copied."""
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise TypeError(f"{what}: must be uint8 (0..255) or floats in [0, 1], got {images.dtype}; try .astype('uint8')")
    native = np.array(images, dtype=images.dtype.newbyteorder("="), order="C", subok=False)
    return from_tensor(torch.from_numpy(native), what)


def labelled(
    images: Any, labels: Any, what: str, name: str, sentence: str = "", classes: Sequence[Any] | None = None
) -> Source:
    """Return images (a tensor or array) and their labels (integers [N], or None) as a source with one split.

    `classes` are the names of the classes 0, 1, 2, ...; see `labels.encode`.
    """
    pixels = from_tensor(images, what) if isinstance(images, Tensor) else from_array(images, what)
    encoded, names = (None, None) if labels is None else encode(labels, len(pixels), what, classes)
    return Source(name, Batch(pixels, encoded), f"{name}: {len(pixels):,} images{sentence}", classes=names)


def from_dataset(dataset: Dataset[Any], what: str, name: str) -> Source:
    """Return all items of a map-style Dataset as `labelled` does.

    An item is an image or a tuple or list (image, label, ...); an image is a tensor, an array or a PIL image. All must
    have one shape. Labels that are not single integers are not used, and the protocol says so. If the Dataset has a
    list `classes`, as those of torchvision have, it names the classes.
    """
    from PIL import Image

    if not hasattr(dataset, "__len__"):
        raise TypeError(f"{what}: a Dataset must have a length, got {type(dataset).__name__}")
    images: list[Tensor] = []
    labels: list[Any] = []
    for i in range(len(dataset)):
        item = dataset[i]
        image, *rest = item if isinstance(item, tuple | list) else (item,)
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
        labels.append(_label(rest[0]) if rest else None)
    if not images:
        raise ValueError(f"{what}: the Dataset is empty")
    found = sum(label is not None for label in labels)
    sentence = "" if found or not isinstance(item, tuple | list) or len(item) < 2 else " (labels not used: no integers)"
    if 0 < found < len(labels):
        sentence = f" (labels not used: {len(labels) - found:,} items have none)"
    classes = getattr(dataset, "classes", None)
    return labelled(
        torch.stack(images),
        labels if found == len(labels) else None,
        what,
        name,
        sentence,
        classes if isinstance(classes, list | tuple) else None,
    )


def read_npy(path: Path) -> np.ndarray[Any, Any]:
    """Read an array from a .npy file; never a pickle. Raises ValueError with file, offset and what was expected."""
    with open(path, "rb") as file:
        return _read_array(file, path.stat().st_size, str(path))


def read_npz(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Read the arrays `images` and, if it is there, `labels` (or `targets`) from a .npz file; never a pickle.

    Raises ValueError that names the file, the array, and what was expected.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(member.filename).stem: member for member in archive.infolist()}
            images, labels = members.get("images"), members.get("labels", members.get("targets"))
            if images is None:
                raise ValueError(
                    f"{path}: expected an array `images` (and, if there are labels, `labels`), "
                    f"got {', '.join(members) or 'none'}; save with numpy.savez(path, images=x, labels=y)"
                )
            return _read_member(archive, images, path), None if labels is None else _read_member(archive, labels, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
        raise ValueError(f"{path}: expected a whole .npz file, got: {error}") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray[Any, Any]:
    with archive.open(member) as file:
        return _read_array(file, member.file_size, f"{path}: {member.filename}")


def _read_array(file: IO[bytes], size: int, where: str) -> np.ndarray[Any, Any]:
    """Read an array of numbers in numpy's format from a file of `size` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = header(file)
        if min(shape, default=1) < 0:
            raise ValueError(f"the shape is {shape}")
    except Exception as error:  # numpy parses the header as Python literals: broken ones fail in many ways
        raise ValueError(f"{where}: expected a .npy header at offset 0: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"{where}: expected numbers, got {dtype}, which numpy stores as a pickle")
    if dtype.kind not in "biufc":
        raise ValueError(f"{where}: expected numbers, got {dtype}")
    offset, needed = file.tell(), math.prod(shape) * dtype.itemsize
    if size - offset != needed:
        raise ValueError(
            f"{where}: expected {needed:,} bytes for {dtype} {list(shape)} at offset {offset}, got {size - offset:,}"
        )
    if needed > LARGEST:
        raise ValueError(f"{where}: {needed:,} bytes exceed the limit of {LARGEST >> 30} GiB")
    content = np.empty(needed, dtype=np.uint8)
    if (got := file.readinto(content.data)) != needed:  # type: ignore[attr-defined]
        raise ValueError(f"{where}: expected {needed:,} bytes at offset {offset}, got {got:,}")
    try:
        return content.view(dtype).reshape(shape, order="F" if fortran_order else "C")
    except ValueError as error:  # a size of 0 beside one that is too large for any array
        raise ValueError(f"{where}: expected a shape that fits into memory, got {shape}") from error


def _label(value: Any) -> int | None:
    """Return a label as an int, or None if it is not a single integer."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    return int(value) if isinstance(value, int | np.integer) else None
