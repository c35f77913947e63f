"""Maxout's kernels: the maximum and its spread exactly, the gradients against float64 sums over the winning pieces."""

import ctypes
import functools

import numpy as np
from simt_host import DTYPES, EPSILON, SMALLEST, Cases, Host, empty, load, pointer, sparse, store

RNG = np.random.default_rng(0)
POOLS = ((1, 1, 1, 1), (3, 2, 5, 1), (2, 3, 4, 7), (1, 2, 256, 3), (301, 1, 2, 1))  # outer, units, pieces, inner
LAYERS = ((1, 1, 1, 1), (5, 3, 2, 7), (9, 4, 5, 130), (3, 2, 17, 128), (4, 3, 256, 5))  # batch, units, pieces, in


class Pool(ctypes.Structure):
    """MaxoutPool and MaxoutSpread of csrc/maxout/maxout.h, which have the same layout."""

    _fields_ = (("a", ctypes.c_void_p), ("b", ctypes.c_void_p), ("c", ctypes.c_void_p), ("sizes", ctypes.c_int64 * 4))


class Backward(ctypes.Structure):
    """MaxoutBackward of csrc/maxout/maxout.h."""

    _fields_ = (
        ("grad", ctypes.c_void_p),
        ("index", ctypes.c_void_p),
        ("sizes", ctypes.c_int64 * 4),
    )


def launch(
    host: Host, function: str, dtype: str, operands: ctypes.Structure, *arrays: np.ndarray | None, **where: int
) -> None:
    place = where.get("device", 0), ctypes.c_size_t(where.get("stream", 0))
    host.call(function, DTYPES[dtype], ctypes.byref(operands), *map(pointer, arrays), *place)


def pool(host: Host, dtype: str) -> None:
    for outer, units, pieces, inner in POOLS:
        z = store(RNG.integers(-3, 4, (outer, units, pieces, inner)), dtype)  # small integers: many ties
        if pieces > 2:
            z[0, 0, 1:3] = store(np.array(np.nan), dtype)  # two of them: the first wins
        y, index = empty((outer, units, inner), dtype), np.full((outer, units, inner), 255, np.uint8)
        launch(host, "maxout_pool", dtype, Pool(pointer(z), pointer(y), pointer(index), (outer, units, pieces, inner)))
        values = load(z, dtype)
        winner = np.where(np.isnan(values), np.inf, values).argmax(axis=2)  # argmax takes the first
        np.testing.assert_array_equal(index, winner)
        np.testing.assert_array_equal(load(y, dtype), np.take_along_axis(values, winner[:, :, None], 2)[:, :, 0])


def spread(host: Host, dtype: str) -> None:
    for outer, units, pieces, inner in POOLS:
        grad = store(RNG.standard_normal((outer, units, inner)), dtype)
        index = RNG.integers(0, pieces, grad.shape).astype(np.uint8)
        grad_z = empty((outer, units, pieces, inner), dtype)
        sizes = (outer, units, pieces, inner)
        launch(host, "maxout_spread", dtype, Pool(pointer(grad), pointer(index), pointer(grad_z), sizes))
        wins = index[:, :, None] == np.arange(pieces)[:, None]
        np.testing.assert_array_equal(load(grad_z, dtype), np.where(wins, load(grad, dtype)[:, :, None], 0))


def layer(dtype: str, batch: int, units: int, pieces: int, size: int) -> tuple[np.ndarray, ...]:
    """grad [batch, units], index [batch, units], and index as one-hot [batch, units, pieces]."""
    grad = store(RNG.standard_normal((batch, units)), dtype)
    index = RNG.integers(0, pieces, (batch, units)).astype(np.uint8)
    index[-1, -1] = 255  # beyond the pieces, unless there are 256: it takes no gradient
    return grad, index, index[..., None] == np.arange(pieces)


