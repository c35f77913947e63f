"""The inner sum of the Parzen-window estimate (section 5 of the paper), for all bandwidths in one pass over distances.

|x - s|^2 = |x|^2 + |s|^2 - 2 x . s: the inner products of a strip of points with a block of samples are one matrix
product of torch's, into a buffer that stays in cache; one native pass over that buffer does the rest. On CUDA there is
also one kernel that takes the distances from differences itself, for rows too short for a matrix product to pay. Memory
is O(n + N): no [n, N] matrix ever exists.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pygan import _core
from pygan.ops import _products, reference
from pygan.ops._cache import last_cache_bytes
from pygan.ops._checks import check_device, check_dtype, check_dtypes, check_same, check_shape, check_tensor
from pygan.ops._library import Function, Impl, address, define, dtype_code, place, use_native

__all__ = ["Precision", "parzen_logsumexp"]

Precision = Literal["split", "float32", "tf32"]

# Bytes of a block of samples, moved to their mean, and of the buffer of inner products, on CUDA, where few launches
# matter (benchmarks/results/h100.md). On the CPU both are parts of the last cache, in which they are to stay.
_CUDA_BYTES = (32 << 20, 64 << 20)
_CACHE_PARTS = (4, 12.8)
_FUSED_BELOW = 80  # values of a row, below which the fused kernel is the faster way on CUDA, measured on an H100
_HALF_SCALE = 256.0  # keeps the low parts of float16 pairs above its smallest numbers


def parzen_logsumexp(
    x: Tensor,
    samples: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    impl: Impl = "auto",
    precision: Precision = "split",
) -> Tensor:
    """log sum_i exp(-|x - s_i|^2 / (2 sigma^2)), without normaliser, for every sigma.

    Args:
        x: [n, d] points; float16, bfloat16, float32 or float64.
        samples: [N, d], same dtype and device.
        sigmas: [S] bandwidths, positive and finite; a tensor on the same device or a sequence of floats. The result for
            one does not depend on the others (on CUDA: as long as they differ by less than a factor of 1e15).
        impl: "auto", "native" or "reference" (plain torch, which stores the [S, n, N] matrix).
        precision: of float32 inner products on CUDA for d >= 80; elsewhere this changes nothing. "split" multiplies
            numbers that are split in two halves of 11 bits each, on tensor cores; "float32" takes the plain product,
            four times slower and two to five times as exact; "tf32" rounds the numbers to 11 bits, as TF32 does, which
            is good for means and off by some hundredths of a nat per point.

    Returns:
        [S, n] in nats; float64 for float64 inputs, float32 for all others. -inf only where no exponent is
        representable or N = 0. Once differentiable by x, samples and sigmas, without storing the [n, N] matrix.
        float32 results are as exact as differences taken in float32, whatever the user has chosen for
        `torch.set_float32_matmul_precision`, near the origin and far from it. The exception is "split" on CUDA, whose
        tensor cores truncate their sums: there, of 784 values, single points were off by up to 6e-3 nats at sigma .1,
        and their mean by 1e-4.

    Raises:
        TypeError: not tensors, not floating point, or of different dtypes.
        ValueError: wrong shapes, different devices, an unknown `impl`; a sigma that is not positive and finite (not by
            the reference, which does not look, nor on CUDA, where looking would wait for the device and it gives NaN).
    """
    op = "parzen_logsumexp"
    check_tensor(op, "x", x)
    check_tensor(op, "samples", samples)
    if not isinstance(sigmas, Tensor):
        sigmas = torch.tensor(sigmas, dtype=torch.float64, device=x.device)
    check_shape(op, "x", x, "[n, d]", x.ndim == 2)
    check_shape(op, "samples", samples, f"[N, {x.shape[1]}]", samples.ndim == 2 and samples.shape[1] == x.shape[1])
    check_shape(op, "sigmas", sigmas, "[S]", sigmas.ndim == 1)
    check_dtype(op, "x", x)
    check_dtype(op, "sigmas", sigmas)
    check_same(op, "samples", samples, "x", x)
    check_device(op, "sigmas", sigmas, "x", x)
    if x.dtype is not torch.float64:
        x, samples = x.float(), samples.float()
    _check_precision(op, precision)
    if not use_native(op, impl, x):
        return reference.parzen_logsumexp(x, samples, sigmas)
    return _ParzenLogsumexp.apply(x, samples, sigmas.double(), precision)[0]


# ---- the pairs, a tile at a time ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tile:
    """A strip of points and a block of samples, both moved to the samples' mean and scaled, and their products."""

    rows: slice
    columns: slice
    x: Tensor  # [rows, d]
    samples: Tensor  # [columns, d]
    products: Tensor  # [rows, columns]
    native: _core.ParzenTile


