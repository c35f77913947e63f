"""The Toronto Face Database: 48x48 gray faces (Susskind, Anderson, Hinton 2010), from a file that a user applied for.

`TFD_48x48.mat` holds `images`, uint8 [N, 48, 48], and `folds`, [N, 5]: for each of five folds, what an image is for.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pygan.data.batch import Batch
from pygan.data.files import locate
from pygan.data.mat import read_mat
from pygan.data.splits import Source

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FOLDS", "LOADERS", "load"]

FOLDS = 5
_FILE = "TFD_48x48.mat"
_SIDE = 48
_UNLABELLED, _VALID, _TEST = 0, 2, 3  # in `folds`; 1 is for classifiers to train on


def load(root: str | Path | None, fold: int = 0) -> Source:
    """Return the faces without labels as training images, and the validation and test faces of a fold, 0 to 4."""
    (path,) = locate("tfd", [_FILE], root, _refuse)
    images, folds = _read(path)
    train, valid, test = (_split(path, images, folds[:, fold], use) for use in (_UNLABELLED, _VALID, _TEST))
    return Source(
        "tfd" if fold == 0 else f"tfd_fold{fold}",
        train,
        f"TFD, 48x48: train = the {len(train):,} faces without labels, valid and test = the {len(valid):,} and "
        f"{len(test):,} faces of fold {fold} of 0 to {FOLDS - 1}",
        valid=valid,
        test=test,
    )


LOADERS: dict[str, Callable[[str | Path | None], Source]] = {
    "tfd": load,
    **{f"tfd_fold{fold}": partial(load, fold=fold) for fold in range(1, FOLDS)},
}
"""A loader for each fold, of the kind that `pygan.data.NAMED` holds."""


def _read(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return `images`, uint8 [N, 48, 48], and `folds`, integers [N, 5]; ValueError says what was found instead."""
    expected = f"a MATLAB file with `images` uint8 [N, {_SIDE}, {_SIDE}] and `folds` [N, {FOLDS}]"
    found = read_mat(path, ("images", "folds"))
    arrays = [np.asarray(found.get(name, ())) for name in ("images", "folds")]
    images, folds = arrays
    if images.dtype != np.uint8 or images.shape[1:] != (_SIDE, _SIDE) or folds.shape != (len(images), FOLDS):
        got = " and ".join(f"{array.dtype} {list(array.shape)}" for array in arrays)
        raise ValueError(f"{path}: expected {expected}, got {got}")
    return images, folds


def _split(path: Path, images: np.ndarray[Any, Any], uses: np.ndarray[Any, Any], use: int) -> Batch:
    chosen = images[uses == use]
    if len(chosen) == 0:
        raise ValueError(f"{path}: expected `folds` to hold {use} for some image of every fold, got none")
    return Batch(torch.from_numpy(chosen).unsqueeze(1))


def _refuse(folder: Path) -> None:
    raise FileNotFoundError(
        f"tfd: {_FILE} is not on this machine. It is given to researchers by application only; put it at "
        f"{folder / _FILE}, or set $PYGAN_DATA to a folder that holds tfd/{_FILE}"
    )
