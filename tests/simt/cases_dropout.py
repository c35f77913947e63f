"""Dropout's kernel against Philox4x32-10 written again in numpy."""

import ctypes
import functools

import numpy as np
from simt_host import DTYPES, Cases, Host, empty, load, pointer, sparse, store

RNG = np.random.default_rng(0)
SEED = 0x123456789ABCDEF
KEEPS = (0.5, 0.8, 1.0)
RANGES = ((1, 0), (63, 0), (64, 0), (65, 1), (1300, 37), (200, 2**33 + 50))  # size, index of the first element


class Arguments(ctypes.Structure):
    """DropoutArguments of csrc/dropout/dropout.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("seed", ctypes.c_void_p),
        ("keep", ctypes.c_double),
    )


def launch(
    host: Host, dtype: str, x: np.ndarray, y: np.ndarray, first: int, keep: float, device: int = 0, stream: int = 0
) -> None:
    seed = np.array([SEED], np.int64)
    arguments = Arguments(pointer(x), pointer(y), x.size, first, pointer(seed), keep)
    host.call("dropout", DTYPES[dtype], ctypes.byref(arguments), device, ctypes.c_size_t(stream))


def words(index: np.ndarray) -> np.ndarray:
    """The random word of each element of the mask (csrc/dropout/dropout_math.h, csrc/common/philox.h)."""
    mask = np.uint64(0xFFFFFFFF)
    group, element = index // 64, index % 64
    counter = (16 * group + element % 16).astype(np.uint64)
    c = [counter & mask, counter >> np.uint64(32), np.zeros_like(counter), np.zeros_like(counter)]
    k = [SEED & 0xFFFFFFFF, SEED >> 32]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), b & mask, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1])]
        c.append(a & mask)
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.choose(element // 16, c)


def expected(x: np.ndarray, dtype: str, first: int, keep: float) -> np.ndarray:
    kept = words(first + np.arange(x.size)) < keep * 2.0**32
    compute = np.float64 if dtype == "float64" else np.float32
    scaled = load(x, dtype).astype(compute) * compute(1 / keep)
    return load(store(np.where(kept, scaled, 0), dtype), dtype)


def mask(host: Host, dtype: str, keep: float) -> None:
    for size, first in RANGES:
        x = store(RNG.standard_normal(size), dtype)
        y = empty(size, dtype)
        launch(host, dtype, x, y, first, keep)
        np.testing.assert_array_equal(load(y, dtype), expected(x, dtype, first, keep))
        launch(host, dtype, x, x, first, keep)  # in place
        np.testing.assert_array_equal(load(x, dtype), load(y, dtype))


def dropped_infinities(host: Host) -> None:
    x, y = np.full(100, np.inf, np.float32), empty(100, "float32")
    launch(host, "float32", x, y, 0, 0.5)
    np.testing.assert_array_equal(y, np.where(words(np.arange(100)) < 2.0**31, np.inf, 0))


def many_elements(host: Host) -> None:
    """Beyond 2^31 elements: of 4,096 blocks that stride through them only the last one runs."""
    n = 2**31 + 4 * 256 * 4096
    x, y = sparse(n, "float32"), sparse(n, "float32")
    x[-2048:] = 1
    host.select_blocks(4095, 1)
    try:
        launch(host, "float32", x, y, 0, 0.5)
    finally:
        host.select_blocks(0, 0)
    kept = words(np.arange(n - 1024, n)) < 2.0**31
    np.testing.assert_array_equal(y[-2048:], np.r_[np.zeros(1024), np.where(kept, 2, 0)])


def empty_input(host: Host) -> None:
    launch(host, "float32", empty(0, "float32"), empty(0, "float32"), 0, 0.5)


def stream_device_error(host: Host) -> None:
    x = empty(10, "float32")
    launch(host, "float32", x, x, 0, 0.5, device=1, stream=0xABC0)
    assert [text.split()[-2:] for text in host.launches()] == [["stream=0xabc0", "device=1"]]
    assert host.lib.simt_device() == 0
    host.fail_launch()
    error = host.error(functools.partial(launch, host, "float32", x, x, 0, 0.5))
    assert error == "dropout_kernel: invalid configuration argument"


def cases() -> Cases:
    for dtype in DTYPES:
        for keep in KEEPS:
            yield f"mask {dtype} keep {keep}", functools.partial(mask, dtype=dtype, keep=keep)
    yield "dropped infinities", dropped_infinities
    yield "more than 2^31 elements", many_elements
    yield "empty input", empty_input
    yield "stream, device, launch error", stream_device_error
