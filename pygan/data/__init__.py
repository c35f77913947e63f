"""Data: names, folders of images, tensors, arrays and torch Datasets, all as `Splits`.

    splits = pygan.data.load("mnist")           # digits, mnist, cifar10
    splits = pygan.data.load("faces/")          # a folder of images
    splits = pygan.data.load(tensor, seed=1)    # split 80/10/10 at random

See docs/data.md for what can be passed and where files are looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pygan._nearest import nearest
from pygan.data import arrays, cifar10, digits, folders, mnist
from pygan.data.splits import Source, Splits, as_float, divide, with_given

__all__ = ["NAMES", "Data", "Splits", "as_float", "load"]

Data: TypeAlias = str | Path | Tensor | np.ndarray[Any, Any] | Dataset[Any]

_NAMED: dict[str, Callable[[str | Path | None], Source]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "cifar10": cifar10.load,
}
NAMES = tuple(_NAMED)


def load(
    data: Data, *, root: str | Path | None = None, seed: int = 0, valid: Data | None = None, test: Data | None = None
) -> Splits:
    """Loads images and their splits.

    Args:
        data: a name ("digits", "mnist", "cifar10"), the path of a folder of images or of a .npy file, a tensor or array
            ([N, C, H, W], [N, H, W] or [N, d]; uint8, or floats in [0, 1]), or a map-style Dataset, of whose items
            (x, y) x counts. Of a name and a folder called alike, the name wins; write "./mnist" for the folder.
        root: folder that holds `mnist/`, `cifar10/`, only read; default $PYGAN_DATA. What is not there is taken from
            the user's cache, to which it is downloaded once.
        seed: of the random 80/10/10 split of data that bring none of their own.
        valid, test: the caller's own splits, in any form of `data` but a name; used as they are.

    Returns:
        The splits on the CPU, uint8 or float32; `protocol` says in one sentence how they came about.

    Raises:
        TypeError: no such kind of data, or a dtype that is neither uint8 nor floating.
        ValueError: an unknown name, a wrong shape or range, a malformed file (the message names file and offset).
        FileNotFoundError: files that are neither here nor to be downloaded; the message says which to put where.
    """
    if isinstance(data, str) and data in _NAMED:
        source = _NAMED[data](root)
    elif isinstance(data, str | Path) and (path := _path(data)).is_dir():
        source = folders.load(path)
    else:
        images = _images(data, "data")
        source = Source(_name(data), images, f"{_name(data)}: {len(images):,} images")
    shape = folders.shape_of(source.train)
    given_valid = None if valid is None else _images(valid, "valid", shape)
    given_test = None if test is None else _images(test, "test", shape)
    return divide(with_given(source, given_valid, given_test), seed)


def _images(data: Data, what: str, shape: folders.Shape | None = None) -> Tensor:
    """Returns the images of anything but a name as [N, C, H, W]; `shape` is what a folder's images are brought to."""
    if isinstance(data, Tensor):
        return arrays.from_tensor(data, what)
    if isinstance(data, np.ndarray):
        return arrays.from_array(data, what)
    if isinstance(data, Dataset):
        return arrays.from_dataset(data, what)
    if isinstance(data, str | Path):
        path = _path(data)
        if path.is_dir():
            return folders.read(path, shape)[0]
        if path.is_file() and path.suffix == ".npy":
            return arrays.from_array(arrays.read_npy(path), str(path))
        if path.is_file():
            raise ValueError(f"{what}: must be a folder of images or a .npy file, got the file {path}")
        raise ValueError(
            f"{what}: {str(data)!r} is neither a data set ({', '.join(NAMES)}) nor a folder of images"
            + nearest(str(data), NAMES)
        )
    raise TypeError(
        f"{what}: must be a name, a folder of images, a .npy file, a tensor, an array or a torch Dataset, "
        f"got {type(data).__name__}"
    )


def _path(data: str | Path) -> Path:
    return Path(data).expanduser()


def _name(data: Data) -> str:
    if isinstance(data, str | Path):
        return Path(data).stem
    return {Tensor: "tensor", np.ndarray: "array"}.get(type(data), type(data).__name__.lower())
