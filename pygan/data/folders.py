"""A folder of images: any size, gray or colour, nested or not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pygan.data.batch import Batch
from pygan.data.splits import MINIMUM, Source, with_split

if TYPE_CHECKING:
    from PIL import Image

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_CAMERA = ("JPEG", "MPO", "TIFF", "WEBP")  # formats in which cameras note how they were held
_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}  # names of sub-folders
LARGEST = 4 << 30  # bytes of pixels that are held in memory

Shape: TypeAlias = tuple[int, int, int]  # channels, height, width


def load(path: Path) -> Source:
    """Return the images of a folder; if it consists of folders `train`, `valid` or `val`, `test`, these are splits."""
    path = Path(os.path.abspath(path))  # not resolve(): a link keeps its own name
    parts = {file.relative_to(path).parts for file in _files(path)}
    heads = {part[0] if len(part) > 1 else "" for part in parts}
    if "train" in heads and len(heads) > 1 and heads <= _SPLITS.keys() and not heads >= {"valid", "val"}:
        found = {_SPLITS[head]: path / head for head in sorted(heads)}
        source = replace(_read_training(found.pop("train")), name=path.name)
        shape = shape_of(source.train.images)
        for split, folder in found.items():
            other = read(folder, shape)
            sentence = f"{source.protocol}; {split} = the {len(other.train):,} images in {folder.name}/"
            source = with_split(replace(source, protocol=sentence), split, other)
        return source
    source = _read_training(path)
    if len(source.train) < MINIMUM:
        raise ValueError(f"{path}: expected at least {MINIMUM} images, got {len(source.train)}")
    return source


def read(path: Path, shape: Shape | None = None) -> Source:
    """Return all images under `path` in order of their names, uint8 [N, C, H, W], as a source with one split.

    Without `shape` = (C, H, W), width and height are the medians over the images (so the common size where most have
    one), and C is 1 if all are gray, else 3. An image of another size is cropped about its centre to the same ratio of
    sides and resized. If all images lie in sub-folders, these are the classes.

    Raises ValueError that names the file if one cannot be read.
    """
    files = list(_files(path))
    if not files:
        raise ValueError(f"{path}: expected images ({' '.join(_SUFFIXES)}), found none")
    sizes, gray = zip(*(_look(file) for file in files), strict=True)
    if shape is None:
        width, height = (median_low(sides) for sides in zip(*sizes, strict=True))
        shape = (1 if all(gray) else 3, height, width)
    channels, height, width = shape
    if len(files) * channels * height * width > LARGEST:
        raise ValueError(
            f"{path}: {len(files):,} images of {width}x{height} pixels exceed {LARGEST >> 30} GiB; scale them down"
        )
    images = np.empty((len(files), height, width, channels), dtype=np.uint8)
    for i, file in enumerate(files):
        images[i] = np.asarray(_read(file, channels, (width, height))).reshape(height, width, channels)
    colours = "gray" if channels == 1 else "colour"
    sentence = f"{path.name}: a folder of {len(files):,} {colours} images of {width}x{height} pixels"
    if others := sum(size != (width, height) for size in sizes):
        sentence += f" ({others:,} of another size were centre-cropped and resized)"
    labels, classes = _classes(path, files)
    batch = Batch(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)
    return Source(path.name, batch, sentence, classes=classes)


def _read_training(path: Path) -> Source:
    """Read all images; a single sub-folder is no class."""
    source = read(path)
    if source.classes is not None and len(source.classes) == 1:
        return replace(source, train=Batch(source.train.images), classes=None)
    return source


def _classes(path: Path, files: Sequence[Path]) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """Return labels [N] and classes by the sub-folders of `path`; None if not all files lie in one of them."""
    heads = [file.relative_to(path).parts for file in files]
    classes = tuple(sorted({head[0] for head in heads}))
    if any(len(head) == 1 for head in heads):
        return None, None
    table = {name: label for label, name in enumerate(classes)}
    return torch.tensor([table[head[0]] for head in heads]), classes


def shape_of(images: Tensor) -> Shape:
    """Return the (C, H, W) of images [N, C, H, W]."""
    _, channels, height, width = images.shape
    return channels, height, width


def plain(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Return a PIL image in 8-bit gray or colour: 16 bits are scaled down, what is transparent becomes white."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("expected pixels of 8 or 16 bits, got floats")
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _files(path: Path) -> Iterator[Path]:
    """Yield the images under `path` in order of their names; hidden files are left out."""
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                yield Path(folder) / name


def _look(path: Path) -> tuple[tuple[int, int], bool]:
    """Return (width, height) as seen upright and whether the image is gray, from the header alone."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.format in _CAMERA and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (height, width) if sideways else (width, height), image.mode in _GRAY
    except Exception as error:  # a broken file makes Pillow's parsers fail in many ways
        raise ValueError(f"{path}: not a readable image: {error}") from error


def _read(path: Path, channels: int, size: tuple[int, int]) -> Image.Image:
    """Return the image upright, gray or in colour, cropped and resized to size = (width, height)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image) if image.format in _CAMERA else image
            upright = plain(upright, "L" if channels == 1 else "RGB")
    except Exception as error:
        raise ValueError(f"{path}: not a readable image: {error}") from error
    return upright if upright.size == size else ImageOps.fit(upright, size)
