"""Checks of arguments, in the order type, dtype, device, shape. Every message names the op and the argument, what was
expected and what came."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "MAX_PIECES",
    "check_device",
    "check_dtype",
    "check_dtypes",
    "check_finite",
    "check_pieces",
    "check_place",
    "check_same",
    "check_shape",
    "check_tensor",
    "check_winners",
]

MAX_PIECES = 256  # of a maxout unit: the winner's index is one byte
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(op: str, name: str, value: Any) -> None:
    """Raise TypeError unless `value` is a tensor with one piece of memory: not sparse, nested or of MKL-DNN."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else str(value.layout)
        raise TypeError(f"{op}: {name} must be a dense tensor (layout torch.strided), got a {layout} one")


def check_shape(op: str, name: str, value: Tensor, expected: str, ok: bool) -> None:
    """Raise ValueError with the expected shape in words unless `ok`."""
    if not ok:
        raise ValueError(f"{op}: {name} must have shape {expected}, got {list(value.shape)}")


def check_dtype(op: str, name: str, value: Tensor) -> None:
    """Raise TypeError unless `value` holds floating-point numbers."""
    if value.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be float16, bfloat16, float32 or float64, got {value.dtype}")


def check_finite(op: str, name: str, value: Tensor) -> None:
    """Raise ValueError if `value` holds NaN or an infinity."""
    if not bool(value.isfinite().all()):
        raise ValueError(f"{op}: {name} must be finite, got NaN or infinity")


def check_pieces(op: str, pieces: int) -> None:
    """Raise ValueError unless `pieces` is a number of pieces that a maxout unit may have."""
    if not 1 <= pieces <= MAX_PIECES:
        raise ValueError(f"{op}: pieces must be 1 to {MAX_PIECES}, got {pieces}")


def check_place(op: str, names: Sequence[str | None], args: Sequence[Any]) -> None:
    """Raise TypeError or ValueError unless the named arguments are dense tensors on the device of the first one.

    A name that ends in "?" may be None, an argument without a name may be anything.
    """
    for name, arg in zip(names, args, strict=False):  # torch leaves out defaults
        if name is not None and not (arg is None and name.endswith("?")):
            check_tensor(op, name.rstrip("?"), arg)
            check_device(op, name.rstrip("?"), arg, str(names[0]), args[0])


def check_dtypes(op: str, names: tuple[str, ...], first: Tensor, *others: Tensor | None) -> None:
    """Raise TypeError unless all have one floating-point dtype; None passes."""
    dtype = first.dtype
    if dtype not in FLOATS:
        check_dtype(op, names[0], first)
    for i, other in enumerate(others, 1):
        if other is not None and other.dtype is not dtype:
            check_dtype(op, names[i], other)
            raise TypeError(f"{op}: {names[i]} must have the dtype of {names[0]}, {dtype}, got {other.dtype}")


def check_winners(op: str, index: Tensor, shape: torch.Size) -> None:
    """Raise TypeError or ValueError unless `index` may hold the winning pieces for a gradient of `shape`.

    The kernels look at its values: on the CPU a number beyond the pieces is an error, on CUDA it takes no gradient.
    """
    if index.dtype is not torch.uint8:
        raise TypeError(f"{op}: index must be uint8, got {index.dtype}")
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
