"""What a discriminator's hidden layers say of images, as features for a classifier."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from pygan.data import as_float
from pygan.game import Game, evaluating
from pygan.settings import value_of_type, whole_number

__all__ = ["hidden_layers"]


def hidden_layers(game: Game, images: Tensor, layers: Sequence[int] | None, pool: int) -> Tensor:
    """Return the outputs of hidden layers of the discriminator, flattened side by side: [n, F] on its device.

    The arguments are those of `pygan.Run.features`.
    """
    discriminator = game.discriminator
    chosen = _chosen(discriminator, layers)
    pool = whole_number("features: pool", pool, 1)
    outputs: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        return lambda module, inputs, output: outputs.__setitem__(index, _pooled(output, pool))

    hooks = [layer.register_forward_hook(keep(index)) for index, layer in enumerate(chosen)]
    device = next((parameter.device for parameter in discriminator.parameters()), torch.device("cpu"))
    labels = torch.zeros(len(images), dtype=torch.int64, device=device) if game.classes else None
    try:
        with evaluating(discriminator):
            game.judge(game.scale.apply(as_float(images.to(device))), labels)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([outputs[index] for index in range(len(chosen))], 1)


def _chosen(discriminator: nn.Module, layers: Sequence[int] | None) -> list[nn.Module]:
    hidden = getattr(discriminator, "hidden", None)
    if not isinstance(hidden, nn.Sequential | nn.ModuleList | list) or len(hidden) == 0:
        raise ValueError(
            f"features: discriminator must have its hidden layers, in order, as an attribute `hidden`, and "
            f"{type(discriminator).__name__} has none"
        )
    known = list(hidden)
    layers = None if layers is None else value_of_type("features: layers", layers, tuple[int, ...])
    if layers is not None and len(layers) == 0:
        raise ValueError("features: layers must name at least one layer, or be None for all, got none")
    for index in layers or ():
        if not -len(known) <= index < len(known):
            raise ValueError(f"features: layers must be in {-len(known)}..{len(known) - 1}, got {index}")
    return known if layers is None else [known[index] for index in layers]


def _pooled(output: Tensor, pool: int) -> Tensor:
    if output.ndim == 4 and max(output.shape[2:]) > pool:
        output = adaptive_max_pool2d(output, pool)
    return output.flatten(1).float()
