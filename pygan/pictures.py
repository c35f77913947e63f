"""Grids of images as PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pygan._files import DamagedError, damaged, replace_file, require_regular

if TYPE_CHECKING:
    from PIL import Image

_CELL = 64  # pixels: smaller images are enlarged towards it by a whole factor
_GAP = 2  # pixels between images
_GAP_COLOUR = 96


def grid(images: Tensor, columns: int | None = None, enlarge: bool = True) -> Tensor:
    """Lay images out in rows from left to right.

    Args:
        images: [N, C, H, W], N >= 1, uint8 or floats in [0, 1]; values outside are clipped. Other than 1 or 3 channels
            are shown as their mean, in gray.
        columns: images in a row; default: the picture becomes about square.
        enlarge: whether to enlarge small images by a whole factor, smoothly (bicubic), since 8x8 squares are hard to
            recognise as a digit.

    Returns:
        uint8 [rows * height, columns * width, 1 or 3], gaps included.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, a NaN, or columns < 1.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"grid: images must be uint8 or floats in [0, 1], got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"grid: images must have shape [N, C, H, W], none of them 0, got {list(images.shape)}")
    if columns is not None and columns < 1:
        raise ValueError(f"grid: columns must be at least 1, got {columns}")
    if images.isnan().any():
        raise ValueError("grid: images must be numbers in [0, 1], got NaN")
    images = images.detach().cpu()
    images = images.float() if images.dtype == torch.uint8 else images.float() * 255
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    images = images.clamp(0, 255)
    if enlarge and (scale := _CELL // max(images.shape[2:])) > 1:
        images = interpolate(images, scale_factor=scale, mode="bicubic").clamp(0, 255)
    images = images.round().to(torch.uint8)
    n, channels, height, width = images.shape
    columns = min(n, columns or max(1, round(math.sqrt(n * height / width))))
    rows = math.ceil(n / columns)
    cells = torch.full(
        (rows * columns, channels, height + _GAP, width + _GAP), _GAP_COLOUR, dtype=torch.uint8, device="cpu"
    )
    cells[:n, :, :height, :width] = images
    picture = cells.view(rows, columns, channels, height + _GAP, width + _GAP).permute(0, 3, 1, 4, 2)
    return picture.reshape(rows * (height + _GAP), columns * (width + _GAP), channels)[:-_GAP, :-_GAP].contiguous()


def save_png(path: str | Path, images: Tensor, columns: int | None = None, enlarge: bool = True) -> None:
    """Write `grid(images, columns, enlarge)` as a PNG file.

    The file is replaced atomically.

    Raises:
        TypeError, ValueError: see `grid`; a name that does not end in .png.
        OSError: the file cannot be written; no temporary file is left.
    """
    path = png_path(path)
    encoded = png(grid(images, columns, enlarge))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, encoded)


def png_path(path: str | Path) -> Path:
    """Return the path of a PNG file; ValueError if its name ends otherwise, since the content would belie it."""
    path = Path(path).expanduser()
    if path.suffix.lower() != ".png":
        raise ValueError(f"path: must end in .png, the format of pictures, got {path.name!r}")
    return path


def png(picture: Tensor) -> bytes:
    """Return a picture, uint8 [height, width, 1 or 3], as the content of a PNG file."""
    from PIL import Image

    encoded = io.BytesIO()
    pixels = picture.numpy()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(encoded, format="PNG")
    return encoded.getvalue()


def read(path: Path) -> Image.Image:
    """Return the picture in a file, decoded. Raises DamagedError for what is none, or has too many pixels."""
    from PIL import Image, UnidentifiedImageError

    remedy = "Delete it"
    try:
        require_regular(path, remedy)
        with Image.open(path) as picture:
            picture.load()
            return picture
    except DamagedError:
        raise
    except UnidentifiedImageError:
        raise damaged(path, "it is no picture", remedy) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise damaged(path, error, remedy) from None


def is_plottable(shape: Sequence[int]) -> bool:
    """Return whether examples of this shape (C, H, W) are points of a line or a plane, which are better plotted."""
    return math.prod(shape) <= 2


def save_points(path: str | Path, samples: Tensor) -> None:
    """Write `points_png(samples)` to a file. Who reads it meanwhile sees the old picture or the new one."""
    path = png_path(path)
    encoded = points_png(samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, encoded)


def points_png(samples: Tensor, data: Tensor | None = None) -> bytes:
    """Return points as the content of a PNG file: those of a line as histograms, those of a plane as clouds.

    Args:
        samples: [n, ...] of 1 or 2 floats each, the generator's.
        data: the real ones, drawn behind them; None draws none.
    """
    from matplotlib.figure import Figure

    from pygan.figures.canvas import own_style, picture

    named = {"data": data, "samples": samples}
    clouds = {name: points.flatten(1).numpy() for name, points in named.items() if points is not None}
    low, high = min(float(x.min()) for x in clouds.values()), max(float(x.max()) for x in clouds.values())
    with own_style():
        figure = Figure(figsize=(5, 5), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        for name, values in clouds.items():
            if values.shape[1] == 1:
                axes.hist(values[:, 0], bins=100, range=(low, high), density=True, alpha=0.6, label=name)
            else:
                axes.scatter(values[:, 0], values[:, 1], s=4, alpha=0.5, label=name)
        axes.legend(loc="upper right")
        return picture(figure, "png")