class _Pairs:
    """All pairs of a point and a sample, as tiles; every tile reuses the memory of the one before.

    sigmas rise: what the kernels do for one of them does not depend on the larger ones.
    """

    def __init__(self, x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> None:
        self.x, self.samples = x.contiguous(), samples.contiguous()
        self.centre = self.samples.mean(0).nan_to_num_(0, 0, 0)
        self.scale = _scale(sigmas)
        self.rates = _rates(sigmas, self.scale)
        self.halves = precision != "float32" and _products.half_products_are_exact(x)
        self.split = precision == "split"

    def __iter__(self) -> Iterator[_Tile]:
        (n, d), count = self.x.shape, len(self.samples)
        rows, columns = _tile_shape(self.x, count)
        moved_samples, moved_x = self.samples.new_empty(columns, d), self.x.new_empty(rows, d)
        buffer = self.x.new_empty(rows * columns)
        for left in range(0, count, columns):
            block = self.samples[left : left + columns]
            samples, sample_norms = self._move(block, moved_samples)
            sample_norms = sample_norms.to(samples.dtype)
            right = _products.prepare(_halves(samples, self.split, 0) if self.halves else samples)
            for top in range(0, n, rows):
                strip = self.x[top : top + rows]
                x, x_norms = self._move(strip, moved_x)
                out = buffer[: len(x) * len(samples)].view(len(x), len(samples))
                products = _products.inner(_halves(x, self.split, 1) if self.halves else x, right, out)
                native = _core.ParzenTile(
                    address(strip),
                    address(block),
                    address(x_norms),
                    address(sample_norms),
                    address(products),
                    address(self.rates),
                    address(self.scale),
                    _HALF_SCALE**-2 if self.halves else 1.0,
                    len(x),
                    len(samples),
                    d,
                    len(self.rates),
                    n,
                )
                yield _Tile(slice(top, top + len(x)), slice(left, left + len(samples)), x, samples, products, native)

    def _move(self, rows: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """(rows - centre) * scale, in the memory of `moved`, and the squared norms in float64."""
        n, d = rows.shape
        norms = rows.new_empty(n, dtype=torch.float64)
        _core.parzen_centre(
            address(rows),
            address(self.centre),
            address(self.scale),
            n,
            d,
            address(moved),
            address(norms),
            dtype_code(rows),
            *place(rows),
        )
        return moved[:n], norms


def _tile_shape(x: Tensor, count: int) -> tuple[int, int]:
    """Points x samples of a tile: round numbers, which products are faster at, where there are more of them."""
    (n, d), size = x.shape, x.element_size()
    block_bytes, buffer_bytes = _CUDA_BYTES if x.is_cuda else [int(last_cache_bytes() / part) for part in _CACHE_PARTS]
    in_block = block_bytes // (size * max(d, 1))
    columns = min(count, _rounded(min(in_block, buffer_bytes // (64 * size)), 256))
    rows = min(n, _rounded(min(in_block, buffer_bytes // (size * columns)), 16))
    return rows, columns


def _rounded(number: int, unit: int) -> int:
    """The largest multiple of `unit` that is not larger; at least 64."""
    return max(64, number // unit * unit)


def _by_size(sigmas: Tensor) -> tuple[Tensor, ...]:
    """Indices of the sigmas, rising, in parts that one scale serves: [2^(32 k - 16), 2^(32 k + 16)) for some k.

    Squared distances in units of the largest sigma of a part do not underflow where the smallest one sees them. On
    CUDA, where looking at the sigmas would wait for the device, all are one part.
    """
    if sigmas.is_cuda:
        return (sigmas.masked_fill(~_good(sigmas), 0).argsort(),)
    if not bool(_good(sigmas).all()):
        raise ValueError(f"parzen_logsumexp: sigmas must be positive and finite, got {sigmas.tolist()}")
    rising, order = sigmas.sort()
    ranges = (torch.frexp(rising).exponent + 15) // 32
    return order.split(ranges.unique_consecutive(return_counts=True)[1].tolist())


def _scale(sigmas: Tensor) -> Tensor:
    """A power of two that brings the largest sigma to [1/4, 1/2).

    There 2 sigma^2 < 1, so that a squared distance overflows only where its exponent does.
    """
    largest = sigmas.masked_fill(~_good(sigmas), 0).amax()
    return (torch.frexp(largest).mantissa / largest / 2).clamp(max=2.0**1022)


def _rates(sigmas: Tensor, scale: Tensor) -> Tensor:
    """1 / (2 sigma^2), scaled; NaN for a bad sigma."""
    return (0.5 / (sigmas * scale).square()).masked_fill(~_good(sigmas), torch.nan)


def _good(sigmas: Tensor) -> Tensor:
    return (sigmas > 0) & sigmas.isfinite()


def _halves(rows: Tensor, split: bool, low_section: int) -> Tensor:
    """`rows` [n, d], contiguous, as float16 times _HALF_SCALE: the user's switches for TF32 do not reach such products.

    Split in two, a number is high + low: the rows become (low, high, high) or (high, low, high), and the product of one
    with the other is that of all but low . low. Tensor cores cut off what a sum cannot hold, so the small terms come
    first. What exceeds float16 becomes infinite and then goes through differences.
    """
    (n, d), sections = rows.shape, 3 if split else 1
    halves = rows.new_empty(n, sections * d, dtype=torch.float16)
    low_section = low_section if split else -1
    _core.parzen_split(address(rows), n, d, _HALF_SCALE, sections, low_section, address(halves), *place(rows))
    return halves


# ---- the ops --------------------------------------------------------------------------------------------------------


def _check_parzen_logsumexp(x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> None:
    _check_pairs("parzen_logsumexp", x, samples, sigmas, precision)


def _check_parzen_logsumexp_backward(
    grad: Tensor, x: Tensor, samples: Tensor, sigmas: Tensor, log_sum: Tensor, precision: str
) -> None:
    op = "parzen_logsumexp_backward"
    _check_pairs(op, x, samples, sigmas, precision)
    shape = [len(sigmas), len(x)]
    check_shape(op, "grad", grad, str(shape), list(grad.shape) == shape)
    check_same(op, "grad", grad, "x", x)
    check_shape(op, "log_sum", log_sum, str(shape), list(log_sum.shape) == shape)
    check_same(op, "log_sum", log_sum, "sigmas", sigmas)


def _check_pairs(op: str, x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> None:
    """Raise unless x [n, d] and samples [N, d] are both float32 or both float64, and sigmas [S] are float64."""
    check_dtypes(op, ("x", "samples"), x, samples)
    check_shape(op, "x", x, "[n, d]", x.ndim == 2)
    check_shape(op, "samples", samples, f"[N, {x.shape[1]}]", samples.ndim == 2 and samples.shape[1] == x.shape[1])
    check_shape(op, "sigmas", sigmas, "[S]", sigmas.ndim == 1)
    if x.dtype not in (torch.float32, torch.float64) or sigmas.dtype is not torch.float64:
        raise TypeError(f"{op}: x must be float32 or float64, and sigmas float64, got {x.dtype} and {sigmas.dtype}")
    _check_precision(op, precision)


def _check_precision(op: str, precision: str) -> None:
    if precision not in ("split", "float32", "tf32"):
        raise ValueError(f"{op}: precision must be 'split', 'float32' or 'tf32', got {precision!r}")


def _parzen_logsumexp(x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    out, log_sum = _parzen_logsumexp_fake(x, samples, sigmas, precision)
    if out.numel() == 0 or len(samples) == 0:
        return out.fill_(-torch.inf), log_sum.fill_(-torch.inf)
    for part in _by_size(sigmas):
        if _is_fused(x):
            log_sum[part] = _fused(x.contiguous(), samples.contiguous(), sigmas[part])
        else:
            log_sum[part] = _tiled(x, samples, sigmas[part], precision)
    return out.copy_(log_sum), log_sum


def _tiled(x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> Tensor:
    """The sums in float64, a tile at a time."""
    peak = x.new_full((len(sigmas), len(x)), -torch.inf, dtype=torch.float64)
    total = torch.zeros_like(peak)
    for tile in _Pairs(x, samples, sigmas, precision):
        at = tile.rows.start
        _core.parzen_accumulate(tile.native, address(peak[:, at:]), address(total[:, at:]), dtype_code(x), *place(x))
    return peak.add_(total.log_())


def _is_fused(x: Tensor) -> bool:
    return x.is_cuda and x.shape[1] < _FUSED_BELOW


@contextmanager
def fused_below(values: int) -> Iterator[None]:
    """Within this context, use the fused kernel on CUDA for rows of fewer than `values` values (for tests)."""
    global _FUSED_BELOW
    before, _FUSED_BELOW = _FUSED_BELOW, values
    try:
        yield
    finally:
        _FUSED_BELOW = before


def _fused(x: Tensor, samples: Tensor, sigmas: Tensor) -> Tensor:
    """The sums in float64, by one kernel and a merge of the parts in which it takes the samples."""
    scale = _scale(sigmas)
    # A scale above 1 costs the kernel time. It is needed where squares of the size of the smallest sigma's underflow,
    # and must be a number of the dtype.
    largest = 2.0**100 if x.dtype is torch.float32 else 2.0**1000
    scale = scale.clamp(max=1.0).where(sigmas.amin() >= 2.0**-57, scale.clamp(max=largest))
    rates = _rates(sigmas, scale)
    (n, d), count = x.shape, len(samples)
    parts = _core.parzen_fused_parts(n, count, len(rates), x.get_device())
    log_sums = rates.new_empty(parts, len(rates), n)
    _core.parzen_fused(
        address(x),
        address(samples),
        address(rates),
        address(scale),
        address(log_sums),
        n,
        count,
        d,
        len(rates),
        parts,
        dtype_code(x),
        *place(x),
    )
    return log_sums.logsumexp(0) if parts > 1 else log_sums[0]


def _parzen_logsumexp_fake(x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    shape = (sigmas.shape[0], x.shape[0])
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.float64)


def _parzen_logsumexp_backward(
    grad: Tensor, x: Tensor, samples: Tensor, sigmas: Tensor, log_sum: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_samples, grad_sigmas = (
        torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (x, samples, sigmas)
    )
    if log_sum.numel() == 0 or len(samples) == 0:
        return grad_x, grad_samples, grad_sigmas
    for part in _by_size(sigmas):
        pairs = _Pairs(x, samples, sigmas[part], precision)
        grads, log_sums = grad[part].double().contiguous(), log_sum[part].contiguous()
        mean_square = torch.zeros_like(log_sums)
        for tile in pairs:
            at = tile.rows.start
            _core.parzen_weights(
                tile.native,
                address(grads[:, at:]),
                address(log_sums[:, at:]),
                address(mean_square[:, at:]),
                dtype_code(x),
                *place(x),
            )
            weights = tile.products  # now w[j, i] = sum_s grad[s, j] / sigma_s^2 p[s, j, i]
            grad_x[tile.rows] += _pull(weights, tile.samples, tile.x).mul_(pairs.scale)
            grad_samples[tile.columns] += _pull(weights.t(), tile.x, tile.samples).mul_(pairs.scale)
        scaled = sigmas[part] * pairs.scale
        grad_sigmas[part] = (grads * mean_square).sum(1) * pairs.scale / scaled**3
    return grad_x, grad_samples, grad_sigmas


def _pull(weights: Tensor, targets: Tensor, points: Tensor) -> Tensor:
    """sum_i weights[j, i] (targets[i] - points[j]), in float64."""
    pull, part = torch.zeros_like(points, dtype=torch.float64), torch.empty_like(points)
    total = pull.new_zeros(len(points), 1)
    # A product adds its terms one after another: short ones, summed up in float64, lose less.
    for some, others in zip(weights.split(_products.SUM_LENGTH, 1), targets.split(_products.SUM_LENGTH), strict=True):
        _products.multiply(some, others, part)
        pull += part
        total += some.sum(1, keepdim=True)
    return pull.addcmul_(total, points.double(), value=-1)


def _parzen_logsumexp_backward_fake(
    grad: Tensor, x: Tensor, samples: Tensor, sigmas: Tensor, log_sum: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), samples.new_empty(samples.shape), sigmas.new_empty(sigmas.shape)


define(
    "parzen_logsumexp(Tensor x, Tensor samples, Tensor sigmas, str precision) -> (Tensor, Tensor)",
    _check_parzen_logsumexp,
    _parzen_logsumexp,
    _parzen_logsumexp_fake,
)
define(
    "parzen_logsumexp_backward(Tensor grad, Tensor x, Tensor samples, Tensor sigmas, Tensor log_sum, str precision)"
    " -> (Tensor, Tensor, Tensor)",
    _check_parzen_logsumexp_backward,
    _parzen_logsumexp_backward,
    _parzen_logsumexp_backward_fake,
)


# ---- derivatives ----------------------------------------------------------------------------------------------------


class _ParzenLogsumexp(Function):
    """(x, samples, sigmas) -> the sums, in the dtype of x and in float64."""

    @staticmethod
    def forward(x: Tensor, samples: Tensor, sigmas: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        return torch.ops.pygan.parzen_logsumexp(x, samples, sigmas, precision)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.precision = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        return *_Gradient.apply(grad, *ctx.saved_tensors, ctx.precision), None


class _Gradient(Function):
    """The gradients of `_ParzenLogsumexp`, which cannot be differentiated again."""

    @staticmethod
    def forward(
        grad: Tensor, x: Tensor, samples: Tensor, sigmas: Tensor, log_sum: Tensor, precision: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.pygan.parzen_logsumexp_backward(grad, x, samples, sigmas, log_sum, precision)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        raise RuntimeError("parzen_logsumexp: no second derivative; use impl='reference', which has one")
