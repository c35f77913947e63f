"""Tensors, arrays, .npy and .npz files and torch Datasets as images."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pygan.data.batch import Batch
from pygan.data.decode import fitted, is_gray, is_picture, upright_size
from pygan.data.folders import LARGEST, Shape, check_memory, choose_size
from pygan.data.labels import encode
from pygan.data.names import printable
from pygan.data.splits import Source, check_range

if TYPE_CHECKING:
    from PIL import Image


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
        raise TypeError(f"{what}: must be uint8 (0..255) or floats in [0, 1], got {images.dtype}{_remedy(images)}")
    shape = list(images.shape)
    if images.ndim not in (2, 3, 4) or 0 in shape[1:]:
        raise ValueError(f"{what}: must have shape [N, C, H, W], [N, H, W] or [N, d], got {shape}")
    if (wrong := _wrong_axes(shape)) is not None:
        raise ValueError(f"{what}: must have shape {wrong[0]}, got {shape}: {wrong[1]}")
    if images.is_floating_point():
        if images.numel():
            check_range(images, what)
        images = images.float()
    if images.ndim == 2:
        return images[:, None, None, :]
    return images.unsqueeze(1) if images.ndim == 3 else images


def from_array(images: np.ndarray[Any, Any], what: str = "data") -> Tensor:
    """Return a numpy array as `from_tensor` does; the array is copied."""
    return from_tensor(_copied(images, what), what)


def _copied(array: np.ndarray[Any, Any], what: str) -> Tensor:
    """Return the numbers of an array as a tensor: in the machine's byte order, dense, floats of at most 64 bits."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        count = np.ma.count_masked(array)
        raise ValueError(f"{what}: {count:,} values of the masked array are masked; pass x.filled(value)")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what}: must be uint8 (0..255) or floats in [0, 1], got {array.dtype}")
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    dtype = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype, order="C", subok=False))


def _remedy(images: Tensor) -> str:
    """Return what to do about integers and booleans, judged by the values that they hold."""
    if images.dtype == torch.bool:
        return "; pass x * 1.0"
    if images.is_complex() or images.numel() == 0:
        return ""
    low, high = int(images.numpy().min()), int(images.numpy().max())  # torch cannot for unsigned 16 to 64 bits
    if low >= 0 and high <= 1:
        remedy = "x * 1.0"
    elif low >= 0 and high <= 255:
        remedy = "x / 255"
    elif low >= 0:
        remedy = "x / 65535 if these are 16-bit pixels, else x / x.max()"
    else:
        remedy = f"(x - {low}.0) / {high - low}.0".replace("- -", "+ ")
    return f" with values in [{low}, {high}]; pass {remedy}"


def _wrong_axes(shape: list[int]) -> tuple[str, str] | None:
    """Return the shape that was expected and the remedy if the axes are in an order that other software uses."""
    if len(shape) == 4:
        first, second, third, last = shape
        if last <= 4 < min(second, third):
            return "[N, C, H, W]", "channels come last; permute (0, 3, 1, 2)"
        if min(second, last) > 4 and (third in (3, 4) or (third == 1 and first == second)):
            return "[N, C, H, W]", "the images are along the last axis; permute (3, 2, 0, 1)"
    if len(shape) == 3 and shape[0] == shape[1] < shape[2] and shape[0] > 4:
        return "[N, H, W]", "the images are along the last axis; permute (2, 0, 1), or pass x[:, None] if they are not"
    return None


def labelled(
    images: Any, labels: Any, what: str, name: str, sentence: str = "", classes: Sequence[Any] | None = None
) -> Source:
    """Return images (a tensor or array) and their labels (integers [N], or None) as a source with one split.

    `classes` are the names of the classes 0, 1, 2, ...; see `labels.encode`.
    """
    pixels = from_tensor(images, what) if isinstance(images, Tensor) else from_array(images, what)
    encoded, names = (None, None) if labels is None else encode(labels, len(pixels), what, classes)
    return Source(name, Batch(pixels, encoded), f"{name}: {len(pixels):,} images{sentence}", classes=names)


def from_dataset(
    dataset: Dataset[Any], what: str, name: str, shape: Shape | None = None, image_size: int | None = None
) -> Source:
    """Return all items of a map-style Dataset as `labelled` does.

    An item is an image or a tuple or list (image, label, ...); an image is a tensor, an array or a PIL image. Tensors
    and arrays must have one shape and dtype. PIL images are brought to one size by `shape` and `image_size`, as the
    images of a folder are. Labels that are not single integers are not used, and the protocol says so. If the Dataset
    has a list `classes`, as those of torchvision have, it names the classes.
    """
    if not hasattr(dataset, "__len__"):
        raise TypeError(f"{what}: a Dataset must have a length, got {type(dataset).__name__}")
    if len(dataset) == 0:
        raise ValueError(f"{what}: the Dataset is empty")
    if is_picture(_image_of(dataset[0])):
        images, labels, sentence = _read_pictures(dataset, what, shape, image_size)
    else:
        images, labels, sentence = _read_items(dataset, what)
    found = sum(label is not None for label in labels)
    if found == 0 and isinstance(dataset[0], tuple | list) and len(dataset[0]) > 1:
        sentence += " (labels not used: no integers)"
    elif 0 < found < len(labels):
        sentence += f" (labels not used: {len(labels) - found:,} items have none)"
    classes = getattr(dataset, "classes", None)
    return labelled(
        images,
        labels if found == len(labels) else None,
        what,
        name,
        sentence,
        classes if isinstance(classes, list | tuple) else None,
    )


