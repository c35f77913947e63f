"""Maxout units (Goodfellow et al. 2013), the hidden layers of the paper's discriminators.

With the winning piece i(b, u) kept from the forward pass, all that follows is one trilinear form,

    T(g, x, W) = sum_bu g[b, u]  W[u, i(b, u)] . x[b],

whose derivatives by g, x and W are the layer's output, its gradient by x and its gradient by W. Each of them has the
other two as its own derivatives, so that gradients exist to any order (the index is constant: it jumps only where two
pieces tie).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from pygan import _core
from pygan.ops import reference
from pygan.ops._checks import check_dtype, check_same, check_shape, check_tensor
from pygan.ops._library import Function, Impl, address, define, dtype_code, place, under_autocast, use_native

__all__ = ["maxout", "maxout_pool"]

MAX_PIECES = 256  # the index is one byte


def maxout(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: Impl = "auto") -> Tensor:
    """max_j (x . weight[u, j] + bias[u, j]), a layer of maxout units (Goodfellow et al. 2013, section 3).

    Args:
        x: [..., in]. float32, float64, bfloat16, on CUDA float16.
        weight: [units, pieces, in], 1 to 256 pieces. Same dtype and device.
        bias: [units, pieces], or None. Same dtype and device.
        impl: "auto", "native" or "reference" (plain torch).

    Returns:
        [..., units], in the dtype of x (of autocast, where that is on). On a tie the first piece takes the gradient;
        the first NaN piece wins. Differentiable to any order by x, weight and bias, the winning piece held constant.

    Raises:
        TypeError: not tensors, not floating point, or of different dtypes.
        ValueError: shapes that do not fit, more than 256 pieces, different devices, an unknown `impl`.
    """
    op = "maxout"
    check_tensor(op, "x", x)
    check_tensor(op, "weight", weight)
    check_shape(op, "weight", weight, "[units, pieces, in] with 1 to 256 pieces", _is_weight(weight))
    units, pieces, size = weight.shape
    check_shape(op, "x", x, f"[..., {size}]", x.dim() > 0 and x.shape[-1] == size)
    check_dtype(op, "x", x)
    check_dtype(op, "weight", weight)
    x, weight = _cast(x), _cast(weight)
    check_same(op, "weight", weight, "x", x)
    if bias is not None:
        check_tensor(op, "bias", bias)
        check_shape(op, "bias", bias, f"[{units}, {pieces}]", bias.shape == (units, pieces))
        check_dtype(op, "bias", bias)
        bias = _cast(bias)
        check_same(op, "bias", bias, "x", x)
    if not use_native(op, impl, x):
        return reference.maxout(x, weight, bias)
    if x.dim() == 2:
        return _Maxout.apply(x, weight, bias)[0]
    rows = x.shape[:-1]
    y: Tensor = _Maxout.apply(x.reshape(rows.numel(), size), weight, bias)[0]
    return y.view(*rows, units)


def maxout_pool(x: Tensor, pieces: int, *, impl: Impl = "auto") -> Tensor:
    """Maximum over each group of `pieces` neighbouring channels, for maxout on top of a convolution.

    Args:
        x: [batch, units * pieces, ...], unit-major: channel u * pieces + j is piece j of unit u. float32, float64,
            bfloat16, on CUDA float16.
        pieces: 1 to 256.
        impl: "auto", "native" or "reference" (plain torch).

    Returns:
        [batch, units, ...], in the dtype of x. Ties, NaN and derivatives as in `maxout`.

    Raises:
        TypeError: x is not a tensor of floating-point numbers, or pieces not an int.
        ValueError: `pieces` out of range or no divisor of the channels; an unknown `impl`.
    """
    op = "maxout_pool"
    check_tensor(op, "x", x)
    if not isinstance(pieces, int):
        raise TypeError(f"{op}: pieces must be an int, got {type(pieces).__name__}")
    if not 1 <= pieces <= MAX_PIECES:
        raise ValueError(f"{op}: pieces must be 1 to {MAX_PIECES}, got {pieces}")
    check_shape(op, "x", x, f"[batch, units * {pieces}, ...]", x.dim() >= 2 and x.shape[1] % pieces == 0)
    check_dtype(op, "x", x)
    if not use_native(op, impl, x):
        return reference.maxout_pool(x, pieces)
    return _MaxoutPool.apply(x, pieces)[0]


def _is_weight(weight: Tensor) -> bool:
    return weight.dim() == 3 and 1 <= weight.shape[1] <= MAX_PIECES


def _cast(tensor: Tensor) -> Tensor:
    """Under autocast, to the dtype of linear layers; float64 stays, as in torch."""
    if tensor.dtype == torch.float64 or not under_autocast(tensor):
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


# ---- the ops --------------------------------------------------------------------------------------------------------

_STRIP_BYTES = 32 << 20  # of products on the CPU, instead of [batch, units * pieces]; smaller strips slow the product


def _pool_into(z: Tensor, y: Tensor, index: Tensor, outer: int, units: int, pieces: int, inner: int) -> None:
    if y.numel() > 0:
        sizes = outer, units, pieces, inner
        _core.maxout_pool(address(z), address(y), address(index), *sizes, dtype_code(z), *place(z))


def _maxout(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    units, pieces, _ = weight.shape
    matrix, offset = weight.flatten(0, 1).t(), None if bias is None else bias.flatten()
    y, index = _maxout_fake(x, weight, bias)
    strip = len(x) if x.is_cuda else max(256, _STRIP_BYTES // max(1, units * pieces * x.element_size()))
    z = x.new_empty(min(strip, len(x)), units * pieces)
    for begin in range(0, len(x), strip):
        part = x[begin : begin + strip]
        out = z[: len(part)]
        if offset is None:
            torch.mm(part, matrix, out=out)
        else:
            torch.addmm(offset, part, matrix, out=out)
        _pool_into(out, y[begin : begin + strip], index[begin : begin + strip], len(part), units, pieces, 1)
    return y, index


def _maxout_fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    y = x.new_empty(x.shape[0], weight.shape[0])
    return y, torch.empty_like(y, dtype=torch.uint8)


def _maxout_pool(x: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    y, index = _maxout_pool_fake(x, pieces)
    batch, units = y.shape[:2]
    _pool_into(x, y, index, batch, units, pieces, y.shape[2:].numel())
    return y, index


def _maxout_pool_fake(x: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    y = x.new_empty(x.shape[0], x.shape[1] // pieces, *x.shape[2:])
    return y, torch.empty_like(y, dtype=torch.uint8)


def _maxout_spread(grad: Tensor, index: Tensor, pieces: int) -> Tensor:
    grad, index = grad.contiguous(), index.contiguous()
    z = _maxout_spread_fake(grad, index, pieces)
    if z.numel() > 0:
        batch, units = grad.shape[:2]
        sizes = batch, units, pieces, grad.shape[2:].numel()
        _core.maxout_spread(address(grad), address(index), address(z), *sizes, dtype_code(grad), *place(grad))
    return z


def _maxout_spread_fake(grad: Tensor, index: Tensor, pieces: int) -> Tensor:
    return grad.new_empty(grad.shape[0], grad.shape[1] * pieces, *grad.shape[2:])


def _maxout_grad_input(grad: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    batch, (units, pieces, size) = len(grad), weight.shape
    if not _winners_only(grad, size, pieces, of_weight=False):
        return torch.mm(_maxout_spread(grad, index, pieces), weight.flatten(0, 1))
    grad, weight, index = grad.contiguous(), weight.contiguous(), index.contiguous()
    grad_x = grad.new_empty(batch, size)
    _core.maxout_grad_input(
        address(grad),
        address(index),
        address(weight),
        address(grad_x),
        batch,
        size,
        units,
        pieces,
        dtype_code(grad),
        *place(grad),
    )
    return grad_x


def _maxout_grad_input_fake(grad: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[0], weight.shape[2])


def _maxout_grad_weight(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    (batch, units), size = grad.shape, x.shape[1]
    if not _winners_only(grad, size, pieces, of_weight=True):
        z = _maxout_spread(grad, index, pieces)
        return torch.mm(z.t(), x).view(units, pieces, size), z.sum(0).view(units, pieces)
    grad, x, index = grad.contiguous(), x.contiguous(), index.contiguous()
    grad_weight = grad.new_empty(units, pieces, size)
    grad_bias = grad.new_empty(units, pieces)
    scratch_bytes = 0 if grad.is_cuda else _core.maxout_scratch(batch, units, pieces, dtype_code(grad))
    scratch = grad.new_empty(scratch_bytes, dtype=torch.uint8)
    _core.maxout_grad_weight(
        address(grad),
        address(index),
        address(x),
        address(grad_weight),
        address(grad_bias),
        address(scratch),
        batch,
        size,
        units,
        pieces,
        dtype_code(grad),
        *place(grad),
    )
    return grad_weight, grad_bias


def _maxout_grad_weight_fake(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    units = grad.shape[1]
    return grad.new_empty(units, pieces, x.shape[1]), grad.new_empty(units, pieces)


# Fewest pieces at which visiting only the winning rows beats the dense product, (input, weight gradient), measured on
# one CPU with torch 2.13 (benchmarks/maxout.py --routes). For CUDA it is an estimate, never measured.
_FEWEST_PIECES = {
    ("avx512", torch.float32): (2, 2),
    ("avx512", torch.bfloat16): (5, 10),
    ("avx2", torch.float32): (2, 2),
    ("avx2", torch.bfloat16): (10, 32),
    ("baseline", torch.float32): (3, 5),
    ("baseline", torch.bfloat16): (32, 64),
}
_FEWEST_PIECES_CUDA = 16  # not measured on a GPU yet: `benchmarks/maxout.py --routes`, which gpu_check runs, will tell
_FEWEST_EXAMPLES = 16  # of the weight gradient: below, sorting the examples costs more than it spares


def _winners_only(grad: Tensor, size: int, pieces: int, of_weight: bool) -> bool:
    """Whether a gradient is computed from the winning rows only, or by a dense matrix product."""
    if grad.numel() == 0 or size == 0:
        return False
    if grad.is_cuda:
        return pieces >= _FEWEST_PIECES_CUDA
    dtype = torch.bfloat16 if grad.dtype == torch.bfloat16 else torch.float32
    fewest = _FEWEST_PIECES[_core.simd_level(), dtype][of_weight]
    return pieces >= fewest and (len(grad) >= _FEWEST_EXAMPLES or not of_weight)


_maxout_op = define("maxout(Tensor x, Tensor weight, Tensor? bias) -> (Tensor, Tensor)", _maxout, _maxout_fake)
_maxout_pool_op = define("maxout_pool(Tensor x, int pieces) -> (Tensor, Tensor)", _maxout_pool, _maxout_pool_fake)
_maxout_spread_op = define(
    "maxout_spread(Tensor grad, Tensor index, int pieces) -> Tensor", _maxout_spread, _maxout_spread_fake
)
_maxout_grad_input_op = define(
    "maxout_grad_input(Tensor grad, Tensor weight, Tensor index) -> Tensor",
    _maxout_grad_input,
    _maxout_grad_input_fake,
)
_maxout_grad_weight_op = define(
    "maxout_grad_weight(Tensor grad, Tensor x, Tensor index, int pieces) -> (Tensor, Tensor)",
    _maxout_grad_weight,
    _maxout_grad_weight_fake,
)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def _output(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor) -> Tensor:
    """The derivative of T by g: what maxout would give if `index` won. Plain torch, hence differentiable."""
    z = linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return z.unflatten(1, weight.shape[:2]).gather(2, index.long().unsqueeze(2)).squeeze(2)


def _by_input(grad: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    function = _GradInput.apply if torch.is_grad_enabled() else _maxout_grad_input_op
    return function(grad, weight, index)


def _by_weight(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    function = _GradWeight.apply if torch.is_grad_enabled() else _maxout_grad_weight_op
    return function(grad, x, index, pieces)


class _Maxout(Function):
    """(x, weight, bias) -> output, index."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        return _maxout_op(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, weight, index = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        if grad is None:
            return None, None, None
        grad_x = _by_input(grad, weight, index) if by_x else None
        grad_weight, grad_bias = None, None
        if by_weight or by_bias:
            grad_weight, grad_bias = _by_weight(grad, x, index, weight.shape[1])
        return grad_x, grad_weight if by_weight else None, grad_bias if by_bias else None


