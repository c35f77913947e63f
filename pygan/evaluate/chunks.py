"""Rows that may not fit in memory, as a series of [m, d] tensors."""

from collections.abc import Iterable, Iterator
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
        self.name, self.rows, self.rank, self.ranks = name, rows, rank, ranks
        if isinstance(rows, Tensor | np.ndarray):
            first = _flat(name, rows[:1])
            self.count, self.d = len(rows), first.shape[1]
            return
        if iter(rows) is rows:
            raise TypeError(f"ParzenWindow: {name} can be read only once; pass a list, or an object with __iter__")
        shapes = [_flat(name, chunk).shape for chunk in rows]
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


def _flat(name: str, array: Array) -> Tensor:
    """[n, ...] as a tensor [n, d] of floats, without a copy where none is needed."""
    if isinstance(array, np.memmap):
        array = np.array(array)  # a memory map may be read-only, which torch does not know
    tensor = torch.as_tensor(array).detach()
    if not tensor.is_floating_point():
        raise TypeError(f"ParzenWindow: {name} must be floating-point (pixels in [0, 1]), got {tensor.dtype}")
    if tensor.ndim < 2:
        raise ValueError(f"ParzenWindow: {name} must have shape [n, ...], got {list(tensor.shape)}")
    return tensor.flatten(1)


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
