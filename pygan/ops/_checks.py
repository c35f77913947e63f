"""Checks of arguments, in the order type, shape, dtype, device. Every message names the op and the argument, what was
expected and what came."""

import torch
from torch import Tensor

__all__ = ["check_device", "check_dtype", "check_same", "check_shape", "check_tensor"]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(op: str, name: str, value: object) -> None:
    """Raises TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")


def check_shape(op: str, name: str, value: Tensor, expected: str, ok: bool) -> None:
    """Raises ValueError with the expected shape in words unless `ok`."""
    if not ok:
        raise ValueError(f"{op}: {name} must have shape {expected}, got {list(value.shape)}")


def check_dtype(op: str, name: str, value: Tensor) -> None:
    """Raises TypeError unless `value` holds floating-point numbers."""
    if value.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be float16, bfloat16, float32 or float64, got {value.dtype}")


def check_same(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raises TypeError or ValueError unless two tensors share dtype and device."""
    if value.dtype != other.dtype:
        raise TypeError(f"{op}: {name} must have the dtype of {other_name}, {other.dtype}, got {value.dtype}")
    check_device(op, name, value, other_name, other)


def check_device(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ValueError unless two tensors share a device."""
    if value.device != other.device:
        raise ValueError(f"{op}: {name} must be on the device of {other_name}, {other.device}, got {value.device}")
