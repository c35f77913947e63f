"""Images as the judges of this package take them."""

import torch
from torch import Tensor

__all__ = ["check_pixels"]


def check_pixels(op: str, name: str, images: Tensor) -> None:
    """Raise TypeError unless images are uint8 or float32, ValueError unless floats lie in [0, 1]."""
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"{op}: {name} must be uint8 or float32, got {images.dtype}")
    if images.dtype == torch.float32 and images.numel() > 0:
        low, high = (float(value) for value in images.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{op}: {name} must lie in [0, 1], got [{low:.3g}, {high:.3g}]")
