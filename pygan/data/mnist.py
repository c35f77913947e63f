"""MNIST: 28x28 handwritten digits (LeCun, Cortes, Burges), read from the published IDX files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pygan.data.files import Remote, download, locate, verify
from pygan.data.splits import Source

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
}
_IMAGES = 0x00000803  # magic number: unsigned bytes, three dimensions


def load(root: str | Path | None) -> Source:
    """Returns MNIST in the split of the paper's authors."""
    paths = locate("mnist", list(_SHA256), root, _fetch)
    train, test = (read_idx(path, (count, 28, 28)) for path, count in zip(paths, (60_000, 10_000), strict=True))
    for path in paths:
        verify(path, _SHA256[path.name])
    return Source(
        "mnist",
        train[:50_000],
        "MNIST: train = the first 50,000 and valid = the last 10,000 of the 60,000 training images in file order, "
        "test = the 10,000 test images",
        valid=train[50_000:],
        test=test,
    )


def read_idx(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Reads a gzipped IDX file that must hold exactly `shape` = (count, rows, columns) unsigned bytes.

    Returns uint8 [count, 1, rows, columns]. Raises ValueError with file, offset and what was expected.
    """
    size = math.prod(shape)
    try:
        with gzip.open(path) as file:
            header, pixels = file.read(16), file.read(size + 1)  # one byte more shows a file that is too long
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file of {16 + size:,} bytes unpacked, got: {error}") from error
    if len(header) < 16:
        raise ValueError(f"{path}: expected a header of 16 bytes at offset 0, got {len(header)}")
    for i, (found, expected) in enumerate(zip(struct.unpack(">4I", header), (_IMAGES, *shape), strict=True)):
        if found != expected:
            field = ("magic number", "count", "rows", "columns")[i]
            raise ValueError(f"{path}: expected {field} {expected} at offset {4 * i}, got {found}")
    if len(pixels) != size:
        got = "more" if len(pixels) > size else f"{len(pixels):,}"
        raise ValueError(f"{path}: expected {size:,} bytes of pixels at offset 16, got {got}")
    return torch.from_numpy(np.frombuffer(pixels, dtype=np.uint8).copy()).view(shape[0], 1, *shape[1:])


def _fetch(folder: Path) -> None:
    for name, sha256 in _SHA256.items():
        download("mnist", Remote(name, sha256, tuple(mirror + name for mirror in _MIRRORS)), folder)
