"""CIFAR-10: 32x32 colour images (Krizhevsky 2009), read from the binary edition (the python edition is pickles)."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from pygan.data.batch import Batch
from pygan.data.files import Remote, download, locate, verify
from pygan.data.splits import Source

_ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    limit=256 << 20,  # it has 162 MiB
)
_SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORDS = 10_000  # in each file
_RECORD = 1 + 3 * 32 * 32  # bytes: label 0..9, then the red, green and blue plane, row by row


def load(root: str | Path | None) -> Source:
    """Return CIFAR-10 in the split of the paper's authors."""
    paths = locate("cifar10", list(_SHA256), root, _fetch)
    records = [read_records(path, _RECORDS) for path in paths]
    for path in paths:
        verify(path, _SHA256[path.name])
    return Source(
        "cifar10",
        _batch(np.concatenate(records[:4])),
        "CIFAR-10: train = the first 40,000 and valid = the last 10,000 of the 50,000 training images in file order, "
        "test = the 10,000 test images",
        valid=_batch(records[4]),
        test=_batch(records[5]),
        classes=_CLASSES,
    )


def read_records(path: Path, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read a file of the binary edition that must hold exactly `count` records.

    Return uint8 [count, 3073]: a label 0..9, then the pixels. Raises ValueError with file, offset and expectation.
    """
    size = path.stat().st_size
    if size != count * _RECORD:
        raise ValueError(f"{path}: expected {count * _RECORD:,} bytes ({count:,} records of {_RECORD:,}), got {size:,}")
    records = np.fromfile(path, dtype=np.uint8).reshape(count, _RECORD)
    wrong = np.flatnonzero(records[:, 0] >= len(_CLASSES))
    if wrong.size:
        raise ValueError(f"{path}: expected a label 0..9 at offset {wrong[0] * _RECORD:,}, got {records[wrong[0], 0]}")
    return records


def _batch(records: np.ndarray[Any, np.dtype[np.uint8]]) -> Batch:
    images = records[:, 1:].reshape(len(records), 3, 32, 32).copy()
    return Batch(torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64)))


def _fetch(folder: Path) -> None:
    archive = download("cifar10", _ARCHIVE, folder)
    # Unpacked beside and renamed, so that a batch is there whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder) as beside, tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in _SHA256 and (content := tar.extractfile(member)) is not None:
                (Path(beside) / name).write_bytes(content.read())
                os.replace(Path(beside) / name, folder / name)
    archive.unlink(missing_ok=True)  # another process may have unpacked it too
