"""Maxout units (Goodfellow et al. 2013), the hidden layers of the paper's discriminators.

With the winning piece i(b, u) kept from the forward pass, all that follows is one trilinear form,

    T(g, x, W) = sum_bu g[b, u]  W[u, i(b, u)] . x[b],

whose derivatives with respect to g, x and W are the layer's output and its gradients with respect to x and W. Each of
them has the other two as its own derivatives, so that gradients exist to any order (the index is constant: it jumps
only where two pieces tie).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from pygan import _core
from pygan.ops import reference
from pygan.ops._checks import MAX_PIECES, check_dtypes, check_pieces, check_place, check_shape, check_winners
from pygan.ops._library import (
    Function,
    Impl,
    address,
    define,
    dtype_code,
    is_recorded,
    place,
    save,
    under_autocast,
    use_native,
)

__all__ = ["maxout", "maxout_pool"]


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
    if under_autocast(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = _cast(x, dtype), _cast(weight, dtype), _cast(bias, dtype)
    native = use_native("maxout", impl, x)
    if native and x.dim() == 2:
        return _Maxout.apply(x, weight, bias)[0]
    check_place("maxout", ("x", "weight", "bias?"), (x, weight, bias))
    _check_layer(x, weight, bias)
    if not native:
        return reference.maxout(x, weight, bias)
    rows = x.shape[:-1]
    y: Tensor = _Maxout.apply(x.reshape(rows.numel(), x.shape[-1]), weight, bias)[0]
    return y.view(*rows, weight.shape[0])


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
    if not isinstance(pieces, int):
        raise TypeError(f"maxout_pool: pieces must be an int, got {type(pieces).__name__}")
    if not use_native("maxout_pool", impl, x):
        check_place("maxout_pool", ("x",), (x,))
        _check_maxout_pool(x, pieces)
        return reference.maxout_pool(x, pieces)
    return _MaxoutPool.apply(x, pieces)[0]


def _cast(tensor: Any, dtype: torch.dtype) -> Any:
    """Cast floating-point tensors to the dtype of linear layers under autocast. float64 stays, as in torch."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(dtype)


# ---- the ops --------------------------------------------------------------------------------------------------------

_STRIP_BYTES = 32 << 20  # of products on the CPU, instead of [batch, units * pieces]; smaller strips slow the product


def _check_layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """For x [..., in], as `maxout` takes it."""
    op = "maxout"
    check_dtypes(op, ("x", "weight", "bias"), x, weight, bias)
    shape = weight.shape
    if len(shape) != 3 or not 1 <= shape[1] <= MAX_PIECES:
        check_shape(op, "weight", weight, f"[units, pieces, in] with 1 to {MAX_PIECES} pieces", False)
    if x.dim() == 0 or x.shape[-1] != shape[2]:
        check_shape(op, "x", x, f"[..., {shape[2]}]", False)
    if bias is not None and bias.shape != shape[:2]:
        check_shape(op, "bias", bias, f"[{shape[0]}, {shape[1]}]", False)