class _GradInput(Function):
    """(grad, weight) -> the derivative of T by x."""

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        return _maxout_grad_input_op(grad, weight, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, outer: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, weight, index = ctx.saved_tensors
        by_grad, by_weight, _ = ctx.needs_input_grad
        if outer is None:
            return None, None, None
        return (
            _output(outer, weight, None, index) if by_grad else None,
            _by_weight(grad, outer, index, weight.shape[1])[0] if by_weight else None,
            None,
        )


class _GradWeight(Function):
    """(grad, x) -> the derivatives of T by weight and bias."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
        return _maxout_grad_weight_op(grad, x, index, pieces)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad, x, index, _ = inputs
        ctx.save_for_backward(grad, x, index)

    @staticmethod
    def backward(ctx: Any, outer: Tensor, outer_bias: Tensor) -> tuple[Tensor | None, ...]:
        grad, x, index = ctx.saved_tensors
        by_grad, by_x, *_ = ctx.needs_input_grad
        return (
            _output(x, outer, outer_bias, index) if by_grad else None,
            _by_input(grad, outer, index) if by_x else None,
            None,
            None,
        )


class _MaxoutPool(Function):
    """x -> maximum, index."""

    @staticmethod
    def forward(x: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
        return _maxout_pool_op(x, pieces)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.pieces = inputs[1]
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
        (index,) = ctx.saved_tensors
        return None if grad is None else _Spread.apply(grad, index, ctx.pieces), None


class _Spread(Function):
    """grad -> grad where a piece won, zero elsewhere: the transpose of picking the winners."""

    @staticmethod
    def forward(grad: Tensor, index: Tensor, pieces: int) -> Tensor:
        return _maxout_spread_op(grad, index, pieces)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, index, ctx.pieces = inputs
        ctx.save_for_backward(index)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        picked = outer.unflatten(1, (-1, ctx.pieces)).gather(2, index.long().unsqueeze(2)).squeeze(2)
        return picked, None, None
