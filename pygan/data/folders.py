"""A folder of images: any size, gray or colour, nested or not, with or without classes and splits."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from pygan.data import decode
from pygan.data.batch import Batch
from pygan.data.cache import Cache, Header
from pygan.data.decode import SUFFIXES
from pygan.data.files import may_write
from pygan.data.names import printable
from pygan.data.splits import MINIMUM, Source, with_split

_SPLITS = {  # names of sub-folders, in small letters
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LARGEST = 4 << 30  # bytes of pixels that are held in memory; of a folder:
HELD = 1 << 30  # more are decoded into a file of the cache, which is mapped
_AHEAD = 512  # images that are decoded ahead of those that are written
SIZE = 64  # of pictures that are larger or of several sizes

Shape: TypeAlias = tuple[int, int, int]  # channels, height, width
_T = TypeVar("_T")


def load(path: Path, image_size: int | None = None) -> Source:
    """Return the images of a folder; sub-folders called train, valid and test, or alike, are its splits.

    Names of splits are train or training; valid, validation, val or dev; test or testing, in any letter case. They
    count if there is one for train and at least one other.

    Args:
        path: the folder.
        image_size: see `read`.

    Raises:
        ValueError: no or too few images; split folders that are empty, twice there, or beside other folders of images;
            a file that cannot be read.
        OSError: a sub-folder that cannot be read.
    """
    path = Path(os.path.abspath(path))  # not resolve(): a link keeps its own name
    found = _find(path)
    if (folders := _split_folders(path, found.files)) is None:
        source = _read_training(found, image_size)
        if len(source.train) < MINIMUM:
            raise ValueError(f"{printable(path)}: expected at least {MINIMUM} images, got {len(source.train)}")
        return source
    source = replace(_read_training(_part(found, folders.pop("train")), image_size), name=name_of(path))
    shape = shape_of(source.train.images)
    for split, folder in folders.items():
        other = _read(_part(found, folder), shape, None)
        sentence = f"{source.protocol}; {split} = the {len(other.train):,} images in {printable(folder.name)}/"
        source = with_split(replace(source, protocol=sentence), split, other)
    loose = [
        f"skipped: {printable(file.name)}, beside the split folders" for file in found.files if file.parent == path
    ]
    return replace(source, protocol="; ".join([source.protocol, *_short(loose), *_short(found.skipped)]))


def read(path: Path, shape: Shape | None = None, image_size: int | None = None) -> Source:
    """Return all images under `path` in order of their names, uint8 [N, C, H, W], as a source with one split.

    C is 1 if all images are gray, else 3. `image_size` is the side of the square that they are brought to. Without it
    the images keep their size if all have the same one, of at most 64 pixels a side; else they become squares of 64,
    or of the median shorter side if that is smaller. `shape` = (C, H, W) decides all of this at once. An image of
    another size is cropped about its centre and resized. If all images lie in sub-folders, these are the classes.

    Raises ValueError that names the file if one cannot be read.
    """
    return _read(_find(path), shape, image_size)


def shape_of(images: Tensor) -> Shape:
    """Return the (C, H, W) of images [N, C, H, W]."""
    _, channels, height, width = images.shape
    return channels, height, width


@dataclass
class _Found:
    """The images under a folder, and what was left out, in words."""

    path: Path
    files: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def _part(found: _Found, folder: Path) -> _Found:
    return _Found(folder, [file for file in found.files if folder in file.parents])


def _short(sentences: list[str]) -> list[str]:
    """Return the first of these sentences and how many more there are."""
    return sentences if len(sentences) < 2 else [f"{sentences[0]}, and {len(sentences) - 1:,} more"]


def _read(found: _Found, shape: Shape | None, image_size: int | None) -> Source:
    path, files = found.path, found.files
    if not files:
        raise ValueError(
            "; ".join(
                [f"{printable(path)}: expected images ({' '.join(SUFFIXES)}), found none", *_short(found.skipped)]
            )
        )
    pixels = _pixels(found, shape, image_size)
    _, channels, height, width = pixels.images.shape
    colours = "gray" if channels == 1 else "colour"
    sentence = f"{name_of(path)}: a folder of {len(files):,} {colours} images of {width}x{height} pixels"
    if pixels.resized:
        sentence += f" ({pixels.resized:,} of another size were centre-cropped and resized)"
    labels, classes = _classes(path, files)
    if labels is not None and pixels.mapped:
        labels = labels[_order(len(files))]
    sentence = "; ".join([sentence, *_short(found.skipped), *pixels.notes])
    return Source(name_of(path), Batch(pixels.images, labels, pixels.mapped), sentence, classes=classes)


class _Pixels(NamedTuple):
    """All images of a folder, uint8 [N, C, H, W], and how many had another size; mapped ones are in random order."""

    images: Tensor
    resized: int
    mapped: bool = False
    notes: tuple[str, ...] = ()


def _pixels(found: _Found, shape: Shape | None, image_size: int | None) -> _Pixels:
    """Decode the images into memory or, if they have more than `HELD` bytes, into a cache that is mapped."""
    path, files = found.path, found.files
    cache = Cache(name_of(path), f"{path} {shape} {image_size}")
    if cache.exists() and (known := cache.read(_fingerprint(path, files))) is not None:
        return _Pixels(known[1], known[0].resized, mapped=True)
    looks = [decode.look(file) for file in files]
    if shape is None:
        side = choose_size({look[:2] for look in looks}, image_size)
        shape = (1 if all(look.gray for look in looks) else 3, *side)
    resized = sum(look[:2] != (shape[2], shape[1]) for look in looks)
    size = len(files), *shape
    if math.prod(size) <= HELD:
        if may_write():
            cache.path.unlink(missing_ok=True)  # a bad one, of a folder that was larger
        images = torch.empty(size, dtype=torch.uint8)
        for i, file in enumerate(files):
            images[i] = torch.from_numpy(_decoded(file, shape))
        return _Pixels(images, resized)
    header = Header(_fingerprint(path, files), size, resized)
    if not may_write():  # all of them like the first, in its memory
        cache.check_space(header.size)
        first = torch.from_numpy(_decoded(files[0], shape))
        note = f"a training decodes them once, {cache.describe(header.size)}"
        return _Pixels(first.expand(size), resized, mapped=True, notes=(note,))
    order = _order(len(files)).tolist()
    _, images = cache.write(header, lambda: _in_threads(partial(_decoded, shape=shape), [files[i] for i in order]))
    return _Pixels(images, resized, mapped=True)


def _decoded(file: Path, shape: Shape) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image, uint8 [C, H, W]."""
    channels, height, width = shape
    return decode.read(file, channels, (width, height)).transpose(2, 0, 1).copy()


