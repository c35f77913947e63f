"""Rows that may not fit in memory, as a series of [m, d] tensors."""

import os
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["Chunks", "Rows"]

Array: TypeAlias = Tensor | np.ndarray[Any, Any]
Rows: TypeAlias = Array | Iterable[Array]

_CHUNK_BYTES = 128 << 20  # of a file that is read at a time


class Chunks:
    """Rows [n, ...] of floats, flattened to [n, d].

    Args:
        name: of the argument, for error messages.
        rows: a tensor, an array, a `numpy.memmap` (of which a piece is read at a time), or an iterable of such chunks
            that can be read again and again, as a list or an object with `__iter__`.
        rank, ranks: of all chunks, only each `ranks`-th is yielded, beginning with the one at `rank`.

    Attributes:
        rows: as given. count: n, over all ranks. d: values a row.
    """

    def __init__(self, name: str, rows: Rows, rank: int = 0, ranks: int = 1) -> None:
        rows = _rows(name, rows)
        self.name, self.rows, self.rank, self.ranks = name, rows, rank, ranks
        if isinstance(rows, Tensor | np.ndarray):
            first = _flat(name, rows[:1] if rows.ndim > 0 else rows)
            self.count, self.d = len(rows), first.shape[1]
            return
        given, shapes = [], []
        for chunk in rows:
            shapes.append(_flat(name, chunk).shape)
            given.append(tuple(chunk.shape))
        _check_not_images(name, given)
        self.count, self.d = sum(shape[0] for shape in shapes), shapes[0][1] if shapes else 0
        if any(shape[1] != self.d for shape in shapes):
            raise ValueError(f"ParzenWindow: {name} must have {self.d} values a row in every chunk")

    def __iter__(self) -> Iterator[Tensor]:
        for i, chunk in enumerate(self._pieces()):
            if i % self.ranks == self.rank:
                yield _flat(self.name, chunk)

    def _pieces(self) -> Iterator[Array]:
        if not isinstance(self.rows, Tensor | np.ndarray):
            yield from self.rows
            return
        size = -(-self.count // self.ranks)
        if isinstance(self.rows, np.memmap):
            size = min(size, max(1, _CHUNK_BYTES // (self.d * self.rows.itemsize)))
        for begin in range(0, self.count, max(size, 1)):
            yield self.rows[begin : begin + size]

    def overlaps(self, other: "Chunks") -> bool:
        """Whether the two are the same object, share memory, or hold equal rows in equal chunks."""
        if self.rows is other.rows:
            return True
        in_arrays = isinstance(self.rows, Tensor | np.ndarray) and isinstance(other.rows, Tensor | np.ndarray)
        if in_arrays and np.shares_memory(_memory(self.rows), _memory(other.rows)):
            return True
        if self.count != other.count:
            return False
        return all(a.shape == b.shape and torch.equal(a, b.to(a)) for a, b in zip(self, other, strict=False))


def _rows(name: str, rows: Any) -> Rows:
    """`rows` as a tensor, an array or an iterable that can be read again and again; else a TypeError that says why."""
    remedy = "pass a tensor, an array, or a list of such chunks [m, ...]"
    if isinstance(rows, str | bytes | os.PathLike):
        raise TypeError(
            f"ParzenWindow: {name} must be numbers, got the path {rows!r}; try np.load(path, mmap_mode='r')"
        )
    if isinstance(rows, Mapping):
        raise TypeError(f"ParzenWindow: {name} must be numbers, got a mapping with the keys {list(rows)}; {remedy}")
    if isinstance(rows, Tensor) and rows.layout is not torch.strided:
        raise TypeError(f"ParzenWindow: {name} must be dense, got {rows.layout}; use to_dense()")
    if isinstance(rows, Tensor | np.ndarray):
        return rows
    if hasattr(rows, "__array__"):  # a DataFrame, an array of another library
        return np.asarray(rows)
    try:
        if iter(rows) is not rows:
            return rows
    except TypeError:
        raise TypeError(f"ParzenWindow: {name} must be numbers, got {type(rows).__name__}; {remedy}") from None
    raise TypeError(f"ParzenWindow: {name} can be read only once; pass a list, or an object with __iter__")


def _check_not_images(name: str, shapes: list[tuple[int, ...]]) -> None:
    """Refuses chunks that look like single images, of which every row would be taken for a sample."""
    shape = shapes[0] if shapes else ()
    is_colour = len(shape) == 3 and (shape[0] in (3, 4) or (shape[2] in (3, 4) and min(shape[:2]) > 4))
    is_gray = len(shape) == 2 and shape[0] == shape[1] > 4
    if (is_colour or is_gray) and all(other == shape for other in shapes):
        raise ValueError(
            f"ParzenWindow: {name} is a list of {len(shapes)} arrays of shape {list(shape)}, which may be images or "
            f"chunks of {shape[0]} rows; pass one array: torch.stack({name}) of images, torch.cat({name}) of chunks"
        )


def _flat(name: str, array: Array) -> Tensor:
    """[n, ...] as a tensor [n, d] of floats, without a copy where none is needed."""
    if not isinstance(array, Tensor | np.ndarray):
        raise TypeError(
            f"ParzenWindow: {name} must consist of tensors or arrays [m, ...], got {type(array).__name__}; of a "
            "DataLoader that yields (images, labels), pass [images for images, labels in loader]"
        )
    tensor = (array if isinstance(array, Tensor) else _tensor(name, array)).detach()
    if not tensor.is_floating_point():
        raise TypeError(f"ParzenWindow: {name} must be floating-point (pixels in [0, 1]), got {tensor.dtype}")
    if tensor.ndim < 2:
        raise ValueError(f"ParzenWindow: {name} must have shape [n, ...], got {list(tensor.shape)}")
    return tensor.flatten(1)


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """The array's values; a copy where torch cannot share its memory."""
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise ValueError(f"ParzenWindow: {name} has masked values; fill them in or leave these rows out")
        array = array.data
    if array.dtype.kind not in "fiub":
        raise TypeError(f"ParzenWindow: {name} must be floating-point (pixels in [0, 1]), got {array.dtype}")
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # C order; of a memory map, in memory
    return torch.from_numpy(np.asarray(array))


def _memory(rows: Any) -> np.ndarray[Any, Any]:
    """An array over the same memory, whose values, which may lie on a GPU, must not be read."""
    if isinstance(rows, np.ndarray):
        return rows
    size = rows.element_size()
    place = {
        "version": 3,
        "typestr": f"|V{size}",
        "shape": tuple(rows.shape),
        "strides": tuple(size * stride for stride in rows.stride()),
        "data": (rows.data_ptr(), True),
    }
    return np.asarray(SimpleNamespace(__array_interface__=place))
