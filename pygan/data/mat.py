"""Real numeric arrays from MAT files of level 5, the format that MATLAB saves with -v6 and -v7.

scipy.io.loadmat reads more formats, but a damaged type or size in a file can end its process with a segmentation fault.
Here each size is compared with the bytes that are there before it is used.

A file is a header of 128 bytes and then elements: a tag with a type and a number of bytes, then these bytes, padded to
a multiple of 8. A matrix is an element that consists of elements (flags, dimensions, name, values); it may be
compressed.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["read_mat"]

_HEADER = 128
_MARKS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # at the end of the header: version 1.0 and the byte order
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15  # types of elements
_TEXT = (1, 2, 16)  # int8, uint8, UTF-8
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800  # in the flags
_LARGEST = 1 << 30  # bytes of a file, and of a matrix


def read_mat(path: Path, names: Collection[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays that the file has under these names, with their dtypes and shapes.

    Raises:
        ValueError: a file of another format, a damaged one, or an array of these names that is complex or not numeric.
            The message names the file, the byte, what was expected and what was found.
        OSError: the file cannot be read.
    """
    if (size := path.stat().st_size) > _LARGEST:
        raise ValueError(f"{path}: expected at most {_LARGEST:,} bytes, got {size:,}")
    content = path.read_bytes()
    found = {}
    try:
        order = _byte_order(content[:_HEADER])
        for element in _elements(_Element(_MATRIX, memoryview(content)[_HEADER:], _HEADER, ""), order):
            matrix = _decompressed(element, order) if element.kind == _COMPRESSED else element
            if matrix.kind == _MATRIX:
                parts = _parts(matrix, order)
                name = bytes(parts[2].data).decode(errors="replace")
                if name in names:
                    found[name] = _array(parts, order)
    except _WrongError as wrong:
        raise ValueError(f"{path}: {wrong}") from None
    return found


class _Element(NamedTuple):
    """An element, or all elements of the file."""

    kind: int
    data: memoryview
    at: int  # where the data begin
    inside: str  # after "byte 8": "" in the file itself

    def wrong(self, expected: str, got: object, offset: int = 0) -> _WrongError:
        return _WrongError(f"byte {self.at + offset}{self.inside}: expected {expected}, got {got}")


class _WrongError(Exception):
    """What is wrong at which byte."""


def _byte_order(header: bytes) -> str:
    mark = header[_HEADER - 4 :]
    if mark in _MARKS:
        return _MARKS[mark]
    newer = "; the file was saved with -v7.3, use -v7" if header.startswith(b"MATLAB 7.3") else ""
    raise _WrongError(f"byte {_HEADER - 4}: expected the mark of a MAT file of level 5, got {mark!r}{newer}")


def _elements(parent: _Element, order: str) -> Iterator[_Element]:
    """Yield the elements that another one consists of."""
    here = 0
    while here < len(parent.data):
        left = len(parent.data) - here - 8
        if left < 0:
            raise parent.wrong("a tag of 8 bytes", left + 8, here)
        kind, size = struct.unpack(f"{order}II", parent.data[here : here + 8])
        begin, after = here + 8, here + 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if kind >> 16:  # a small element, with tag and data in 8 bytes
            kind, size, left = kind & 0xFFFF, kind >> 16, 4
            begin, after = here + 4, here + 8
        if size > left:
            raise parent.wrong(f"an element of at most {left} bytes", size, here)
        yield _Element(kind, parent.data[begin : begin + size], parent.at + begin, parent.inside)
        here = after


def _decompressed(element: _Element, order: str) -> _Element:
    """Return the element in a compressed one. Memory is used only for what is really there, up to its own size."""
    unpack = zlib.decompressobj()
    try:
        tag = unpack.decompress(element.data, 8)
        kind, size = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (0, 0)
        if kind != _MATRIX or not 0 < size <= _LARGEST:
            raise element.wrong(f"a compressed matrix of at most {_LARGEST} bytes", f"the tag {tag!r}")
        data = unpack.decompress(unpack.unconsumed_tail, size)
        more = unpack.decompress(unpack.unconsumed_tail, 1)
    except zlib.error as error:
        raise element.wrong("compressed bytes", error) from None
    if len(data) < size or more or not unpack.eof:
        raise element.wrong(f"{size} bytes in compressed form and their checksum", "fewer or more")
    return _Element(kind, memoryview(data), 8, f" of the matrix that is compressed at byte {element.at}")


def _array(parts: Sequence[_Element], order: str) -> np.ndarray[Any, Any]:
    """Return the array of a matrix."""
    flags, dimensions, _, values = parts
    (word,) = struct.unpack(f"{order}I", flags.data[:4])
    dtype = _CLASSES.get(word & 0xFF)
    if dtype is None or word & _COMPLEX:
        raise flags.wrong("a matrix of real numbers", f"flags {word:#x}")
    shape = struct.unpack(f"{order}{len(dimensions.data) // 4}i", dimensions.data)
    if min(shape) < 0:
        raise dimensions.wrong("sizes of at least 0", list(shape))
    stored, wanted = np.dtype(order + _STORED.get(values.kind, "V")), np.dtype(dtype)
    if not (np.can_cast(stored, wanted) or (wanted.kind == "f" and values.kind in _STORED)):
        raise values.wrong(f"numbers that fit into {wanted}", f"type {values.kind}")
    if len(values.data) != math.prod(shape) * stored.itemsize:
        raise values.wrong(f"{math.prod(shape)} numbers of {stored.itemsize} bytes", f"{len(values.data)} bytes")
    try:
        return np.frombuffer(values.data, stored).astype(wanted).reshape(shape, order="F")
    except ValueError as error:  # more dimensions than numpy has
        raise dimensions.wrong("dimensions that numpy has", error) from None


def _parts(matrix: _Element, order: str) -> list[_Element]:
    """Return the flags, the dimensions, the name and the values of a matrix."""
    parts = list(islice(_elements(matrix, order), 4))
    kinds = [part.kind for part in parts]
    if len(parts) < 4 or kinds[:2] != [_UINT32, _INT32] or kinds[2] not in _TEXT:
        raise matrix.wrong("flags, dimensions, a name and values", f"elements of the types {kinds}")
    flags, dimensions, *_ = parts
    if len(flags.data) != 8 or len(dimensions.data) < 8 or len(dimensions.data) % 4:
        raise matrix.wrong(
            "8 bytes of flags and two or more dimensions", f"{len(flags.data)} and {len(dimensions.data)} bytes"
        )
    return parts
