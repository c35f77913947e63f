"""Pictures that are too many for memory: decoded once into a file of the user's cache, which is then mapped.

The file has a header of 4096 bytes, JSON padded with spaces, and then the pixels, uint8 [N, C, H, W]. The header has
two checksums, one of the pixels and one of its other entries. The file is written beside its place, flushed and
renamed, under a lock: of several processes that need it, one writes and the others wait.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygan._files import flush_folder
from pygan._terminal import say
from pygan.data.files import cache_folder

__all__ = ["Cache", "Header"]

_HEADER = 4096
_FORMAT = 2
_SPARE = 64 << 20  # bytes of the disk that are left free


@dataclass(frozen=True)
class Header:
    """What a cache says of its pixels.

    Attributes:
        fingerprint: of the files that the pixels are from.
        shape: (N, C, H, W).
        resized: pictures that had another size.
        sha256: of the pixels.
        format: of the file.
    """

    fingerprint: str
    shape: tuple[int, int, int, int]
    resized: int
    sha256: str = ""
    format: int = _FORMAT

    @property
    def size(self) -> int:
        """Bytes of the pixels."""
        return math.prod(self.shape)

    def encode(self) -> bytes:
        """Return the first 4096 bytes of the file."""
        known = asdict(self)
        checksum = hashlib.sha256(json.dumps(known).encode()).hexdigest()
        return json.dumps({**known, "checksum": checksum}).encode().ljust(_HEADER)


class Cache:
    """The cache of one folder of images, brought to one size.

    Args:
        what: the folder's name, for messages.
        key: what tells this cache from others: the folder's path and the size that was asked for.
    """

    def __init__(self, what: str, key: str) -> None:
        self.what = what
        self.path = (
            cache_folder()
            / "folders"
            / f"{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:24]}.pixels"
        )
        self._bad: tuple[int, ...] | None = None  # the file that `read` has found to be stale or damaged

    def exists(self) -> bool:
        """Return whether there is a cache, perhaps a stale one."""
        return self.path.is_file()

    def read(self, fingerprint: str) -> tuple[Header, Tensor] | None:
        """Return the header and the mapped pixels; None if there is no cache, or a stale or a damaged one.

        In the last two cases a line on standard error says so. The same file is neither checked nor named again.
        """
        if not self.exists() or _identity(self.path.stat()) == self._bad:
            return None
        header, wrong = self._check(fingerprint)
        if header is None:
            say(f"pygan: {self.what}: the cache {self.path} {wrong}; the images are decoded again")
            return None
        mapped = torch.from_file(str(self.path), shared=False, size=_HEADER + header.size, dtype=torch.uint8)
        return header, mapped[_HEADER:].view(header.shape)

    def write(self, header: Header, images: Callable[[], Iterable[np.ndarray[Any, Any]]]) -> tuple[Header, Tensor]:
        """Return what `read` does, after writing the images, uint8 [C, H, W] each, unless another process has done so.

        Raises OSError, before anything is decoded, if the disk has too little space.
        """
        import filelock  # here: `import pygan` needs torch and numpy alone

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.path.with_suffix(".lock")):
            found = self.read(header.fingerprint)
            if found is None:
                self.check_space(header.size)
                say(f"pygan: {self.what}: decoding {header.shape[0]:,} images once, {self.describe(header.size)}")
                self._write(header, images())
                found = self.read(header.fingerprint)
        if found is None:
            raise OSError(f"{self.path}: what was written cannot be read; the disk or its file system is faulty")
        return found

    def describe(self, size: int) -> str:
        """Return where so many bytes are written, in words."""
        return f"into a cache of {size / 2**30:.2f} GiB at {self.path}"

    def check_space(self, size: int) -> None:
        """Raise OSError if the disk has no room for so many bytes."""
        folder = next(folder for folder in self.path.parents if folder.is_dir())
        free = shutil.disk_usage(folder).free
        if size + _SPARE > free:
            raise OSError(
                f"{self.what}: the decoded images need {size / 2**30:.2f} GiB at {self.path.parent}, and "
                f"{free / 2**30:.2f} are free; set $PYGAN_CACHE to a folder elsewhere, or pass a smaller image_size="
            )

    def _check(self, fingerprint: str) -> tuple[Header | None, str]:
        """Return the header of a good cache, or what is wrong with it."""
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            header, wrong = _decode(file.read(_HEADER))
            if header is not None:
                if header.fingerprint != fingerprint:
                    wrong = "is stale (the folder has changed)"
                elif status.st_size != _HEADER + header.size:
                    wrong = "is damaged (its length)"
                elif hashlib.file_digest(file, "sha256").hexdigest() != header.sha256:
                    wrong = "is damaged (its checksum)"
        if wrong:
            self._bad = _identity(status)
            return None, wrong
        return header, ""

    def _write(self, header: Header, images: Iterable[np.ndarray[Any, Any]]) -> None:
        beside = self.path.with_suffix(".part")  # of a killed process, too: the lock is ours
        digest = hashlib.sha256()
        try:
            with beside.open("wb") as file:
                file.write(b" " * _HEADER)
                for image in images:
                    digest.update(image.data)
                    file.write(image.data)
                file.seek(0)
                file.write(replace(header, sha256=digest.hexdigest()).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)
        flush_folder(self.path.parent)


def _decode(block: bytes) -> tuple[Header | None, str]:
    """Return the header that `Header.encode` has made these bytes of, or what is wrong with them."""
    try:
        known = json.loads(block)
        if known["format"] != _FORMAT:
            return None, "was written by another version"
        del known["checksum"]
        header = Header(**{**known, "shape": tuple(known["shape"])})
        if header.encode() == block:
            return header, ""
    except (KeyError, RecursionError, TypeError, ValueError):
        pass
    return None, "is damaged (its header)"


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from the one that takes its place."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
