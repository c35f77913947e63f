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

from pygan.data.batch import Batch
from pygan.data.files import Remote, download, locate, verify
from pygan.data.splits import Source

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_SHAPES = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))  # of these files
_LIMIT = 16 << 20  # bytes of a download; the largest file has 10 million
_BYTES = 0x0800  # magic number: unsigned bytes; its last byte is the number of dimensions


def load(root: str | Path | None) -> Source:
    """Return MNIST in the split of the paper's authors."""
    paths = locate("mnist", list(_SHA256), root, _fetch)
    images, labels, test_images, test_labels = map(read_idx, paths, _SHAPES)
    for path in paths:
        verify(path, _SHA256[path.name])
    train = Batch(images.unsqueeze(1), labels.long())
    return Source(
        "mnist",
        train[:50_000],
        "MNIST: train = the first 50,000 and valid = the last 10,000 of the 60,000 training images in file order, "
        "test = the 10,000 test images",
        valid=train[50_000:],
        test=Batch(test_images.unsqueeze(1), test_labels.long()),
        classes=tuple(map(str, range(10))),
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read a gzipped IDX file that must hold exactly `shape` unsigned bytes: (count, rows, columns), or (count,).

    Return uint8 of that shape. Raises ValueError with file, offset and what was expected.
    """
    start, size = 4 + 4 * len(shape), math.prod(shape)
    try:
        with gzip.open(path) as file:
            header, values = file.read(start), file.read(size + 1)  # one byte more shows a file that is too long
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        whole = f"{start + size:,} bytes unpacked"
        raise ValueError(f"{path}: expected a whole gzip file of {whole}, got: {error}") from error
    if len(header) < start:
        raise ValueError(f"{path}: expected a header of {start} bytes at offset 0, got {len(header)}")
    fields = struct.unpack(f">{1 + len(shape)}I", header)
    for i, (found, expected) in enumerate(zip(fields, (_BYTES + len(shape), *shape), strict=True)):
        if found != expected:
            field = ("magic number", "count", "rows", "columns")[i]
            raise ValueError(f"{path}: expected {field} {expected} at offset {4 * i}, got {found}")
    if len(values) != size:
        got = "more" if len(values) > size else f"{len(values):,}"
        raise ValueError(f"{path}: expected {size:,} bytes of data at offset {start}, got {got}")
    return torch.from_numpy(np.frombuffer(values, dtype=np.uint8).copy()).view(shape)


def _fetch(folder: Path) -> None:
    for name, sha256 in _SHA256.items():
        download("mnist", Remote(name, sha256, tuple(mirror + name for mirror in _MIRRORS), _LIMIT), folder)
