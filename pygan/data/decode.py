"""One picture in a file, or from Pillow: is it readable, how large is it, and what are its pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pygan.data.names import printable

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "Look", "fitted", "is_gray", "is_picture", "look", "plain", "read"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no other decoder sees a file, whatever its name says
_LARGEST = 80_000_000  # pixels of one picture: 320 MB while it is decoded
_TURNED = (5, 6, 7, 8)  # values of EXIF's Orientation that exchange width and height
_GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


class Look(NamedTuple):
    """What the header of a picture says: its size when upright, and whether it is gray."""

    width: int
    height: int
    gray: bool


def look(path: Path) -> Look:
    """Return the size and kind of a picture from its header alone.

    Raises ValueError that names the file if it is no picture, or has more than 80 million pixels.
    """
    with _opened(path) as image:
        return Look(*upright_size(image), is_gray(image))


def read(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture, upright, as uint8 [height, width, channels] of size = (width, height).

    A picture of another size is cropped about its centre to the same ratio of sides and resized with antialiasing.
    Raises ValueError that names the file if it cannot be read.
    """
    with _opened(path) as image:
        if image.format == "JPEG":  # decoded at 1/2, 1/4 or 1/8 of its size if twice the wanted size is still there
            image.draft(None, (2 * max(size), 2 * max(size)))
        return fitted(image, channels, size)


def fitted(image: Image.Image, channels: int, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a Pillow image as `read` does."""
    from PIL import ImageOps

    if channels not in (1, 3):
        raise ValueError(f"pictures have 1 or 3 channels, gray or colour, and the training images have {channels}")
    upright = plain(image, channels)
    upright = upright if upright.size == size else ImageOps.fit(upright, size)
    return np.asarray(upright).reshape(size[1], size[0], channels)


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Return a Pillow image upright in 8-bit gray (1 channel) or colour (3).

    16 bits are rounded to 8, and what is transparent becomes white. Raises ValueError for other depths.
    """
    from PIL import Image, ImageOps

    kind = image.format
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("expected pixels of 8 or 16 bits, got floats")
    if image.mode.startswith("I"):
        if image.mode == "I" and kind not in ("PNG", "PPM"):  # these two hold 16 bits in mode I
            raise ValueError("expected pixels of 8 or 16 bits, got 32-bit integers")
        image = _to_8_bits(image)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def is_gray(image: Image.Image) -> bool:
    """Return whether a Pillow image has no colours."""
    return image.mode in _GRAY


def is_picture(value: object) -> bool:
    """Return whether a value is a Pillow image."""
    from PIL import Image

    return isinstance(value, Image.Image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture of a named format and bearable size; whatever goes wrong is a ValueError that names the file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > _LARGEST:
                    raise ValueError(f"{width}x{height} pixels exceed the limit of {_LARGEST:,}; scale it down")
                yield image
    except Exception as error:  # a broken file makes Pillow's parsers fail in many ways
        raise ValueError(f"{printable(path)}: not a readable image: {printable(str(error))}") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of a Pillow image as `fitted` turns it, by its EXIF orientation."""
    from PIL import ExifTags

    width, height = image.size
    if image.format == "TIFF":  # whose sides some releases of Pillow have exchanged already
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
    if image.format == "PNG" and "exif" not in image.info:  # getexif() would decode the whole picture to look further
        return width, height
    turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (height, width) if turned else (width, height)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit gray as 8 bits, rounded, without more memory than a few times the picture."""
    from PIL import Image

    pixels = np.asarray(image).clip(0, 65535).astype(np.uint16)
    clear = image.info.get("transparency")
    white = None if clear is None else pixels == clear
    # The nearest integer to x / 257 in 16 bits: (x - (x >> 8)) >> 8 is the quotient rounded down.
    pixels = np.minimum(pixels, 65535 - 128) + np.uint16(128)
    pixels = ((pixels - (pixels >> 8)) >> 8).astype(np.uint8)
    if white is not None:
        pixels[white] = 255
    return Image.fromarray(pixels)
