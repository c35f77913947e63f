"""The momentum update's kernel against v <- m v - r g, p <- p + v in the parameters' precision."""

import ctypes
import functools

import numpy as np
from simt_host import DTYPES, Cases, Host, empty, load, pointer, sparse, store

RNG = np.random.default_rng(0)
RATE, MOMENTUM = 0.1, 0.7
SIZES = ((1,), (300,), (5, 0, 1030, 257), tuple(range(40)), (0, 0))  # one tensor, ragged, over the table's 32, empty


class Tensor(ctypes.Structure):
    """MomentumTensor of csrc/momentum/momentum.h."""

    _fields_ = (
        ("parameter", ctypes.c_void_p),
        ("velocity", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("copy", ctypes.c_void_p),
        ("size", ctypes.c_int64),
    )


def launch(host: Host, dtype: str, gradient_dtype: str, tensors: list[tuple], device: int = 0, stream: int = 0) -> None:
    """tensors: (parameter, velocity, gradient, copy or None)."""
    rates = store(np.array([RATE, MOMENTUM]), dtype)
    table = (Tensor * len(tensors))(*[Tensor(*map(pointer, arrays), arrays[0].size) for arrays in tensors])
    codes = DTYPES[dtype], DTYPES[gradient_dtype]
    host.call("momentum", *codes, table, ctypes.c_int64(len(tensors)), pointer(rates), device, ctypes.c_size_t(stream))


def expected(p: np.ndarray, v: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rate, momentum = p.dtype.type(RATE), p.dtype.type(MOMENTUM)
    v = momentum * v - rate * g.astype(p.dtype)
    return p + v, v


def update(host: Host, dtype: str, gradient_dtype: str, with_copy: bool) -> None:
    for sizes in SIZES:
        tensors, wanted = [], []
        for n in sizes:
            p, v = store(RNG.standard_normal(n), dtype), store(RNG.standard_normal(n), dtype)
            g = store(RNG.standard_normal(n), gradient_dtype)
            wanted.append(expected(p, v, load(g, gradient_dtype)))
            tensors.append((p, v, g, empty(n, "bfloat16") if with_copy else None))
        launch(host, dtype, gradient_dtype, tensors)
        for (p, v, _, copy), (p_wanted, v_wanted) in zip(tensors, wanted, strict=True):
            np.testing.assert_array_equal(p, p_wanted)
            np.testing.assert_array_equal(v, v_wanted)
            if with_copy:
                np.testing.assert_array_equal(copy, store(p_wanted, "bfloat16"))


def launches_of_lists(host: Host) -> None:
    """At most 32 tensors a launch, none for a list of empty tensors."""
    for count, size, grids in ((40, 1, ["1,32,1", "1,8,1"]), (3, 0, []), (1, 5000, ["5,1,1"])):
        host.lib.simt_clear()
        arrays = [tuple(store(np.zeros(size), "float32") for _ in range(3)) for _ in range(count)]
        launch(host, "float32", "float32", [(*three, None) for three in arrays])
        assert [text.split("grid=")[1].split()[0] for text in host.launches()] == grids, host.launches()


def many_elements(host: Host) -> None:
    """Beyond 2^31 elements: of 1,024 blocks that stride through them only the last one runs."""
    n = 2**31 + 1024 * 256
    p, v, g = (sparse(n, "float32") for _ in range(3))
    g[-512:] = 1
    host.select_blocks(1023, 1)
    try:
        launch(host, "float32", "float32", [(p, v, g, None)])
    finally:
        host.select_blocks(0, 0)
    for changed in (p, v):
        np.testing.assert_array_equal(changed[-512:], np.repeat(np.float32([0, -RATE]), 256))


def stream_device_error(host: Host) -> None:
    tensors = [(*(store(np.zeros(7), "float32") for _ in range(3)), None)]
    launch(host, "float32", "float32", tensors, device=1, stream=0xABC0)
    assert [text.split()[-2:] for text in host.launches()] == [["stream=0xabc0", "device=1"]]
    assert host.lib.simt_device() == 0
    host.fail_launch()
    error = host.error(functools.partial(launch, host, "float32", "float32", tensors))
    assert error == "momentum_kernel: invalid configuration argument"


def cases() -> Cases:
    for dtype, gradient_dtype in (("float32", "float32"), ("float32", "bfloat16"), ("float64", "float64")):
        for with_copy in (False, True):
            name = f"{dtype} with {gradient_dtype} gradients{' and copies' * with_copy}"
            settings = {"dtype": dtype, "gradient_dtype": gradient_dtype, "with_copy": with_copy}
            yield name, functools.partial(update, **settings)
    yield "launches of lists", launches_of_lists
    yield "more than 2^31 elements", many_elements
    yield "stream, device, launch error", stream_device_error
