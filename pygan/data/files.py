"""Where the files of a data set lie, how they get there, and whether they are the right ones."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pygan._terminal import is_terminal

_may_download = ContextVar("_may_download", default=True)


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name, sha256: of the file.
        urls: addresses that are tried in turn.
        limit: bytes after which a download is given up; more than the file has.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    limit: int


def find(data_set: str, names: Sequence[str], root: str | Path | None) -> list[Path] | None:
    """Return the paths of a data set's files in `<root>/<data_set>/`, or None if one is not there.

    `root` is the argument or else $PYGAN_DATA, and is only read. Raises FileNotFoundError if it is no folder.
    """
    root = root if root is not None else os.environ.get("PYGAN_DATA") or None
    if root is None:
        return None
    if not str(root).strip():
        raise FileNotFoundError(f"root: the data root must be a folder, got {root!r}")
    if not Path(root).expanduser().is_dir():
        raise FileNotFoundError(f"root: the data root (root= or $PYGAN_DATA) is not a folder: {root}")
    paths = [Path(root).expanduser() / data_set / name for name in names]
    return paths if all(path.is_file() for path in paths) else None


def cache_folder() -> Path:
    """Return the folder of downloads and of decoded images: $PYGAN_CACHE, or else the user's own for caches."""
    import pooch  # here and below: `import pygan` needs torch and numpy alone

    return Path(os.environ.get("PYGAN_CACHE") or pooch.os_cache("pygan")).expanduser()


def may_write() -> bool:
    """Return whether data may be downloaded or decoded into the cache: not within `no_downloads`."""
    return _may_download.get()


@contextmanager
def no_downloads() -> Iterator[None]:
    """Within this context nothing is written: `locate` raises FileNotFoundError instead of downloading anything."""
    before = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(before)


def locate(data_set: str, names: Sequence[str], root: str | Path | None, fetch: Callable[[Path], None]) -> list[Path]:
    """Return the paths of a data set's files, under the root (see `find`) or in the user's cache.

    If one is in neither, `fetch(folder)` must put it into the cache.
    """
    if (paths := find(data_set, names, root)) is not None:
        return paths
    folder = cache_folder() / data_set
    if not all((folder / name).is_file() for name in names):
        if not _may_download.get():
            raise FileNotFoundError(f"{data_set} is not on this machine yet; a training downloads it to {folder}")
        fetch(folder)
    return [folder / name for name in names]


def download(data_set: str, remote: Remote, folder: Path) -> Path:
    """Return `folder/<remote.name>`, downloaded unless it is there; its sha256 has been checked.

    Raises FileNotFoundError, which says which file to put where, if no address delivers it.
    """
    import pooch

    http = pooch.HTTPDownloader(progressbar=is_terminal(sys.stderr))

    def fetch(url: str, output_file: str, pooch: Any) -> None:
        with open(output_file, "wb") as file:
            http(url, _Limited(file, remote.limit), pooch)

    failures = []
    for url in remote.urls:
        try:
            return Path(pooch.retrieve(url, f"sha256:{remote.sha256}", remote.name, folder, downloader=fetch))
        except (OSError, ValueError) as error:  # no network, a dead mirror, a full disk, or a wrong checksum
            reason = getattr(error, "strerror", None) or type(error).__name__
            failures.append(f"{urlsplit(url).hostname}: {reason}")
    raise FileNotFoundError(
        f"{data_set}: {remote.name} is not on this machine and could not be downloaded ({'; '.join(failures)}). "
        f"Fetch {remote.urls[0]} elsewhere (sha256 {remote.sha256}) and put it at {folder / remote.name}; or set "
        f"$PYGAN_DATA to a folder that holds {data_set}/"
    )


class _Limited:
    """A file that takes no more than `limit` bytes; a server may send without end."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._left, self._limit = file, limit, limit

    def write(self, content: bytes) -> None:
        self._left -= len(content)
        if self._left < 0:
            raise OSError(errno.EFBIG, f"more than {self._limit:,} bytes")
        self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def verify(path: Path, sha256: str) -> None:
    """Raises ValueError unless the file has this sha256."""
    import pooch

    found = pooch.file_hash(str(path), alg="sha256")
    if found != sha256:
        raise ValueError(
            f"{path}: expected sha256 {sha256}, got {found}: the file is damaged, or another one; replace it, or "
            "delete it to have it downloaded again"
        )
