"""Data: names, folders of images, tensors, arrays and torch Datasets, all as `Splits` of images and labels.

    splits = pygan.data.load("mnist")           # digits, mnist, cifar10, olivetti
    splits = pygan.data.load("faces/")          # a folder of images
    splits = pygan.data.load(tensor, seed=1)    # split 80/10/10 at random

See docs/data.md for what can be passed and where files are looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pygan._nearest import nearest
from pygan._session import own_defaults
from pygan.data import arrays, cifar10, densities, digits, folders, mnist, olivetti, stacked, tfd
from pygan.data.batch import Batch
from pygan.data.names import printable
from pygan.data.resize import check_image_size, resized
from pygan.data.scaling import SCALES, Scale, make_scale
from pygan.data.splits import Source, Splits, as_float, divide, with_given

__all__ = ["NAMED", "SCALES", "Batch", "Data", "Scale", "Source", "Splits", "as_float", "load", "make_scale"]

Array: TypeAlias = Tensor | np.ndarray[Any, Any]
Data: TypeAlias = str | Path | Array | tuple[Array, Array] | Dataset[Any]
"""What `load` accepts: a name, a path, a tensor or array, a pair (images, labels), or a Dataset."""

NAMED: dict[str, Callable[[str | Path | None], Source]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "olivetti": olivetti.load,
    "stacked_mnist": stacked.load,
    **tfd.LOADERS,
    **densities.LOADERS,
}
"""The named data sets: each loader takes the data root (or None) and returns a `Source`. A new one is one entry."""


@own_defaults(torch.device("cpu"))
def load(
    data: Data,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    valid: Data | None = None,
    test: Data | None = None,
    image_size: int | None = None,
) -> Splits:
    """Load images, their labels if there are any, and their splits.

    Args:
        data: a name ("digits", "mnist", "cifar10", "olivetti"), the path of a folder of images or of a .npy or .npz
            file, a tensor or array ([N, C, H, W], [N, H, W] or [N, d]; uint8, or floats in [0, 1]), a pair (images,
            labels) of these (labels: integers [N]), or a map-style Dataset of images or (image, label) pairs. Of a
            name and a folder called alike, the name wins; write "./mnist" for the folder.
        root: folder that holds `mnist/`, `cifar10/`, `olivetti/`, only read; default $PYGAN_DATA. What is not there is
            taken from the user's cache, to which it is downloaded once.
        seed: of the random 80/10/10 split of data that bring none of their own.
        valid, test: the caller's own splits, in any form of `data` but a name; used as they are.
        image_size: side in pixels of the square that all images are cropped to about their centre and resized to, with
            antialiasing. None keeps the size of data in memory; folders and Datasets of PIL images keep their size if
            all have the same one, of at most 64 pixels a side, and else become squares of at most 64.

    Returns:
        The splits on the CPU, uint8 or float32; `protocol` says in one sentence how they came about.

    Raises:
        TypeError: no such kind of data, or a dtype that is neither uint8 nor floating.
        ValueError: an unknown name, a wrong shape or range, a malformed file (the message names file and offset), more
            than 4 GiB of pixels that are not in a folder.
        FileNotFoundError: files that are neither here nor to be downloaded; the message says which to put where.
        OSError: a folder that cannot be read, or a disk without room for its decoded images.
    """
    image_size = check_image_size(image_size)
    if isinstance(data, str) and data in NAMED:
        source = resized(NAMED[data](root), image_size, data)
    elif isinstance(data, str | Path) and (path := _path(data, "data")).is_dir():
        source = folders.load(path, image_size)
    else:
        source = _source(data, "data", None, image_size)
    shape = folders.shape_of(source.train.images)
    given = {
        split: None if other is None else _source(other, split, shape, image_size)
        for split, other in (("valid", valid), ("test", test))
    }
    return divide(with_given(source, **given), seed)


def name_of(data: Any) -> str:
    """Return the name that `load` gives to data, without loading them; that of a new data set is its entry's."""
    if isinstance(data, str) and data in NAMED:
        return data
    if isinstance(data, str | Path) and (path := Path(os.path.abspath(Path(data).expanduser()))).is_dir():
        return folders.name_of(path)
    return _name(data[0] if isinstance(data, tuple | list) and len(data) == 2 else data)


def _source(data: Data, what: str, shape: folders.Shape | None, image_size: int | None) -> Source:
    """Return the images of anything but a name as one split.

    `shape` = (C, H, W) is what pictures of folders and Datasets are brought to; None leaves it to `image_size`.
    """
    if isinstance(data, str | Path) and (path := _path(data, what)).is_dir():
        try:
            return folders.read(path, shape, image_size)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
    if isinstance(data, Dataset):
        source = arrays.from_dataset(data, what, _name(data), shape, image_size)
    else:
        source = _array_source(data, what)
    return resized(source, image_size, what)


def _array_source(data: Any, what: str) -> Source:
    """Return the images of a tensor, an array, a pair or a file."""
    if isinstance(data, Tensor | np.ndarray):
        return arrays.labelled(data, None, what, _name(data))
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray):
        return arrays.labelled(data[0], data[1], what, _name(data[0]))
    if not isinstance(data, str | Path):
        advice = "; pass its .dataset" if isinstance(data, DataLoader) else ""
        if isinstance(data, tuple | list):
            advice = "; torch.stack or np.stack makes one of many images"
        raise TypeError(
            f"{what}: must be a name, a folder of images, a .npy or .npz file, a tensor, an array, a pair "
            f"(images, labels) or a torch Dataset, got {type(data).__name__}{advice}"
        )
    path = _path(data, what)
    if path.is_file() and path.suffix.lower() == ".npy":
        return arrays.labelled(arrays.read_npy(path), None, printable(path), _name(path))
    if path.is_file() and path.suffix.lower() == ".npz":
        return arrays.labelled(*arrays.read_npz(path), printable(path), _name(path))
    if path.is_file():
        raise ValueError(f"{what}: must be a folder of images, a .npy or a .npz file, got the file {printable(path)}")
    raise ValueError(
        f"{what}: {str(data)!r} is neither a data set ({', '.join(NAMED)}) nor a folder of images"
        + nearest(str(data), NAMED)
    )


def _path(data: str | Path, what: str) -> Path:
    if isinstance(data, str) and not data.strip():
        raise ValueError(f"{what}: must be a name or a path, got {data!r}; '.' is the current folder")
    return Path(data).expanduser()


def _name(data: Data) -> str:
    if isinstance(data, str | Path):
        return "".join(char if char.isprintable() else "_" for char in Path(data).stem)
    return {Tensor: "tensor", np.ndarray: "array"}.get(type(data), type(data).__name__.lower())
