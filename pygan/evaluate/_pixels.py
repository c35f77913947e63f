"""Images as the judges of this package take them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pygan.ops._checks import check_shape, check_tensor

__all__ = ["check_images", "check_pixels"]


def check_images(op: str, name: str, images: Tensor, shape: Sequence[int]) -> None:
    """Raise unless images are n images of this shape (C, H, W), as `check_pixels` wants them."""
    check_tensor(op, name, images)
    check_shape(op, name, images, f"[n, {', '.join(map(str, shape))}]", tuple(images.shape[1:]) == tuple(shape))
    check_pixels(op, name, images)


def check_pixels(op: str, name: str, images: Tensor) -> None:
    """Raise TypeError unless images are uint8 or float32, ValueError unless floats lie in [0, 1]."""
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"{op}: {name} must be uint8 or float32, got {images.dtype}")
    if images.dtype == torch.float32 and images.numel() > 0:
        low, high = (float(value) for value in images.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{op}: {name} must lie in [0, 1], got [{low:.9g}, {high:.9g}]")
