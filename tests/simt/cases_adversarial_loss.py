"""The adversarial losses' kernels against the formulas in float64."""

import ctypes
import functools

import numpy as np
from simt_host import DTYPES, EPSILON, SMALLEST, Cases, Host, assert_close, empty, load, pointer, sparse, store

RNG = np.random.default_rng(0)
SIZES = ((1, 1), (5, 3), (257, 255), (1025, 4), (3, 2500))  # one block, ragged blocks, several blocks
EXTREMES = np.array([0, -0.0, 1e-4, -20, 20, -89, 89, -300, 300, -1e4, 1e4, np.inf, -np.inf])


class Term(ctypes.Structure):
    """LossTerm of csrc/adversarial_loss/adversarial_loss.h."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("sign", ctypes.c_int),
        ("weight", ctypes.c_int),
    )


def launch(host: Host, dtype: str, terms: list[tuple], *, device: int = 0, stream: int = 0) -> float:
    """terms: (logits, gradient or None, sign, weight)."""
    both = (Term * 2)(*[Term(pointer(x), pointer(g), x.size, sign, weight) for x, g, sign, weight in terms])
    largest = max(x.size for x, *_ in terms)
    partials = np.full(host.lib.adversarial_loss_blocks(ctypes.c_int64(largest)), np.nan)
    loss = empty(1, dtype)
    outputs = (pointer(partials), pointer(loss))
    host.call("adversarial_loss", DTYPES[dtype], both, *outputs, device, ctypes.c_size_t(stream))
    return float(load(loss, dtype)[0])


def softplus(t: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, t)


def sigmoid(t: np.ndarray) -> np.ndarray:
    return np.where(t < 0, np.exp(np.minimum(t, 0)), 1) / (1 + np.exp(-np.abs(t)))


def check_term(x: np.ndarray, gradient: np.ndarray, sign: int, weight: int, dtype: str) -> float:
    """Compares a gradient and returns the term's share of the loss."""
    x = load(x, dtype)
    assert_close(load(gradient, dtype), sign * weight / x.size * sigmoid(sign * x), 4 * EPSILON[dtype], SMALLEST[dtype])
    return weight * softplus(sign * x).mean()


def both_terms(host: Host, dtype: str, sizes: tuple[int, int]) -> None:
    real, fake = (store(RNG.standard_normal(n) * 5, dtype) for n in sizes)
    real_gradient, fake_gradient = empty(sizes[0], dtype), empty(sizes[1], dtype)
    loss = launch(host, dtype, [(real, real_gradient, -1, 1), (fake, fake_gradient, 1, 1)])
    expected = check_term(real, real_gradient, -1, 1, dtype) + check_term(fake, fake_gradient, 1, 1, dtype)
    assert_close(loss, expected, 4 * EPSILON[dtype])
    without_gradient = launch(host, dtype, [(real, None, -1, 1), (fake, None, 1, 1)])
    assert_close(without_gradient, loss, 0)


def one_term(host: Host, dtype: str, sign: int, weight: int) -> None:
    nothing = empty(0, dtype)
    for n in (1, 700, 1500):
        x = store(RNG.standard_normal(n) * 5, dtype)
        gradient = empty(n, dtype)
        loss = launch(host, dtype, [(x, gradient, sign, weight), (nothing, None, 1, 1)])
        assert_close(loss, check_term(x, gradient, sign, weight, dtype), 4 * EPSILON[dtype])


def tails(host: Host, dtype: str) -> None:
    nothing = empty(0, dtype)
    for value in store(EXTREMES, dtype):
        x, gradient = np.array([value]), empty(1, dtype)
        loss = launch(host, dtype, [(x, gradient, 1, 1), (nothing, None, 1, 1)])
        assert_close(loss, softplus(load(x, dtype)[0]), 4 * EPSILON[dtype], SMALLEST[dtype])
        assert_close(load(gradient, dtype), sigmoid(load(x, dtype)), 4 * EPSILON[dtype], SMALLEST[dtype])
    x, gradient = store(np.array([1, np.nan, 2]), dtype), empty(3, dtype)
    assert np.isnan(launch(host, dtype, [(x, gradient, 1, 1), (nothing, None, 1, 1)]))
    np.testing.assert_array_equal(np.isnan(load(gradient, dtype)), [False, True, False])


def sums_that_overflow(host: Host, dtype: str) -> None:
    """Means are right although the sums of three, or of several blocks' logits, are too large for the dtype."""
    huge = float(load(store(np.array([{"float16": 6e4, "float64": 1e308}.get(dtype, 1e38)]), dtype), dtype)[0])
    for n in (3, 6000):
        x, gradient = store(np.full(n, huge), dtype), empty(n, dtype)
        loss = launch(host, dtype, [(x, gradient, 1, 1), (empty(0, dtype), None, 1, 1)])
        assert_close(loss, huge, 4 * EPSILON[dtype])
        assert_close(load(gradient, dtype), np.full(n, 1 / n), 4 * EPSILON[dtype])


def many_elements(host: Host) -> None:
    """Beyond 2^31 logits: only the last block runs, which touches every 1024th stretch of 256 logits."""
    n = 2**31 + 5 * 256 * 1024
    logits, gradient = sparse(n, "float32"), sparse(n, "float32")
    host.select_blocks(1023, 1)
    try:
        launch(host, "float32", [(logits, gradient, 1, 1), (empty(0, "float32"), None, 1, 1)])
    finally:
        host.select_blocks(0, 0)
    assert host.launches()[0].endswith("grid=1024,1,1 block=256,1,1 shared=0 stream=(nil) device=0")
    assert_close(gradient[-256:], np.full(256, 0.5 / n), 1e-6)
    assert_close(gradient[[2**31 - 1, 2**31, n - 257]], [0.5 / n, 0, 0], 1e-6)


def stream_and_device(host: Host) -> None:
    x = store(RNG.standard_normal(3000), "float32")
    launch(host, "float32", [(x, None, 1, 1), (x, None, -1, 1)], device=1, stream=0xABC0)
    assert len(host.launches()) == 2
    assert all(text.endswith("stream=0xabc0 device=1") for text in host.launches())
    assert host.lib.simt_device() == 0


def launch_errors(host: Host) -> None:
    x = store(RNG.standard_normal(3000), "float32")
    terms = [(x, None, 1, 1), (x, None, -1, 1)]
    for kernel, before in (("loss_kernel", 0), ("finish_kernel", 1)):
        host.fail_launch(before)
        error = host.error(functools.partial(launch, host, "float32", terms))
        assert error == f"adversarial_loss {kernel}: invalid configuration argument"
    error = host.error(functools.partial(launch, host, "float32", terms, device=7))
    assert error == "cudaSetDevice: invalid device ordinal"


def cases() -> Cases:
    for dtype in DTYPES:
        for sizes in SIZES:
            yield f"discriminator {dtype} {sizes}", functools.partial(both_terms, dtype=dtype, sizes=sizes)
        for name, sign, weight in (("non-saturating", -1, 1), ("saturating", 1, -1)):
            yield f"{name} {dtype}", functools.partial(one_term, dtype=dtype, sign=sign, weight=weight)
        yield f"sums that overflow {dtype}", functools.partial(sums_that_overflow, dtype=dtype)
        yield f"tails {dtype}", functools.partial(tails, dtype=dtype)
    yield "more than 2^31 logits", many_elements
    yield "stream and device", stream_and_device
    yield "launch errors", launch_errors