def assert_sums(got: np.ndarray, dtype: str, a: np.ndarray, b: np.ndarray, subscripts: str) -> None:
    """got = einsum(a, b), within the rounding of sums in float32 or better and of the result."""
    got, expected = load(got, dtype), np.einsum(subscripts, a, b)
    of_sum = 16 * EPSILON["float64" if dtype == "float64" else "float32"] * np.einsum(subscripts, abs(a), abs(b))
    error = abs(got - expected)
    allowed = of_sum + EPSILON[dtype] * abs(expected) + SMALLEST[dtype]
    assert (error <= allowed).all(), f"{(error / allowed).max():.3g} times the error that is allowed"


def grad_input(host: Host, dtype: str) -> None:
    for batch, units, pieces, size in LAYERS:
        grad, index, wins = layer(dtype, batch, units, pieces, size)
        weight, grad_x = store(RNG.standard_normal((units, pieces, size)), dtype), empty((batch, size), dtype)
        operands = Backward(pointer(grad), pointer(index), (batch, size, units, pieces))
        launch(host, "maxout_grad_input", dtype, operands, weight, grad_x)
        spread_grad = load(grad, dtype)[..., None] * wins
        assert_sums(grad_x, dtype, spread_grad, load(weight, dtype), "bup,upi->bi")


def grad_weight(host: Host, dtype: str) -> None:
    for batch, units, pieces, size in LAYERS:
        grad, index, wins = layer(dtype, batch, units, pieces, size)
        x, grad_w, grad_b = store(RNG.standard_normal((batch, size)), dtype), *outputs(dtype, units, pieces, size)
        operands = Backward(pointer(grad), pointer(index), (batch, size, units, pieces))
        launch(host, "maxout_grad_weight", dtype, operands, x, grad_w, grad_b)
        spread_grad = load(grad, dtype)[..., None] * wins
        assert_sums(grad_w, dtype, spread_grad, load(x, dtype), "bup,bi->upi")
        assert_sums(grad_b, dtype, spread_grad, np.ones(batch), "bup,b->up")
        without_bias = empty((units, pieces, size), dtype)
        launch(host, "maxout_grad_weight", dtype, operands, x, without_bias, None)
        np.testing.assert_array_equal(without_bias, grad_w)


