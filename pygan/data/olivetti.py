"""The Olivetti faces: 400 gray faces of 40 people, 64x64 (AT&T Laboratories Cambridge, 1992 to 1994)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pygan.data.arrays import read_npz
from pygan.data.batch import Batch
from pygan.data.files import Remote, download, find, locate, verify
from pygan.data.mat import read_mat
from pygan.data.splits import Source

_NPZ = "olivetti_faces.npz"  # `images` uint8 [400, 64, 64]
_MAT = Remote(  # `faces` uint8 [4096, 400], each face column by column; scikit-learn's fetch_olivetti_faces has it too
    "olivettifaces.mat",
    "b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794",
    ("https://ndownloader.figshare.com/files/5976027", "https://cs.nyu.edu/~roweis/data/olivettifaces.mat"),
    limit=16 << 20,
)
_PIXELS_SHA256 = "a3f75007cc103363b61a63e06bec8ea4846407682ef6e7c9ae1eb9c1bd0e8a00"  # of the bytes of `images`
_PEOPLE, _EACH = 40, 10  # ten images of each person, in order


def load(root: str | Path | None) -> Source:
    """Return the faces as uint8 [400, 1, 64, 64]; the brightest pixel is 242. The class is the person."""
    if (paths := find("olivetti", [_NPZ], root)) is not None:
        images = _read_npz(*paths)
    else:
        images = _read_mat(*locate("olivetti", [_MAT.name], root, _fetch))
    return Source(
        "olivetti",
        Batch(torch.from_numpy(images).unsqueeze(1), torch.arange(_PEOPLE).repeat_interleave(_EACH)),
        "Olivetti: 400 faces of 40 people, 64x64 pixels",
        classes=tuple(map(str, range(_PEOPLE))),
    )


def _read_npz(path: Path) -> np.ndarray[Any, Any]:
    images, _ = read_npz(path)
    found = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    if images.dtype != np.uint8 or images.shape != (_PEOPLE * _EACH, 64, 64) or found != _PIXELS_SHA256:
        raise ValueError(
            f"{path}: expected `images` uint8 [400, 64, 64] with sha256 {_PIXELS_SHA256}, got {images.dtype} "
            f"{list(images.shape)} with {found}: the file is damaged, or another one"
        )
    return images


def _read_mat(path: Path) -> np.ndarray[Any, Any]:
    verify(path, _MAT.sha256)
    faces = read_mat(path, ["faces"])["faces"]
    return np.ascontiguousarray(faces.T.reshape(_PEOPLE * _EACH, 64, 64).transpose(0, 2, 1), dtype=np.uint8)


def _fetch(folder: Path) -> None:
    download("olivetti", _MAT, folder)