def _order(count: int) -> Tensor:
    """Return the order of the images in a cache: a random one, always the same, so that every slice is a sample."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _fingerprint(path: Path, files: Sequence[Path]) -> str:
    """Return the sha256 of the names, sizes and times of these files."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(
            f"{file.relative_to(path)!s}\0{status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def _in_threads(function: Callable[[Path], _T], files: Sequence[Path]) -> Iterator[_T]:
    """Yield the results of the function on these files in their order, some hundred of them ahead."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:  # those within the threads undo each other
        for start in range(0, len(files), _AHEAD):
            yield from pool.map(function, files[start : start + _AHEAD])


def _read_training(found: _Found, image_size: int | None) -> Source:
    """Read all images; a single sub-folder is no class."""
    source = _read(found, None, image_size)
    if source.classes is not None and len(source.classes) == 1:
        return replace(source, train=replace(source.train, labels=None), classes=None)
    return source


def choose_size(sizes: set[tuple[int, int]], image_size: int | None) -> tuple[int, int]:
    """Return the (height, width) that pictures of these (width, height) are brought to; see `read`."""
    if image_size is not None:
        return image_size, image_size
    if len(sizes) == 1 and max(width_height := next(iter(sizes))) <= SIZE:
        return width_height[1], width_height[0]
    side = min(SIZE, median_low(min(size) for size in sizes))
    return side, side


def check_memory(count: int, shape: Sequence[int], what: str) -> None:
    """Raise ValueError if so many uint8 images of this shape are more than is held in memory."""
    needed = count * int(np.prod(shape, dtype=object))
    if needed > LARGEST:
        side = int((LARGEST / count / shape[0]) ** 0.5)
        raise ValueError(
            f"{what}: {count:,} images of {shape[2]}x{shape[1]} pixels need {needed / 2**30:.1f} GiB, the limit is "
            f"{LARGEST / 2**30:.1f}; pass image_size={side} or less"
        )


def _classes(path: Path, files: Sequence[Path]) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """Return labels [N] and classes by the sub-folders of `path`; None if not all files lie in one of them."""
    heads = [file.relative_to(path).parts for file in files]
    classes = sorted({head[0] for head in heads})
    if any(len(head) == 1 for head in heads):
        return None, None
    table = {name: label for label, name in enumerate(classes)}
    return torch.tensor([table[head[0]] for head in heads]), tuple(map(printable, classes))


def _split_folders(path: Path, files: Sequence[Path]) -> dict[str, Path] | None:
    """Return the sub-folder of each split, or None if the sub-folders are no splits."""
    splits: dict[str, Path] = {}
    others: set[str] = {file.relative_to(path).parts[0] for file in files if file.parent != path}
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        split = _SPLITS.get(folder.name.lower())
        if split in splits:
            raise ValueError(
                f"{printable(path)}: {splits[split].name}/ and {folder.name}/ are both called {split}; rename one"
            )
        if split is not None:
            splits[split] = folder
            others.discard(folder.name)
    if "train" not in splits and len(splits) > 1 and not others:
        raise ValueError(f"{printable(path)}: has {_list(splits)}, but no train/")
    if "train" not in splits or len(splits) == 1:
        return None
    if others:
        raise ValueError(
            f"{printable(path)}: has {_list(splits)}, and images in {printable(sorted(others)[0])}/ beside them; move "
            f"these, or pass {splits['train'].name}/ as data and the others as valid= and test="
        )
    return splits


def _list(splits: dict[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in splits.values())


def _find(path: Path) -> _Found:
    """Find the images under `path`, in order of their names.

    Hidden files are left out. A link to a folder is followed unless its folder has been seen, so that there are no
    loops; folders that are reached by links come last. What looks like an image but is no file, and the folders of
    runs of pygan, are left out and named in `skipped`.
    """
    found = _Found(path)
    if _holds_run(path):
        raise ValueError(f"{printable(path)}: holds a run of pygan, not images to train on")
    seen: set[tuple[int, int]] = set()
    links = [path]
    while links:
        for file in _walk(links.pop(0), seen, links, found.skipped, path):
            found.files.append(file)
    return found


def _walk(start: Path, seen: set[tuple[int, int]], links: list[Path], skipped: list[str], root: Path) -> Iterator[Path]:
    """Yield the images under `start` without following links to folders, which are appended to `links`."""
    for folder, folders, names in os.walk(start, onerror=_raise):
        here = Path(folder)
        if (key := _key(here)) in seen:
            folders[:] = []
            if here == start and here != root:
                skipped.append(
                    f"skipped: {printable(here.relative_to(root))}/, a link to a folder that was read before"
                )
            continue
        seen.add(key)
        kept = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            if _holds_run(here / name):
                skipped.append(f"skipped: {printable((here / name).relative_to(root))}/, which holds a run of pygan")
            elif (here / name).is_symlink():
                links.append(here / name)
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")):
            if _is_special(here / name):
                skipped.append(f"skipped: {printable((here / name).relative_to(root))}, which is no regular file")
            else:
                yield here / name


def _raise(error: OSError) -> None:
    """Take an error of os.walk seriously: a folder that cannot be read must not be passed over."""
    raise OSError(f"{printable(error.filename or '')}: the folder cannot be read: {error.strerror}") from error


def _key(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _holds_run(folder: Path) -> bool:
    """Return whether a folder is that of a run of pygan, finished or not, or is called `runs` and holds such ones."""
    return _is_run(folder) or (folder.name == "runs" and any(map(_is_run, folder.iterdir())))


def _is_run(folder: Path) -> bool:
    written = ("checkpoints", "log.jsonl", "samples")
    return (folder / "config.toml").is_file() and any((folder / name).exists() for name in written)


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device, which would block or never end; a dead link is not."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def name_of(path: Path) -> str:
    """Return the name of a folder, fit for another folder's name."""
    return "".join(char if char.isprintable() else "_" for char in path.name)
