"""How the weights of the 2014 players start."""

import torch
from torch import Tensor, nn

__all__ = ["start_at_mean", "start_uniform"]


def start_uniform(module: nn.Module, init_range: float) -> None:
    """Draw weights from U(-init_range, init_range) and set biases to 0."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.uniform_(parameter, -init_range, init_range)


@torch.no_grad()
def start_at_mean(bias: Tensor, mean_image: Tensor) -> None:
    """Set the bias before a sigmoid to the logit of the mean image [C, H, W] in [0, 1]."""
    # A pixel that is black in every image would have an infinite logit.
    bias.copy_(mean_image.flatten().double().clamp(1e-7, 1 - 1e-7).logit())
