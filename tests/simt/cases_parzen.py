"""The Parzen window's kernels against sums over differences in float64."""

import ctypes
import functools

import numpy as np
from simt_host import DTYPES, EPSILON, Cases, Host, assert_close, pointer, sparse, store

RNG = np.random.default_rng(0)
SIZES = ((1, 1, 1, 1), (3, 300, 5, 10), (2, 31, 33, 8), (4, 257, 70, 1), (2, 700, 2, 17))  # rows, columns, d, sigmas
UNIT = 0.5  # what the products are to be multiplied by
I64 = ctypes.c_int64


class Tile(ctypes.Structure):
    """ParzenTile of csrc/parzen/parzen.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("samples", ctypes.c_void_p),
        ("x_norms", ctypes.c_void_p),
        ("sample_norms", ctypes.c_void_p),
        ("products", ctypes.c_void_p),
        ("rates", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("product_unit", ctypes.c_double),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("sigmas", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )


class Fused(ctypes.Structure):
    """ParzenFused of csrc/parzen/parzen.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("samples", ctypes.c_void_p),
        ("rates", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("log_sums", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("sigmas", ctypes.c_int64),
        ("parts", ctypes.c_int64),
    )


class Problem:
    """Points against samples: the tile's operands, and the distances that it stands for."""

    def __init__(
        self,
        dtype: str,
        x: np.ndarray,
        samples: np.ndarray,
        rates: np.ndarray,  # falling
        scale: float = 2.0,
        error: float = 0.0,  # of the products beside that of their rounding, in epsilons
    ) -> None:
        self.dtype = dtype
        self.x, self.samples = store(x, dtype), store(samples, dtype)
        self.rates, self.scale = rates.astype(np.float64), np.array([scale])
        with np.errstate(over="ignore", invalid="ignore"):
            centre = self.samples.sum(0) / max(1, len(samples)) if np.isfinite(samples).all() else np.zeros(x.shape[1])
            moved = (self.x.astype(np.float64) - centre) * scale
            moved_samples = (self.samples.astype(np.float64) - centre) * scale
            self.x_norms = (moved**2).sum(1)
            self.sample_norms = store((moved_samples**2).sum(1), dtype)
            lost = 1 + error * RNG.uniform(-EPSILON[dtype], EPSILON[dtype], (len(x), len(samples)))
            self.products = store(moved @ moved_samples.T * lost / UNIT, dtype)
            differences = (self.x[:, None].astype(np.float64) - self.samples.astype(np.float64)) * scale
            self.d2 = (differences**2).sum(2)

    def tile(self, columns: slice = slice(None)) -> Tile:
        """Of the samples in `columns`; the arrays that it points to live as long as this problem."""
        self.used = self.samples[columns], self.sample_norms[columns], self.products[:, columns].copy()
        samples, sample_norms, products = self.used
        arrays = (self.x, samples, self.x_norms, sample_norms, products, self.rates, self.scale)
        sizes = (len(self.x), len(samples), self.x.shape[1], len(self.rates), len(self.x))
        return Tile(*map(pointer, arrays), UNIT, *sizes)

    def log_sums(self) -> np.ndarray:
        """log sum_i exp(-rate d2): [sigmas, rows]."""
        exponents = -self.rates[:, None, None] * self.d2
        peak = exponents.max(2, keepdims=True, initial=-np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.isneginf(peak), peak, peak + np.log(np.exp(exponents - peak).sum(2, keepdims=True)))[
                ..., 0
            ]


def ordinary(dtype: str, rows: int, columns: int, d: int, sigmas: int) -> Problem:
    rates = 1 / (2 * np.geomspace(0.3, 3, sigmas) ** 2 * max(d, 1))
    return Problem(dtype, RNG.standard_normal((rows, d)), RNG.standard_normal((columns, d)), rates)


def launch(host: Host, function: str, problem: Problem, tile: Tile, *arrays: np.ndarray, **where: int) -> None:
    place = where.get("device", 0), ctypes.c_size_t(where.get("stream", 0))
    host.call(function, DTYPES[problem.dtype], ctypes.byref(tile), *map(pointer, arrays), *place)


def accumulated(host: Host, problem: Problem, *parts: slice) -> np.ndarray:
    """log_sums() by the kernel, over the samples in parts."""
    peak = np.full((len(problem.rates), len(problem.x)), -np.inf)
    total = np.zeros_like(peak)
    for part in parts or (slice(None),):
        launch(host, "parzen_accumulate", problem, problem.tile(part), peak, total)
    with np.errstate(divide="ignore"):
        return peak + np.log(total)


def tolerance(dtype: str) -> float:
    return 64 * EPSILON[dtype]


def centre(host: Host, dtype: str) -> None:
    for n, d in ((1, 1), (3, 257), (5, 40)):
        rows, middle = store(RNG.standard_normal((n, d)) + 5, dtype), store(RNG.standard_normal(d) + 5, dtype)
        moved, norms, scale = np.full_like(rows, np.nan), np.full(n, np.nan), np.array([0.25])
        host.call("parzen_centre", DTYPES[dtype], *map(pointer, (rows, middle, scale)), I64(n), I64(d),
                  pointer(moved), pointer(norms), 0, ctypes.c_size_t(0))  # fmt: skip
        np.testing.assert_array_equal(moved, (rows - middle) * rows.dtype.type(0.25))
        assert_close(norms, (moved.astype(np.float64) ** 2).sum(1), 1e-12)


def split(host: Host) -> None:
    """With infinity for what float16 does not hold; more numbers than threads."""
    for n, d, sections, low_section in ((1, 1, 3, 0), (3, 257, 3, 1), (5, 40, 1, -1), (1700, 650, 3, 1), (0, 4, 3, 0)):
        moved = RNG.standard_normal((n, d)).astype(np.float32)
        if n == 3:
            moved[1, 2] = 1e6
        halves = np.full((n, sections, d), np.nan, np.float16)
        host.call("parzen_split", pointer(moved), I64(n), I64(d), ctypes.c_double(256), sections, low_section,
                  pointer(halves), 0, ctypes.c_size_t(0))  # fmt: skip
        with np.errstate(over="ignore", invalid="ignore"):
            high = (moved * np.float32(256)).astype(np.float16)
            low = (moved * np.float32(256) - high.astype(np.float32)).astype(np.float16)
        for section in range(sections):
            np.testing.assert_array_equal(halves[:, section], low if section == low_section else high)


def accumulate(host: Host, dtype: str) -> None:
    for sizes in SIZES:
        problem = ordinary(dtype, *sizes)
        expected = problem.log_sums()
        assert_close(accumulated(host, problem), expected, tolerance(dtype), tolerance(dtype))
        halves = slice(0, sizes[1] // 3), slice(sizes[1] // 3, None)  # the first is empty where there is one sample
        assert_close(accumulated(host, problem, *halves), expected, tolerance(dtype), tolerance(dtype))


def far_from_the_origin(host: Host, dtype: str) -> None:
    """Distances much smaller than the norms are taken from the differences; x is among the samples."""
    samples = RNG.standard_normal((300, 9)) * 1e-3 + RNG.integers(0, 2, (300, 1)) * 50
    problem = Problem(dtype, samples[:3], samples, np.array([1e5, 1e3]))
    assert_close(accumulated(host, problem), problem.log_sums(), tolerance(dtype), 1e3 * tolerance(dtype))


def bandwidths_do_not_depend_on_each_other(host: Host, dtype: str) -> None:
    """Tight clusters far apart: products do not know the nearest sample; and the widest window takes all again."""
    unit = 2 * EPSILON[dtype] ** 0.5  # the products' error is that of a distance of about this width
    centres = np.array([[-1.0], [1.0]])[RNG.integers(0, 2, 300)] * np.ones(9)
    samples = centres + RNG.standard_normal((300, 9)) * unit * RNG.choice([0.1, 1, 50], (300, 1))
    points = samples[:3] + 0.1 * unit * RNG.standard_normal((3, 9))
    rates = 1 / (2 * np.array([0.1, 1, 10, 1e3]) * unit) ** 2
    together = Problem(dtype, points, samples, rates, error=8)
    got = accumulated(host, together)
    assert_close(got, together.log_sums(), tolerance(dtype), tolerance(dtype))
    for s in range(len(rates)):
        together.rates = rates[s : s + 1]
        np.testing.assert_array_equal(accumulated(host, together)[0], got[s])


def half_of_the_norms(host: Host, dtype: str) -> None:
    """One sample carries the sum; its distance is between a quarter and a half of the norms."""
    rng = np.random.default_rng(2)  # whatever ran before: the ratio below depends on the numbers
    samples = rng.standard_normal((600, 40))
    steps = rng.standard_normal((2, 40))
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (samples[:2], steps)]
    points = samples[:2] + steps * lengths[0] / lengths[1]
    problem = Problem(dtype, points, samples, np.array([20.0]), error=16)
    ratio = problem.d2[range(2), range(2)] / (problem.x_norms + problem.sample_norms[:2])
    assert ((ratio > 0.27) & (ratio < 0.45)).all(), ratio
    assert_close(accumulated(host, problem), problem.log_sums(), 2 * EPSILON[dtype])


def overflow_and_nan(host: Host, dtype: str) -> None:
    """Norms that overflow while a distance is finite; infinite samples; a NaN poisons its own row only."""
    huge = float(np.finfo(dtype).max) / 8
    x, samples = RNG.standard_normal((4, 5)), RNG.standard_normal((40, 5))
    x[1] = samples[7] = huge
    x[2] = -huge
    x[3, 2] = np.nan
    samples[9, 0] = np.inf
    problem = Problem(dtype, x, samples, np.array([2.0, 0.5]), scale=1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = problem.log_sums()
    assert_close(expected[:, 1], np.zeros(2), 0)
    expected[expected < -np.finfo(dtype).max] = -np.inf  # distances are of the dtype
    assert np.isneginf(expected[:, 2]).all()
    expected[:, 3] = np.nan
    assert_close(accumulated(host, problem), expected, tolerance(dtype), tolerance(dtype))


def no_samples(host: Host, dtype: str) -> None:
    problem = Problem(dtype, RNG.standard_normal((2, 3)), np.zeros((0, 3)), np.array([1.0]))
    assert np.isneginf(accumulated(host, problem, slice(0, 0))).all()


def weights(host: Host, dtype: str) -> None:
    for sizes in SIZES:
        problem = ordinary(dtype, *sizes)
        log_sum, grad = problem.log_sums(), RNG.standard_normal((sizes[3], sizes[0]))
        mean_square = np.ones_like(grad)
        launch(host, "parzen_weights", problem, problem.tile(), grad, log_sum, mean_square)
        exponents = problem.rates[:, None, None] * problem.d2
        share = np.exp(-exponents - log_sum[..., None])
        assert_close(mean_square, 1 + (share * problem.d2).sum(2), tolerance(dtype), tolerance(dtype))
        terms = grad[..., None] * 2 * problem.rates[:, None, None] * share
        error = abs(problem.used[2] - terms.sum(0))
        allowed = tolerance(dtype) * (abs(terms) * (1 + exponents)).sum(0)  # an exponent's error is relative to it
        assert (error <= allowed).all(), f"largest error {error.max()}"


def many_products(host: Host) -> None:
    """4,194,304 rows of 600 products: of the blocks, one for a row, only the last runs."""
    rows, columns = 1 << 22, 600
    x, norms, products = sparse(rows, "float32"), sparse(rows, "float64"), sparse(rows * columns, "float32")
    peak, total = sparse(rows, "float64"), sparse(rows, "float64")
    x[-1], norms[-1], peak[-1] = 3, 9, -np.inf
    samples, one, unused = np.zeros(columns, np.float32), np.ones(1), np.zeros(columns, np.float32)
    arrays = (x, samples, norms, unused, products, one, one)
    tile = Tile(*map(pointer, arrays), 1.0, rows, columns, 1, 1, rows)
    host.select_blocks(rows - 1, 1)
    try:
        host.call("parzen_accumulate", 0, ctypes.byref(tile), pointer(peak), pointer(total), 0, ctypes.c_size_t(0))
    finally:
        host.select_blocks(0, 0)
    assert_close(peak[-2:] + np.log(np.maximum(total[-2:], 1)), [0, -9 + np.log(columns)], 1e-6)


def many_rows_of_centre(host: Host) -> None:
    n, d = 1 << 24, 130
    rows, moved, norms = sparse(n * d, "float32"), sparse(n * d, "float32"), sparse(n, "float64")
    rows[-d:] = 3
    middle, scale = np.ones(d, np.float32), np.ones(1)
    host.select_blocks(n - 1, 1)
    try:
        host.call("parzen_centre", 0, *map(pointer, (rows, middle, scale)), I64(n), I64(d), pointer(moved),
                  pointer(norms), 0, ctypes.c_size_t(0))  # fmt: skip
    finally:
        host.select_blocks(0, 0)
    np.testing.assert_array_equal(moved[-d - 1 :], np.r_[0, np.full(d, 2)])
    assert_close(norms[-2:], [0, 4 * d], 1e-12)


# ---- the fused kernel ------------------------------------------------------------------------------------------------

FUSED_SIZES = (  # points, samples, d, sigmas, parts of the samples
    (1, 1, 1, 1, 1),
    (63, 31, 33, 3, 1),
    (64, 32, 32, 2, 1),
    (65, 65, 31, 1, 2),
    (2, 200, 100, 10, 3),
    (5, 64, 0, 3, 1),
    (1, 33, 4, 33, 1),
    (9, 129, 7, 16, 9),  # more parts than tiles
)


def fused_log_sums(host: Host, problem: Problem, parts: int = 1, **where: int) -> np.ndarray:
    """The kernel's log sums of each part of the samples: [parts, sigmas, n]."""
    out = np.full((parts, len(problem.rates), len(problem.x)), np.nan)
    arrays = (problem.x, problem.samples, problem.rates, problem.scale, out)
    sizes = (len(problem.x), len(problem.samples), problem.x.shape[1], len(problem.rates), parts)
    place = where.get("device", 0), ctypes.c_size_t(where.get("stream", 0))
    host.call("parzen_fused", DTYPES[problem.dtype], ctypes.byref(Fused(*map(pointer, arrays), *sizes)), *place)
    return out


def fused_sum(host: Host, problem: Problem, parts: int = 1) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # -inf + -inf
        return np.logaddexp.reduce(fused_log_sums(host, problem, parts))


def fused(host: Host, dtype: str) -> None:
    for *sizes, parts in FUSED_SIZES:
        problem = ordinary(dtype, *sizes)
        assert_close(fused_sum(host, problem, parts), problem.log_sums(), 4 * EPSILON[dtype], 16 * EPSILON[dtype])


def fused_parts_are_cut_at_tiles(host: Host, dtype: str) -> None:
    """Each part is the sum over its own samples."""
    problem = ordinary(dtype, 2, 300, 3, 1)
    got, width = fused_log_sums(host, problem, 2), {"float32": 64, "float64": 32}[dtype]
    first = (300 // width + 1 + 1) // 2 * width
    for part, columns in zip(got, (slice(0, first), slice(first, None)), strict=True):
        expected = Problem(dtype, problem.x, problem.samples[columns], problem.rates).log_sums()
        assert_close(part, expected, 16 * EPSILON[dtype], 16 * EPSILON[dtype])


def fused_far_from_the_origin(host: Host, dtype: str) -> None:
    """Differences do not cancel; duplicates are exact; most terms underflow."""
    samples = RNG.random((100, 40)) + 100
    problem = Problem(dtype, samples[95:], samples, np.array([1e8, 10.0]))
    got, expected = fused_sum(host, problem), problem.log_sums()
    assert_close(got[0], np.zeros(5), 0)
    assert_close(got, expected, 4 * EPSILON[dtype], 16 * EPSILON[dtype])


def fused_nearest_comes_late(host: Host, dtype: str) -> None:
    """The minimum falls from tile to tile, by much and by little; so all sums are made smaller again and again."""
    distance = np.r_[np.full(70, 30.0), np.linspace(3, 1, 130), np.full(64, 0.99), 0.5, np.full(30, 5.0)]
    problem = Problem(dtype, np.zeros((2, 1)), distance[:, None], np.array([0.01, 1.0, 8.0]), scale=1.0)
    assert_close(fused_sum(host, problem), problem.log_sums(), 4 * EPSILON[dtype], 16 * EPSILON[dtype])


def fused_long_sums(host: Host, dtype: str) -> None:
    """Many values in a row, of which each adds little: the errors of the additions do not add up."""
    problem = Problem(dtype, RNG.random((2, 5000)), RNG.random((3, 5000)), np.array([1.0]), scale=1.0)
    assert_close(fused_sum(host, problem), problem.log_sums(), 2 * EPSILON[dtype])


def fused_scales(host: Host, dtype: str) -> None:
    """A scale above 1 for data whose squares would underflow, one below for such whose squares would overflow."""
    power = 100 if dtype == "float32" else 600
    for exponent in (power, -power):
        x, samples = (RNG.standard_normal((m, 35)) for m in (3, 70))
        samples[5] = x[1]
        unit = 2.0**-exponent
        problem = Problem(dtype, x * unit, samples * unit, np.array([0.01, 2.0]), scale=1 / unit)
        assert_close(fused_sum(host, problem), problem.log_sums(), 8 * EPSILON[dtype], 16 * EPSILON[dtype])


def fused_overflow_and_nan(host: Host, dtype: str) -> None:
    """Infinite distances count for nothing; a NaN poisons its own row only, and a NaN sample or rate every row."""
    huge = float(np.finfo(dtype).max) / 2
    x, samples = RNG.standard_normal((66, 5)), RNG.standard_normal((140, 5))
    x[1] = samples[7] = huge
    x[2] = -huge
    x[3, 2] = np.nan
    x[65, 4] = -np.inf
    samples[139, 0] = np.inf
    problem = Problem(dtype, x, samples, np.array([0.5, 2.0]), scale=1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = problem.log_sums()
    expected[expected < -np.finfo(dtype).max] = -np.inf  # distances are of the dtype
    expected[:, 3] = np.nan
    assert np.isneginf(expected[:, [2, 65]]).all()
    assert_close(fused_sum(host, problem), expected, tolerance(dtype), tolerance(dtype))
    samples[100, 1] = np.nan
    for parts in (1, 2):
        assert np.isnan(fused_sum(host, Problem(dtype, x, samples, np.array([0.5])), parts)).all()
    clean = Problem(dtype, np.ones((2, 1)), np.ones((3, 1)), np.array([np.nan, np.inf]))
    assert_close(fused_sum(host, clean), np.array([[np.nan] * 2, [np.log(3)] * 2]), 1e-15)


def fused_large_offsets(host: Host) -> None:
    """More than 2^31 values in x, and more than 2^31 results: of the blocks only the last runs."""
    n, d = (1 << 25) + 3, 70
    x, out = sparse(n * d, "float32"), sparse(70 * n, "float64")
    samples, rates, scale = np.zeros((2, d), np.float32), np.full(70, 0.5), np.ones(1)
    x[-d:] = 2
    op = Fused(*map(pointer, (x, samples, rates, scale, out)), n, 2, d, 70, 1)
    blocks = -(-n // 64) * 5
    host.select_blocks(blocks - 1, 1)
    try:
        host.call("parzen_fused", 0, ctypes.byref(op), 0, ctypes.c_size_t(0))
    finally:
        host.select_blocks(0, 0)
    assert_close(out[-3:], np.log(2) - np.array([0, 0, 2 * d]), 1e-6)


def fused_many_samples(host: Host) -> None:
    """More than 2^31 values in the samples, in 65535 parts: only the last, which is nearest, is looked at."""
    count, d = (1 << 21) * 8 + 5, 130
    samples, x, out = sparse(count * d, "float32"), np.full((1, d), 3, np.float32), sparse(65535, "float64")
    samples[-d:] = 3
    op = Fused(*map(pointer, (x, samples, np.array([50.0]), np.ones(1), out)), 1, count, d, 1, 65535)
    tiles = -(-count // 64)
    last = (tiles - 1) // -(-tiles // 65535)  # the part with the last tile
    host.select_blocks(last, 1)
    try:
        host.call("parzen_fused", 0, ctypes.byref(op), 0, ctypes.c_size_t(0))
    finally:
        host.select_blocks(0, 0)
    assert out[last] == 0


def fused_parts(host: Host) -> None:
    """Enough blocks for the host's two multiprocessors, none with fewer than 1,024 samples."""

    def parts(*sizes: int) -> int:
        out = np.zeros(1, np.int64)
        host.call("parzen_fused_parts", *map(I64, sizes), 0, pointer(out))
        return int(out[0])

    got = [parts(*sizes) for sizes in ((1, 1, 1), (1, 1 << 20, 1), (1, 3000, 1), (640, 1 << 20, 10), (640, 5000, 17))]
    assert got == [1, 16, 3, 2, 1], got
    assert parts(1 << 40, 1 << 40, 100) == 1


def streams_devices_errors(host: Host) -> None:
    problem = ordinary("float32", 2, 40, 3, 2)
    of_sigma = [np.zeros((2, 2)) for _ in range(3)]
    moved, norms = np.zeros_like(problem.x), np.zeros(2)

    def centre_two_rows(device: int = 0, stream: int = 0) -> None:
        operands = map(pointer, (problem.x, problem.samples, problem.scale))
        place = device, ctypes.c_size_t(stream)
        host.call("parzen_centre", 0, *operands, I64(2), I64(3), pointer(moved), pointer(norms), *place)

    def split_two_rows(device: int = 0, stream: int = 0) -> None:
        host.call("parzen_split", pointer(moved), I64(2), I64(3), ctypes.c_double(1), 1, -1,
                  pointer(np.zeros((2, 3), np.float16)), device, ctypes.c_size_t(stream))  # fmt: skip

    launches = {
        "split": split_two_rows,
        "accumulate": lambda **w: launch(host, "parzen_accumulate", problem, problem.tile(), *of_sigma[:2], **w),
        "weights": lambda **w: launch(host, "parzen_weights", problem, problem.tile(), *of_sigma, **w),
        "centre": centre_two_rows,
        "fused": lambda **w: fused_log_sums(host, problem, **w),
    }
    for name, call in launches.items():
        host.lib.simt_clear()
        call(device=1, stream=0xABC0)
        assert [text.split()[-2:] for text in host.launches()] == [["stream=0xabc0", "device=1"]], host.launches()
        assert host.lib.simt_device() == 0
        host.fail_launch()
        assert host.error(call) == f"parzen {name}_kernel: invalid configuration argument"


def cases() -> Cases:
    for dtype in ("float32", "float64"):
        for case in (
            centre,
            accumulate,
            far_from_the_origin,
            bandwidths_do_not_depend_on_each_other,
            half_of_the_norms,
            overflow_and_nan,
            no_samples,
            weights,
        ):
            yield f"{case.__name__} {dtype}", functools.partial(case, dtype=dtype)
        for case in (
            fused,
            fused_parts_are_cut_at_tiles,
            fused_far_from_the_origin,
            fused_nearest_comes_late,
            fused_long_sums,
            fused_scales,
            fused_overflow_and_nan,
        ):
            yield f"{case.__name__} {dtype}", functools.partial(case, dtype=dtype)
    yield "split", split
    yield "fused: more than 2^31 values and results", fused_large_offsets
    yield "fused: more than 2^31 values of samples", fused_many_samples
    yield "fused: parts", fused_parts
    yield "more than 2^31 products", many_products
    yield "more than 2^31 numbers to centre", many_rows_of_centre
    yield "streams, devices, launch errors", streams_devices_errors
