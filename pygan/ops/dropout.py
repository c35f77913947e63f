"""Dropout whose mask is a pure function of a seed: reproducible, the same for any number of threads, never stored."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from pygan import _core
from pygan.ops import reference
from pygan.ops._checks import FLOATS, check_dtype, check_place, check_tensor
from pygan.ops._library import Function, Impl, address, define, dtype_code, place, save, use_native

__all__ = ["draw_seed", "dropout"]


def dropout(x: Tensor, p: float, seed: Tensor | None = None, *, first: int = 0, impl: Impl = "auto") -> Tensor:
    """Sets elements to 0 with probability p and divides the others by 1 - p (Srivastava et al. 2014).

    Element i of x in row-major order is kept if word `first` + i of Philox4x32-10 (Salmon et al. 2011), of 32 bits,
    under the key `seed` is less than (1 - p) 2^32. The mask takes no memory: the derivative draws it again.

    Args:
        x: any shape; float32, float64, bfloat16, on CUDA float16.
        p: probability of dropping an element, in [0, 1). With 0, x itself is returned and no seed is drawn.
        seed: int64, 0-dimensional, on the device of x. None draws one by `draw_seed`.
        first: at least 0; larger, if x is a part of a larger tensor: the place of its first element there.
        impl: "auto", "native" or "reference" (plain torch).

    Returns:
        The shape and dtype of x. Dropped elements are 0 even where x is infinite or NaN. Differentiable to any order.

    Raises:
        TypeError: x is not a floating-point tensor, or seed not an int64 tensor.
        ValueError: p outside of [0, 1), `first` below 0, a seed of another shape or device, an unknown `impl`.
    """
    if has_torch_function_unary(x):  # as torch's own functions do: see `pygan.whole_batch`
        return handle_torch_function(dropout, (x,), x, p, seed, first=first, impl=impl)
    op = "dropout"
    check_tensor(op, "x", x)
    check_dtype(op, "x", x)
    if not 0 <= p < 1:
        raise ValueError(f"{op}: p must be in [0, 1), got {p}")
    if p == 0:
        return x
    if seed is None:
        seed = draw_seed(x.device)
    if not use_native(op, impl, x):
        check_place(op, ("x", "seed"), (x, seed))
        _check_dropout(x, seed, 1 - p, first)
        return reference.dropout(x, p, seed, first)
    return _Dropout.apply(x, seed, 1 - p, first)


def draw_seed(device: torch.device | str) -> Tensor:
    """A seed from torch's default generator of the device: int64, 0-dimensional, uniform in [0, 2^63 - 1)."""
    return torch.randint(2**63 - 1, (), dtype=torch.int64, device=device)


# ---- the op ---------------------------------------------------------------------------------------------------------


def drop_into(y: Tensor, x: Tensor, keep: float, seed: Tensor, first: int = 0) -> None:
    """y <- dropout of x, as elements first, first + 1, ... of the mask; contiguous, y may be x. Not differentiable."""
    _core.dropout(address(x), address(y), x.numel(), first, address(seed), keep, dtype_code(x), *place(x))


def _check_dropout(x: Tensor, seed: Tensor, keep: float, first: int = 0) -> None:
    op = "dropout"
    if x.dtype not in FLOATS:
        check_dtype(op, "x", x)
    if seed.dtype is not torch.int64:
        raise TypeError(f"{op}: seed must be int64, got {seed.dtype}")
    if seed.dim() != 0:
        raise ValueError(f"{op}: seed must have shape [], got {list(seed.shape)}")
    if not 0 < keep <= 1:
        raise ValueError(f"{op}: keep must be in (0, 1], got {keep}")
    if first < 0:
        raise ValueError(f"{op}: first must be at least 0, got {first}")


def _dropout(x: Tensor, seed: Tensor, keep: float, first: int = 0) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    drop_into(y, x, keep, seed, first)
    return y


def _dropout_fake(x: Tensor, seed: Tensor, keep: float, first: int = 0) -> Tensor:
    return x.new_empty(x.shape)


_dropout_op = define(
    "dropout(Tensor x, Tensor seed, float keep, int first=0) -> Tensor",
    _check_dropout,
    _dropout,
    _dropout_fake,
    lambda x, seed, keep, first=0: _Dropout.apply(x, seed, keep, first),
)


class _Dropout(Function):
    """Linear in x, and its own transpose: the derivative applies the same mask."""

    @staticmethod
    def forward(x: Tensor, seed: Tensor, keep: float, first: int) -> Tensor:
        return _dropout_op(x, seed, keep, first)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, seed, ctx.keep, ctx.first = inputs
        ctx.set_materialize_grads(False)
        save(ctx, seed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        (seed,) = ctx.saved_tensors
        if grad is None:
            return None, None, None, None
        return _Dropout.apply(grad, seed, ctx.keep, ctx.first), None, None, None

    @staticmethod
    def tangent(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (seed,) = ctx.saved_tensors
        return _Dropout.apply(tangent, seed, ctx.keep, ctx.first)
