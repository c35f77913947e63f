"""The host's own kernels (selftest.cu): right with bug 0, and with each planted mistake, which PLANTED lists together
with the build that must report it and the words it must use."""

import ctypes
import functools

import numpy as np
from simt_host import Cases, Host, assert_close, pointer, sparse

RNG = np.random.default_rng(0)
I64, U32, SIZE = ctypes.c_int64, ctypes.c_uint32, ctypes.c_size_t


def row_sum(host: Host, bug: int) -> None:
    for rows, columns in ((5, 70), (3, 64), (2, 33), (1, 1)):
        x = RNG.standard_normal((rows, columns)).astype(np.float32)
        out = np.full(rows, np.nan, np.float32)
        assert host.lib.run_row_sum(pointer(x), I64(rows), I64(columns), pointer(out), U32(2), bug) == 0
        assert_close(out, x.sum(1, dtype=np.float64), 1e-5, 1e-5)


def reverse32(host: Host, bug: int) -> None:
    x = RNG.standard_normal(96).astype(np.float32)
    out = np.full_like(x, np.nan)
    assert host.lib.run_reverse32(pointer(x), I64(x.size), pointer(out), bug) == 0
    assert_close(out, x.reshape(3, 32)[:, ::-1].ravel(), 0)


def total(host: Host, bug: int) -> None:
    x = RNG.standard_normal(500).astype(np.float32)
    partial, out, ticket = np.full(3, np.nan, np.float32), np.zeros(2, np.float32), np.zeros(1, np.uint32)
    assert host.lib.run_total(pointer(x), I64(500), pointer(partial), pointer(ticket), pointer(out), U32(3), bug) == 0
    assert_close(out[0], x.sum(dtype=np.float64), 1e-5, 1e-5)


def divergent(host: Host, bug: int) -> None:
    out = np.full(64, -1, np.int32)
    assert host.lib.run_divergent(pointer(out), bug) == 0
    t = np.arange(64)
    value = np.where(t % 32 < 16, t ^ 1, t)
    expected = np.where(t % 32 == 5, 1, value[63 - t] + 22)
    np.testing.assert_array_equal(out, expected)


def scale4(host: Host, bug: int) -> None:
    x = RNG.standard_normal(103).astype(np.float32)
    out = np.zeros(100, np.float32)
    assert host.lib.run_scale4(pointer(x), I64(100), ctypes.c_float(2), pointer(out), bug) == 0
    assert_close(out, 2 * x[:100], 0)


def fill(host: Host, bug: int) -> None:
    n = (1 << 32) + 100
    out = sparse(n, "float32")
    blocks = -(-n // 256)
    host.select_blocks(blocks - 1, 1)
    try:
        assert host.lib.run_fill(pointer(out), I64(n), U32(256), SIZE(0), bug) == 0
    finally:
        host.select_blocks(0, 0)
    np.testing.assert_array_equal(out[-101:], np.r_[0, np.ones(100)])
    assert not out[:100].any()


def refused_launches(host: Host) -> None:
    out = np.zeros(100, np.float32)
    for block, shared_bytes in ((2048, 0), (64, 49 * 1024)):
        assert host.lib.run_fill(pointer(out), I64(100), U32(block), SIZE(shared_bytes), 0) == 9
    assert host.lib.run_fill(pointer(out), I64(0), U32(64), SIZE(0), 0) == 9
    host.lib.simt_fail_launch(0, 719)
    assert host.lib.run_fill(pointer(out), I64(100), U32(64), SIZE(0), 0) == 719
    assert not out.any()
    assert host.launches()[-1] == "fill grid=2,1,1 block=64,1,1 shared=0 stream=(nil) device=0"


RACE, VALUE = "ThreadSanitizer: data race", "Mismatched elements"
PLANTED = (  # kernel, bug, what it is, build, words of the report
    (row_sum, 1, "no barrier between write and read", "tsan", RACE),
    (row_sum, 1, "no barrier between write and read, by value", "plain", "nan location mismatch"),
    (row_sum, 2, "no barrier between read and next write", "tsan", RACE),
    (row_sum, 2, "no barrier between read and next write, by value", "plain", r"\[reverse\]: Not equal"),
    (row_sum, 3, "reads one element past the row", "asan", "heap-buffer-overflow"),
    (row_sum, 4, "writes one element past shared memory", "asan", "index 2 out of bounds"),
    (row_sum, 4, "writes one element past shared memory, by canary", "plain", "write past the end of shared partial"),
    (row_sum, 6, "some lanes leave before a shuffle", "plain", "__shfl_xor_sync: it reads a lane that takes no part"),
    (row_sum, 7, "shuffle mask leaves out its caller", "plain", "the calling lane is not in its own mask"),
    (reverse32, 1, "no __syncwarp", "tsan", RACE),
    (reverse32, 2, "a shuffle in place of __syncwarp", "tsan", RACE),
    (reverse32, 3, "writes past dynamic shared memory", "asan", "heap-buffer-overflow"),
    (reverse32, 3, "writes past dynamic shared memory, by canary", "plain", "write past the end of shared"),
    (total, 1, "no fence before the ticket", "tsan", RACE),
    (total, 2, "two blocks add to one number", "tsan", RACE),
    (total, 3, "threads add to one number without an atomic", "tsan", RACE),
    (total, 4, "no fence behind the ticket", "tsan", RACE),
    (total, 5, "the fence comes before the write", "tsan", RACE),
    (divergent, 1, "two barriers meet", "plain", "some threads wait at the barrier of line"),
    (divergent, 2, "half a warp never comes", "plain", "deadlock: 0 of 64 threads have left, 32 wait"),
    (divergent, 3, "a mask without its caller", "plain", "the calling lane is not in its own mask"),
    (scale4, 1, "shared memory is read but never written", "plain", "nan location mismatch"),
    (scale4, 2, "a misaligned vector load", "asan", "misaligned address"),
    (fill, 1, "a 32-bit index beyond 2^32", "plain", VALUE),
)


def cases() -> Cases:
    for kernel in (row_sum, reverse32, total, divergent, scale4, fill):
        yield f"{kernel.__name__}: right", functools.partial(kernel, bug=0)
    yield "launches that CUDA refuses: right", refused_launches
    for kernel, bug, what, _, _ in PLANTED:
        yield f"{kernel.__name__}: {what}", functools.partial(kernel, bug=bug)
