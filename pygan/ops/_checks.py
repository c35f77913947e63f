"""Checks of arguments, in the order type, dtype, device, shape. Every message names the op and the argument, what was
expected and what came."""

from typing import Any

import torch
from torch import Tensor

__all__ = [
    "MAX_PIECES",
    "check_device",
    "check_dtype",
    "check_operands",
    "check_pieces",
    "check_same",
    "check_shape",
    "check_tensor",
    "check_winners",
]

MAX_PIECES = 256  # of a maxout unit: the winner's index is one byte
_STRIDED = torch.strided
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(op: str, name: str, value: Any, position: int | None = None) -> None:
    """Raise TypeError unless `value` is a tensor with one piece of memory: not sparse, nested or of MKL-DNN.

    `position` is its place in a list of that name.
    """
    if _is_dense(value):
        return
    if position is not None:
        name = f"{name}[{position}]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    layout = "nested" if value.is_nested else str(value.layout)
    raise TypeError(f"{op}: {name} must be a dense tensor (layout torch.strided), got a {layout} one")


def _is_dense(value: Any) -> bool:
    is_tensor = type(value) is Tensor or isinstance(value, Tensor)  # the first is the cheaper question
    return is_tensor and value.layout is _STRIDED and not value.is_nested


def check_shape(op: str, name: str, value: Tensor, expected: str, ok: bool) -> None:
    """Raise ValueError with the expected shape in words unless `ok`."""
    if not ok:
        raise ValueError(f"{op}: {name} must have shape {expected}, got {list(value.shape)}")


def check_dtype(op: str, name: str, value: Tensor) -> None:
    """Raise TypeError unless `value` holds floating-point numbers."""
    if value.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be float16, bfloat16, float32 or float64, got {value.dtype}")


def check_pieces(op: str, pieces: int) -> None:
    """Raise ValueError unless `pieces` is a number of pieces that a maxout unit may have."""
    if not 1 <= pieces <= MAX_PIECES:
        raise ValueError(f"{op}: pieces must be 1 to {MAX_PIECES}, got {pieces}")


def check_operands(op: str, names: tuple[str, ...], first: Tensor, *others: Tensor | None) -> None:
    """Raise TypeError or ValueError unless all are dense, of one floating-point dtype, on one device; None passes."""
    if not _is_dense(first):
        check_tensor(op, names[0], first)
    dtype, on_cpu = first.dtype, first.is_cpu
    if dtype not in FLOATS:
        check_dtype(op, names[0], first)
    for i, other in enumerate(others, 1):
        if other is not None:
            if not _is_dense(other):
                check_tensor(op, names[i], other)
            if other.dtype is not dtype or not (on_cpu and other.is_cpu):
                check_dtype(op, names[i], other)
                check_same(op, names[i], other, names[0], first)


def check_winners(op: str, index: Tensor, grad: Tensor, shape: torch.Size) -> None:
    """Raise TypeError or ValueError unless `index` may hold the winning piece for each element of `grad`, of `shape`.

    The kernels look at its values: on the CPU a number beyond the pieces is an error, on CUDA it takes no gradient.
    """
    check_tensor(op, "index", index)
    if index.dtype is not torch.uint8:
        raise TypeError(f"{op}: index must be uint8, got {index.dtype}")
    if not (index.is_cpu and grad.is_cpu):
        check_device(op, "index", index, "grad", grad)
    if index.shape != shape:
        check_shape(op, "index", index, f"of grad, {list(shape)}", False)


def check_same(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise TypeError or ValueError unless two tensors share dtype and device."""
    if value.dtype != other.dtype:
        raise TypeError(f"{op}: {name} must have the dtype of {other_name}, {other.dtype}, got {value.dtype}")
    check_device(op, name, value, other_name, other)


def check_device(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless two tensors share a device."""
    if value.device != other.device:
        raise ValueError(f"{op}: {name} must be on the device of {other_name}, {other.device}, got {value.device}")
