"""The samples over the epochs as an animated picture, made of the pictures that a run writes from the same noise."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pygan.pictures import read

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["film"]

_FRAMES = 40  # of a longer run, so many are chosen at even distances
_PIXELS = 1_500_000  # of all frames together: what a page can carry
_STRIP = 16  # pixels above each picture, for its epoch
_COLOURS = 256
_SHOWN, _LAST = 150, 2000  # milliseconds


def film(pictures: Sequence[tuple[int, Path]]) -> bytes | None:
    """Return a GIF that shows pictures of samples in turn, each below the number of its epoch.

    It has at most 40 frames, and 1.5 million pixels in all frames together, however long the run was.

    Args:
        pictures: epochs, ascending, and the PNG file of each.

    Returns:
        The content of a GIF file, or None if there are fewer than two pictures.

    Raises:
        DamagedError: a file is no picture.
    """
    if len(pictures) < 2:
        return None
    n = min(_FRAMES, len(pictures))
    chosen = [pictures[round(i * (len(pictures) - 1) / (n - 1))] for i in range(n)]
    last = read(chosen[-1][1])
    scale = min(1.0, math.sqrt(_PIXELS / (n * last.width * last.height)))
    size = max(1, round(scale * last.width)), max(1, round(scale * last.height))
    first, *rest = (_frame(epoch, path, size) for epoch, path in chosen)
    content = io.BytesIO()
    durations = [_SHOWN] * (n - 1) + [_LAST]
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return content.getvalue()


def _frame(epoch: int, path: Path, size: tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageDraw

    picture = read(path)
    pixels = picture.convert("L" if picture.mode == "L" else "RGB").resize(size, Image.Resampling.BOX)
    frame = Image.new(pixels.mode, (size[0], size[1] + _STRIP), "white")
    frame.paste(pixels, (0, _STRIP))
    ImageDraw.Draw(frame).text((4, 2), f"epoch {epoch:,}", fill="black")
    return frame if frame.mode == "L" else frame.quantize(_COLOURS, Image.Quantize.FASTOCTREE)
