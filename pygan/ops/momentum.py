"""Gradient descent with momentum over a list of tensors, in one native call and one pass over memory.

Like the step of torch's optimisers, it changes its arguments and has no derivative, so it is no torch operator.
"""

import contextlib
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from pygan import _core
from pygan.ops import reference
from pygan.ops._checks import check_device, check_shape, check_tensor
from pygan.ops._library import Impl, UnreadableError, address, dtype_code, place, plain, use_native

__all__ = ["momentum_update"]


@torch.no_grad()
def momentum_update(
    parameters: Sequence[Tensor],
    velocities: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Tensor,
    copies: Sequence[Tensor] = (),
    *,
    impl: Impl = "auto",
) -> None:
    """v <- m v - r g, then p <- p + v, in place, as the authors' code has it.

    torch.optim.SGD keeps the rate r out of v; the two differ as soon as r changes.

    Args:
        parameters: contiguous tensors of one device and dtype, float32 or float64; changed.
        velocities: of the same shapes and dtype; changed.
        gradients: of the same shapes, all of that dtype, or all bfloat16 beside float32 parameters.
        rates: [2], the learning rate r and the momentum m, of the parameters' dtype and device. A tensor, so that a
            captured CUDA graph can go on with other rates.
        copies: empty, or bfloat16 tensors of the same shapes that receive the rounded parameters.
        impl: "auto", "native" or "reference" (plain torch).

    Raises:
        TypeError: not tensors, or of wrong dtypes.
        ValueError: lists of different lengths, shapes or devices, tensors that are not contiguous, an unknown `impl`.
    """
    op = "momentum_update"
    check_tensor(op, "rates", rates)
    if rates.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: rates must be float32 or float64, got {rates.dtype}")
    check_shape(op, "rates", rates, "[2]", rates.shape == (2,))
    half = (torch.bfloat16,) if rates.dtype == torch.float32 else ()
    lists = parameters, velocities, gradients, copies
    ordinary = plain(rates, *itertools.chain(*lists))
    if not ordinary or not all(isinstance(tensor, Tensor) for tensor in itertools.chain(*lists)):
        for name, tensors in zip(("parameters", "velocities", "gradients", "copies"), lists, strict=True):
            for i, tensor in enumerate(tensors):
                check_tensor(op, f"{name}[{i}]", tensor)
                check_device(op, f"{name}[{i}]", tensor, "rates", rates)
    _check_list(op, "parameters", parameters, parameters, (rates.dtype,))
    _check_list(op, "velocities", velocities, parameters, (rates.dtype,))
    _check_list(op, "gradients", gradients, parameters, (rates.dtype, *half))
    _check_list(op, "copies", copies, parameters if copies else (), (torch.bfloat16,))
    if not parameters:
        return
    if use_native(op, impl, rates) and ordinary:
        with contextlib.suppress(UnreadableError):
            _native(*lists, rates.contiguous())
            return
    reference.momentum_update(parameters, velocities, gradients, rates, copies)


def _native(
    parameters: Sequence[Tensor],
    velocities: Sequence[Tensor],
    gradients: Sequence[Tensor],
    copies: Sequence[Tensor],
    rates: Tensor,
) -> None:
    _core.momentum(
        [address(t) for t in parameters],
        [address(t) for t in velocities],
        [address(t) for t in gradients],
        [address(t) for t in copies],
        [t.numel() for t in parameters],
        address(rates),
        dtype_code(rates),
        dtype_code(gradients[0]),
        *place(rates),
    )
    torch.autograd.graph.increment_version([*parameters, *velocities, *copies])


def _check_list(
    op: str, name: str, tensors: Sequence[Tensor], like: Sequence[Tensor], dtypes: Sequence[torch.dtype]
) -> None:
    if len(tensors) != len(like):
        raise ValueError(f"{op}: {name} must hold {len(like)} tensors, as parameters does, got {len(tensors)}")
    for i, (tensor, shaped) in enumerate(zip(tensors, like, strict=True)):
        if not tensor.is_contiguous() or (tensor is not shaped and tensor.shape != shaped.shape):
            raise ValueError(
                f"{op}: {name}[{i}] must be contiguous with shape {list(shaped.shape)}, "
                f"got shape {list(tensor.shape)}, strides {list(tensor.stride())}"
            )
        if tensor.dtype not in dtypes or tensor.dtype != tensors[0].dtype:
            raise TypeError(f"{op}: {name}[{i}] must be {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