def outputs(dtype: str, units: int, pieces: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return empty((units, pieces, size), dtype), empty((units, pieces), dtype)


def only_block(host: Host, number: int, function: str, operands: ctypes.Structure, *arrays: np.ndarray | None) -> None:
    host.select_blocks(number, 1)
    try:
        launch(host, function, "bfloat16", operands, *arrays)
    finally:
        host.select_blocks(0, 0)


ONE = store(np.ones(1), "bfloat16")[0]
BLOCKS = 65536  # the largest grid of every kernel here


def many_outputs_of_pool(host: Host) -> None:
    n = 2**31 + BLOCKS * 256
    z, y, index = sparse(2 * n, "bfloat16"), sparse(n, "bfloat16"), sparse(n // 2, "bfloat16").view(np.uint8)
    z[-1] = ONE  # the second piece of the last unit
    only_block(host, BLOCKS - 1, "maxout_pool", Pool(pointer(z), pointer(y), pointer(index), (n, 1, 2, 1)))
    assert (y[-1], index[-1], y[-2], index[-2]) == (ONE, 1, 0, 0)


def many_outputs_of_spread(host: Host) -> None:
    n = 2**31 + BLOCKS * 256
    grad, index, grad_z = sparse(n // 2, "bfloat16"), sparse(n // 4, "bfloat16").view(np.uint8), sparse(n, "bfloat16")
    grad[-1], index[-1] = ONE, 1
    only_block(
        host, BLOCKS - 1, "maxout_spread", Pool(pointer(grad), pointer(index), pointer(grad_z), (n // 2, 1, 2, 1))
    )
    assert (grad_z[-1], grad_z[-2], grad_z[-3]) == (ONE, 0, 0)


def many_rows_of_grad_input(host: Host) -> None:
    """2^24 + 2^16 examples of 129 columns: the last row lies beyond 2^31."""
    batch, size = 2**24 + BLOCKS, 129
    grad, index, grad_x = (
        sparse(batch, "bfloat16"),
        sparse(batch // 2, "bfloat16").view(np.uint8),
        sparse(batch * size, "bfloat16"),
    )
    grad[-1] = ONE
    weight = store(RNG.standard_normal(size), "bfloat16")
    operands = Backward(pointer(grad), pointer(index), (batch, size, 1, 1))
    only_block(host, BLOCKS - 1, "maxout_grad_input", operands, weight, grad_x)  # the first 128 columns
    np.testing.assert_array_equal(grad_x[-size:-1], weight[:-1])


def many_rows_of_grad_weight(host: Host) -> None:
    """69,632 units of 256 pieces by 129 columns: the last row lies beyond 2^31, in the last item of the last block."""
    units, pieces, size = BLOCKS + 4096, 256, 129
    grad, index = sparse(units, "bfloat16"), np.full(units, 255, np.uint8)
    grad[-1] = ONE
    x, grad_w = store(RNG.standard_normal(size), "bfloat16"), sparse(units * pieces * size, "bfloat16")
    operands = Backward(pointer(grad), pointer(index), (1, size, units, pieces))
    only_block(host, BLOCKS - 1, "maxout_grad_weight", operands, x, grad_w, None)
    np.testing.assert_array_equal(grad_w[-size:-1], x[:-1])


def calls(host: Host) -> dict[str, tuple]:
    """One small call of each launch function: its kernel, and its arguments after the dtype."""
    grad, index = empty((2, 3), "float32"), np.zeros((2, 3), np.uint8)
    many = [empty(100, "float32") for _ in range(3)]
    backward = Backward(pointer(grad), pointer(index), (2, 5, 3, 2))
    both = Pool(pointer(many[0]), pointer(many[1]), pointer(index), (2, 3, 2, 1))
    spread = Pool(pointer(grad), pointer(index), pointer(many[0]), (2, 3, 2, 1))
    return {
        "pool": (both,),
        "spread": (spread,),
        "grad_input": (backward, many[0], many[1]),
        "grad_weight": (backward, many[0], many[1], many[2]),
    }


def streams_devices_errors(host: Host) -> None:
    for name, arguments in calls(host).items():
        call = functools.partial(launch, host, f"maxout_{name}", "float32", *arguments)
        host.lib.simt_clear()
        call(device=1, stream=0xABC0)
        assert [text.split()[-2:] for text in host.launches()] == [["stream=0xabc0", "device=1"]], host.launches()
        assert host.lib.simt_device() == 0
        host.fail_launch()
        assert host.error(call) == f"maxout {name}_kernel: invalid configuration argument"


def refused_sizes(host: Host) -> None:
    """What needs a grid that CUDA has not: no elements (Python never asks for it), more than 65,535 * 128 columns."""
    nothing = Pool(None, None, None, (0, 3, 2, 1))
    error = host.error(functools.partial(launch, host, "maxout_pool", "float32", nothing))
    assert error == "maxout pool_kernel: invalid configuration argument"
    wide = Backward(None, None, (2, 65536 * 128, 1, 1))
    error = host.error(functools.partial(launch, host, "maxout_grad_input", "float32", wide, None, None))
    assert error == "maxout grad_input_kernel: invalid configuration argument"


def cases() -> Cases:
    for dtype in DTYPES:
        for case in (pool, spread, grad_input, grad_weight):
            yield f"{case.__name__} {dtype}", functools.partial(case, dtype=dtype)
    yield "more than 2^31 outputs of pool", many_outputs_of_pool
    yield "more than 2^31 outputs of spread", many_outputs_of_spread
    yield "more than 2^31 numbers in grad_input", many_rows_of_grad_input
    yield "more than 2^31 numbers in grad_weight", many_rows_of_grad_weight
    yield "streams, devices, launch errors", streams_devices_errors
    yield "sizes that are refused", refused_sizes