def _read_items(dataset: Dataset[Any], what: str) -> tuple[Tensor, list[int | None], str]:
    """Return the images of a Dataset of tensors or arrays, and their labels."""
    images, labels = torch.empty(0), list[int | None]()
    for i in range(len(dataset)):  # type: ignore[arg-type]
        item = dataset[i]
        image = _image_of(item)
        if isinstance(image, np.ndarray):
            image = _copied(image, f"{what}: item {i}")
        try:
            image = torch.as_tensor(image)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{what}: item {i} must be an image or (image, ...), got {type(image).__name__}") from error
        if i == 0:
            images = torch.empty(len(dataset), *image.shape, dtype=image.dtype)  # type: ignore[arg-type]
        if image.shape != images.shape[1:]:
            expected = list(images.shape[1:])
            raise ValueError(f"{what}: items must have one shape, got {expected}, item {i} {list(image.shape)}")
        if image.dtype != images.dtype:
            raise TypeError(f"{what}: items must have one dtype, got {images.dtype}, item {i} {image.dtype}")
        images[i] = image.detach()
        labels.append(_label_of(item))
    return images, labels, ""


def _read_pictures(
    dataset: Dataset[Any], what: str, shape: Shape | None, image_size: int | None
) -> tuple[Tensor, list[int | None], str]:
    """Return the images of a Dataset of PIL images, in gray if all are, their labels, and what was done to them.

    All items are read twice, first for their sizes, so that no more than one is held in its own size at a time.
    """
    count = len(dataset)  # type: ignore[arg-type]
    sizes, gray = set(), True
    for i in range(count):
        picture = _image_of(dataset[i])
        if not is_picture(picture):
            raise TypeError(f"{what}: item {i} must be a PIL image as item 0 is, got {type(picture).__name__}")
        sizes.add(_upright_size(picture))
        gray = gray and is_gray(picture)
    if shape is None:
        shape = (1 if gray else 3, *choose_size(sizes, image_size))
    _, height, width = shape
    check_memory(count, shape, what)
    images, labels = torch.empty(count, *shape, dtype=torch.uint8), list[int | None]()
    for i in range(count):
        item = dataset[i]
        try:
            pixels = fitted(_image_of(item).copy(), shape[0], (width, height))
        except ValueError as error:
            raise ValueError(f"{what}: item {i}: {error}") from None
        images[i] = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        labels.append(_label_of(item))
    resized = sizes != {(width, height)}
    return images, labels, f", centre-cropped and resized to {width}x{height} pixels" if resized else ""


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    if picture.format != "TIFF":
        return upright_size(picture)
    from PIL import ImageOps

    return ImageOps.exif_transpose(picture.copy()).size  # whoever has read its pixels may have turned it already


def _image_of(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) else item


def read_npy(path: Path) -> np.ndarray[Any, Any]:
    """Read an array from a .npy file; never a pickle. Raises ValueError with file, offset and what was expected."""
    with open(path, "rb") as file:
        return _read_array(file, path.stat().st_size, printable(path))


def read_npz(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Read the arrays `images` and, if it is there, `labels` (or `targets`) from a .npz file; never a pickle.

    A single array may have any name. Raises ValueError that names the file, the array, and what was expected.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(member.filename).stem: member for member in archive.infolist()}
            images, labels = members.get("images"), members.get("labels", members.get("targets"))
            if len(members) == 1:
                (images,), labels = members.values(), None
            if images is None:
                raise ValueError(
                    f"{printable(path)}: expected an array `images` (and, if there are labels, `labels`), "
                    f"got {printable(', '.join(members)) or 'none'}; save with numpy.savez(path, images=x, labels=y)"
                )
            return _read_member(archive, images, path), None if labels is None else _read_member(archive, labels, path)
    except Exception as error:  # a broken file makes zipfile fail in many ways
        if isinstance(error, ValueError) and str(error).startswith(printable(path)):
            raise  # ours
        raise ValueError(f"{printable(path)}: expected a whole .npz file, got: {error}") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray[Any, Any]:
    with archive.open(member) as file:
        return _read_array(file, member.file_size, f"{printable(path)}: {printable(member.filename)}")


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


def _label_of(item: Any) -> int | None:
    """Return the label of an item, or None if it has none that is a single integer."""
    value = item[1] if isinstance(item, tuple | list) and len(item) > 1 else None
    if isinstance(value, Tensor | np.ndarray) and value.shape in ((), (1,)):
        value = value.item()
    return int(value) if isinstance(value, int | np.integer) else None
