"""What a page shows of one run: its record, and pictures of its generator's samples, as far as they can be made."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pygan import latent, pictures
from pygan.data.files import no_downloads
from pygan.film import film
from pygan.folder import RunFolder
from pygan.record import Record, read_record
from pygan.run import Run, load

__all__ = ["Picture", "Subject"]

_NEIGHBOURS = 10  # samples that are shown with the nearest training image
_PATHS, _STEPS = 4, 10  # of the interpolation
_MOST_PIXELS = 600_000  # of a picture on the page; a larger one is reduced
_FAILURES = (OSError, RuntimeError, ValueError)  # data that were in memory or have moved, weights that are damaged


@dataclass(frozen=True)
class Picture:
    """A picture, or why there is none.

    Attributes:
        alt: what it shows, for those who do not see it.
        source: a data URI, or "".
        width, height: in pixels.
        missing: why there is no picture, or "".
    """

    alt: str
    source: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


@dataclass(frozen=True)
class Subject:
    """A run on a page.

    Attributes:
        record: everything but its weights.
        weights: which ones made the pictures ("of the best epoch, 180"), or "" where that is not known.
        samples: as in the run folder.
        neighbours: samples above the training images nearest to them.
        interpolation: rows from one noise vector to another.
        film: the samples over the epochs.
    """

    record: Record
    weights: str
    samples: Picture
    neighbours: Picture
    interpolation: Picture
    film: Picture

    @classmethod
    def of(cls, run: Run | str | Path, weights: str = "") -> Subject:
        """Look at a run; or at the run in a folder, with the weights of its best epoch, or else the last ones."""
        if not isinstance(run, Run):
            record = read_record(run)
            found, weights, missing = _load(record)
        else:
            record, found, missing = Record.of(run), run, ""
        before = RunFolder(record.path).pictures()
        if found is None and before:
            epoch, path = before[-1]
            weights = f"after epoch {epoch:,}"
            samples = _picture("samples", lambda: _file(path))
        else:
            samples = _of_generator("samples", Run.picture, found, missing)
        return cls(
            record,
            weights,
            samples,
            _of_generator(
                "pairs of rows: samples, and below each the training image nearest to it", _neighbours, found, missing
            ),
            _of_generator(
                f"{_PATHS} rows of images that change step by step from one sample to another",
                _interpolation,
                found,
                missing,
            ),
            _picture("the samples of successive epochs", lambda: _film(before)),
        )


def _load(record: Record) -> tuple[Run | None, str, str]:
    """The run with its weights and which they are, or else why there are none."""
    best, missing = record.best(), list[str]()
    for name, weights in (
        ("best", "of the best epoch" + (f", {best['epoch']:,}" if best is not None else "")),
        ("last", "of the last checkpoint"),
    ):
        try:
            return load(record.path, name), weights, ""
        except _FAILURES as error:  # FileNotFoundError too
            missing.append(str(error))
    return None, "", "; ".join(missing)


def _of_generator(alt: str, make: Callable[[Run], bytes], run: Run | None, missing: str) -> Picture:
    return Picture(alt, missing=missing) if run is None else _picture(alt, lambda: make(run))


def _picture(alt: str, make: Callable[[], bytes]) -> Picture:
    """The picture, reduced to what a page can carry; or why it cannot be made."""
    from PIL import Image

    try:
        with no_downloads():
            content = make()
    except _FAILURES as error:
        return Picture(alt, missing=str(error))
    with Image.open(io.BytesIO(content)) as image:
        form, (width, height) = str(image.format).lower(), image.size
        if form == "png" and width * height > _MOST_PIXELS:
            scale = math.sqrt(_MOST_PIXELS / (width * height))
            width, height = max(1, round(scale * width)), max(1, round(scale * height))
            smaller = io.BytesIO()
            image.resize((width, height), Image.Resampling.LANCZOS).save(smaller, format="PNG")
            content = smaller.getvalue()
    return Picture(alt, f"data:image/{form};base64,{base64.b64encode(content).decode()}", width, height)


def _file(path: Path) -> bytes:
    """The content of a file that holds a picture."""
    pictures.read(path)
    return path.read_bytes()


def _neighbours(run: Run) -> bytes:
    _refuse_points(run)
    samples = run.sample(_NEIGHBOURS, run.seed)
    pairs = torch.stack([samples, run.nearest_training_images(samples)])  # [2, n, C, H, W]
    half = _NEIGHBOURS // 2
    rows = pairs.unflatten(1, (2, half)).transpose(0, 1)  # samples, nearest; samples, nearest
    return pictures.png(pictures.grid(rows.flatten(0, 2), half))


def _interpolation(run: Run) -> bytes:
    _refuse_points(run)
    start, end = run.noise(2 * _PATHS, run.seed).unflatten(0, (2, _PATHS))
    noise = latent.interpolate(start, end, _STEPS).flatten(0, 1)
    labels = torch.arange(_PATHS).repeat_interleave(_STEPS) % run.game.classes if run.game.classes else None
    return pictures.png(pictures.grid(run.generate(noise, labels), _STEPS))


def _refuse_points(run: Run) -> None:
    if pictures.is_plottable(run.shape):
        raise ValueError("The data are points, not images.")


def _film(before: Sequence[tuple[int, Path]]) -> bytes:
    content = film(before)
    if content is None:
        raise ValueError("There are fewer than two pictures of samples.")
    return content
