"""What the cases of every family share: the host's library through ctypes, storage types, comparisons. No torch."""

import ctypes
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux; Python names it from 3.13 on
ORDERS = ("forward", "reverse", "random:1", "random:2")

# A case: its name and what it does with the host; it raises AssertionError when a result is wrong.
Case = tuple[str, Callable[["Host"], None]]
Cases = Iterator[Case]


class LaunchError(Exception):
    """A launch function threw."""


class Host:
    """One compiled family: `host.lib.f(...)` calls an extern "C" function of its shim."""

    def __init__(self, library: Path, build: str) -> None:
        self.lib = ctypes.CDLL(str(library))
        self.build = build
        self.lib.simt_problems.restype = ctypes.c_char_p
        self.lib.simt_launch_text.restype = ctypes.c_char_p
        if hasattr(self.lib, "shim_error"):
            self.lib.shim_error.restype = ctypes.c_char_p
        self.lib.simt_set_order.argtypes = [ctypes.c_char_p]
        self.lib.simt_select_blocks.argtypes = [ctypes.c_uint64, ctypes.c_uint64]

    def run(self, case: Callable[["Host"], None], order: str) -> None:
        """Runs one case in one thread order and raises AssertionError if a result or a rule of CUDA was broken."""
        self.lib.simt_set_order(order.encode())
        self.lib.simt_clear()
        wrong = ""
        try:
            case(self)
        except AssertionError as error:
            wrong = str(error) or "the case's assertion failed"
        except LaunchError as error:
            wrong = f"the launch failed: {error}"
        problems = self.lib.simt_problems().decode()
        if problems or wrong:
            raise AssertionError(f"{problems}{wrong}".strip())

    def call(self, function: str, *arguments: object) -> None:
        """Calls a function of the shim; what it throws becomes a LaunchError."""
        if getattr(self.lib, function)(*arguments):
            raise LaunchError(self.lib.shim_error().decode())

    def error(self, call: Callable[[], object]) -> str:
        """The text of the error that `call` must end in."""
        try:
            call()
        except LaunchError as error:
            return str(error)
        raise AssertionError("no error was raised")

    def fail_launch(self, after: int = 0) -> None:
        """The launch after the next `after` launches fails as CUDA refuses a bad configuration."""
        self.lib.simt_fail_launch(after, 9)

    def launches(self) -> list[str]:
        """One line per launch since the case began: kernel, grid, block, shared bytes, stream, device."""
        return [self.lib.simt_launch_text(i).decode() for i in range(self.lib.simt_launches())]

    def select_blocks(self, first: int, count: int) -> None:
        """Of each later launch only these blocks run; count 0 runs all again."""
        self.lib.simt_select_blocks(first, count)


def pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


DTYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}  # csrc/common/dtype.h
STORAGE = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": np.uint16}
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST = {"float32": 2.0**-149, "float64": 2.0**-1074, "float16": 2.0**-24, "bfloat16": 2.0**-133}  # subnormal


def store(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounds to the dtype; bfloat16 is kept as the upper 16 bits of a float32, rounded to nearest even."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, dtype=STORAGE[dtype])
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def load(stored: np.ndarray, dtype: str) -> np.ndarray:
    """The stored numbers as float64."""
    if dtype != "bfloat16":
        return stored.astype(np.float64)
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def empty(shape: int | tuple[int, ...], dtype: str) -> np.ndarray:
    """An output array of NaN, so that an element that no thread writes cannot look right."""
    return store(np.full(shape, np.nan), dtype)


def sparse(count: int, dtype: str) -> np.ndarray:
    """`count` zeros of which only the pages that are touched take memory: for indices beyond 2^31."""
    size = count * np.dtype(STORAGE[dtype]).itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return np.frombuffer(pages, dtype=STORAGE[dtype])


def assert_close(got: np.ndarray, expected: np.ndarray, relative: float, absolute: float = 0.0) -> None:
    """Elementwise; NaN equals NaN, and an infinity only the same infinity."""
    np.testing.assert_allclose(got, expected, rtol=relative, atol=absolute, equal_nan=True)