def _check_maxout(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _check_layer(x, weight, bias)
    if x.dim() != 2:
        check_shape("maxout", "x", x, f"[batch, {weight.shape[2]}]", False)


def _check_maxout_pool(x: Tensor, pieces: int) -> None:
    op = "maxout_pool"
    check_dtypes(op, ("x",), x)
    check_pieces(op, pieces)
    if x.dim() < 2 or x.shape[1] % pieces != 0:
        check_shape(op, "x", x, f"[batch, units * {pieces}, ...]", False)


def _check_maxout_spread(grad: Tensor, index: Tensor, pieces: int) -> None:
    op = "maxout_spread"
    check_dtypes(op, ("grad",), grad)
    check_pieces(op, pieces)
    shape = grad.shape
    if len(shape) < 2:
        check_shape(op, "grad", grad, "[batch, units, ...]", False)
    check_winners(op, index, shape)


def _check_maxout_grad_input(grad: Tensor, weight: Tensor, index: Tensor) -> None:
    op = "maxout_grad_input"
    check_dtypes(op, ("grad", "weight"), grad, weight)
    of_grad, of_weight = grad.shape, weight.shape
    if len(of_weight) != 3 or not 1 <= of_weight[1] <= MAX_PIECES:
        check_shape(op, "weight", weight, f"[units, pieces, in] with 1 to {MAX_PIECES} pieces", False)
    if len(of_grad) != 2 or of_grad[1] != of_weight[0]:
        check_shape(op, "grad", grad, f"[batch, {of_weight[0]}]", False)
    check_winners(op, index, of_grad)


def _check_maxout_grad_weight(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> None:
    op = "maxout_grad_weight"
    check_dtypes(op, ("grad", "x"), grad, x)
    check_pieces(op, pieces)
    of_grad, of_x = grad.shape, x.shape
    if len(of_grad) != 2:
        check_shape(op, "grad", grad, "[batch, units]", False)
    if len(of_x) != 2 or of_x[0] != of_grad[0]:
        check_shape(op, "x", x, f"[{of_grad[0]}, in]", False)
    check_winners(op, index, of_grad)


def _pool_into(z: Tensor, y: Tensor, index: Tensor, outer: int, units: int, pieces: int, inner: int) -> None:
    if y.numel() > 0:
        sizes = outer, units, pieces, inner
        _core.maxout_pool(address(z), address(y), address(index), *sizes, dtype_code(z), *place(z))


def _maxout(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    units, pieces, _ = weight.shape
    matrix, offset = weight.flatten(0, 1).t(), None if bias is None else bias.flatten()
    y, index = _maxout_fake(x, weight, bias)
    strip = max(1, len(x)) if x.is_cuda else max(256, _STRIP_BYTES // max(1, units * pieces * x.element_size()))
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
    _core.maxout_grad_weight(
        address(grad),
        address(index),
        address(x),
        address(grad_weight),
        address(grad_bias),
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


# Fewest pieces at which visiting only the winning rows beats the dense product, (input, weight gradient), measured with
# benchmarks/maxout.py --routes: on one CPU with torch 2.13, and on an H100 (benchmarks/results/h100.md), whose tensor
# cores make the dense product of half-precision numbers the faster one at any number of pieces that was tried.
_NEVER = MAX_PIECES + 1
_FEWEST_PIECES = {
    ("avx512", torch.float32): (2, 2),
    ("avx512", torch.bfloat16): (5, 5),
    ("avx2", torch.float32): (2, 2),
    ("avx2", torch.bfloat16): (10, 32),
    ("baseline", torch.float32): (3, 5),
    ("baseline", torch.bfloat16): (32, 64),
    ("cuda", torch.float32): (32, 64),
    ("cuda", torch.bfloat16): (_NEVER, _NEVER),
}
_FEWEST_EXAMPLES = 16  # of the weight gradient on the CPU: below, sorting the examples costs more than it spares


def _winners_only(grad: Tensor, size: int, pieces: int, of_weight: bool) -> bool:
    """Whether a gradient is computed from the winning rows only, or by a dense matrix product."""
    if grad.numel() == 0 or size == 0:
        return False
    dtype = torch.bfloat16 if grad.dtype in (torch.bfloat16, torch.float16) else torch.float32
    fewest = _FEWEST_PIECES["cuda" if grad.is_cuda else _core.simd_level(), dtype][of_weight]
    return pieces >= fewest and (len(grad) >= _FEWEST_EXAMPLES or not of_weight or grad.is_cuda)


_maxout_op = define(
    "maxout(Tensor x, Tensor weight, Tensor? bias) -> (Tensor, Tensor)",
    _check_maxout,
    _maxout,
    _maxout_fake,
    lambda *args: _Maxout.apply(*args),
)
maxout_pool_op = define(
    "maxout_pool(Tensor x, int pieces) -> (Tensor, Tensor)",
    _check_maxout_pool,
    _maxout_pool,
    _maxout_pool_fake,
    lambda *args: _MaxoutPool.apply(*args),
)
_maxout_spread_op = define(
    "maxout_spread(Tensor grad, Tensor index, int pieces) -> Tensor",
    _check_maxout_spread,
    _maxout_spread,
    _maxout_spread_fake,
    lambda *args: _Spread.apply(*args),
)
maxout_grad_input_op = define(
    "maxout_grad_input(Tensor grad, Tensor weight, Tensor index) -> Tensor",
    _check_maxout_grad_input,
    _maxout_grad_input,
    _maxout_grad_input_fake,
    lambda *args: _GradInput.apply(*args),
)
maxout_grad_weight_op = define(
    "maxout_grad_weight(Tensor grad, Tensor x, Tensor index, int pieces) -> (Tensor, Tensor)",
    _check_maxout_grad_weight,
    _maxout_grad_weight,
    _maxout_grad_weight_fake,
    lambda *args: _GradWeight.apply(*args),
)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def _output(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor) -> Tensor:
    """The derivative of T with respect to g: maxout's output if `index` won. Plain torch, hence differentiable."""
    z = linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return _pick(z, index, weight.shape[1])


def _pick(z: Tensor, index: Tensor, pieces: int) -> Tensor:
    """The winners' elements: z [batch, units * pieces, ...], index [batch, units, ...] -> [batch, units, ...]."""
    return z.unflatten(1, (-1, pieces)).gather(2, index.long().unsqueeze(2)).squeeze(2)


def _grad_input(grad: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    function = _GradInput.apply if is_recorded() else maxout_grad_input_op
    return function(grad, weight, index)


def _grad_weight(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    function = _GradWeight.apply if is_recorded() else maxout_grad_weight_op
    return function(grad, x, index, pieces)


def _sum(*terms: Tensor | None) -> Tensor | None:
    """The sum of the terms that are not None; None if all are."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


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
        save(ctx, x, weight, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, weight, index = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        if grad is None:
            return None, None, None
        grad_x = _grad_input(grad, weight, index) if need_x else None
        grad_weight, grad_bias = None, None
        if need_weight or need_bias:
            grad_weight, grad_bias = _grad_weight(grad, x, index, weight.shape[1])
        return grad_x, grad_weight if need_weight else None, grad_bias if need_bias else None

    @staticmethod
    def tangent(ctx: Any, x_tangent: Tensor | None, weight_tangent: Tensor | None, bias_tangent: Tensor | None) -> Any:
        x, weight, index = ctx.saved_tensors
        by_x = None if x_tangent is None else _output(x_tangent, weight, None, index)
        by_weight = None if weight_tangent is None else _output(x, weight_tangent, None, index)
        if bias_tangent is not None:
            bias_tangent = _pick(bias_tangent.flatten().expand(len(x), -1), index, weight.shape[1])
        return _sum(by_x, by_weight, bias_tangent), None


class _GradInput(Function):
    """(grad, weight) -> the derivative of T with respect to x."""

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        return maxout_grad_input_op(grad, weight, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, outer: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, weight, index = ctx.saved_tensors
        need_grad, need_weight, _ = ctx.needs_input_grad
        if outer is None:
            return None, None, None
        return (
            _output(outer, weight, None, index) if need_grad else None,
            _grad_weight(grad, outer, index, weight.shape[1])[0] if need_weight else None,
            None,
        )

    @staticmethod
    def tangent(ctx: Any, grad_tangent: Tensor | None, weight_tangent: Tensor | None, _: None) -> Tensor | None:
        grad, weight, index = ctx.saved_tensors
        return _sum(
            None if grad_tangent is None else _grad_input(grad_tangent, weight, index),
            None if weight_tangent is None else _grad_input(grad, weight_tangent, index),
        )


class _GradWeight(Function):
    """(grad, x) -> the derivatives of T with respect to weight and bias."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, index: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
        return maxout_grad_weight_op(grad, x, index, pieces)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad, x, index, ctx.pieces = inputs
        save(ctx, grad, x, index)

    @staticmethod
    def backward(ctx: Any, outer: Tensor, outer_bias: Tensor) -> tuple[Tensor | None, ...]:
        grad, x, index = ctx.saved_tensors
        need_grad, need_x, *_ = ctx.needs_input_grad
        return (
            _output(x, outer, outer_bias, index) if need_grad else None,
            _grad_input(grad, outer, index) if need_x else None,
            None,
            None,
        )

    @staticmethod
    def tangent(ctx: Any, grad_tangent: Tensor | None, x_tangent: Tensor | None, *_: None) -> tuple[Any, Any]:
        grad, x, index = ctx.saved_tensors
        tangents: tuple[Tensor | None, Tensor | None] = (None, None)
        if grad_tangent is not None:
            tangents = _grad_weight(grad_tangent, x, index, ctx.pieces)
        if x_tangent is not None:  # the gradient with respect to the bias does not depend on x
            tangents = _sum(tangents[0], _grad_weight(grad, x_tangent, index, ctx.pieces)[0]), tangents[1]
        return tangents


class _MaxoutPool(Function):
    """x -> maximum, index."""

    @staticmethod
    def forward(x: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
        return maxout_pool_op(x, pieces)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.pieces = inputs[1]
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        save(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
        (index,) = ctx.saved_tensors
        return None if grad is None else _Spread.apply(grad, index, ctx.pieces), None

    @staticmethod
    def tangent(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _pick(tangent, index, ctx.pieces), None


class _Spread(Function):
    """grad -> grad where a piece won, zero elsewhere: the transpose of picking the winners."""

    @staticmethod
    def forward(grad: Tensor, index: Tensor, pieces: int) -> Tensor:
        return _maxout_spread_op(grad, index, pieces)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, index, ctx.pieces = inputs
        save(ctx, index)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _pick(outer, index, ctx.pieces), None, None

    @staticmethod
    def tangent(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (index,) = ctx.saved_tensors
        return _Spread.apply(tangent, index, ctx.pieces)
