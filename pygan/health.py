"""Is the run well? A NaN or an infinity stops it; the usual ways to fail give a warning with advice, once."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pygan._terminal import warn

__all__ = ["HealthWarning", "NonFiniteError", "check_finite", "diagnose", "not_finite", "spread", "warn_once"]


class HealthWarning(UserWarning):
    """Training goes on, but is likely to fail in the way that the message names."""


class NonFiniteError(RuntimeError):
    """A NaN or an infinity appeared in training; the message names the update and the tensor."""


def check_finite(update: int, tensors: Mapping[str, Tensor], saved: int | None) -> None:
    """Raise NonFiniteError for the first tensor that holds a NaN or an infinity at this update.

    `saved` is the update after which the last checkpoint was made, or None if there is none.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"train: {name} holds {count} NaN or infinite values of {tensor.numel()} after update {update}. "
                + ("There is no checkpoint yet" if saved is None else f"The last checkpoint is of update {saved}")
                + ". The usual cure: lower generator_lr and discriminator_lr"
            )


def not_finite(
    update: int, statistics: Mapping[str, float], tensors: Mapping[str, Tensor], saved: int | None
) -> NonFiniteError:
    """Return the error for statistics that are not finite: it names the first bad tensor, or else the loss."""
    try:
        check_finite(update, tensors, saved)
    except NonFiniteError as error:
        return error
    bad = next(name for name, value in statistics.items() if not math.isfinite(value))
    return NonFiniteError(f"train: {bad} is {statistics[bad]} at update {update}, while all weights are finite")


def diagnose(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the warnings that a history of epochs gives rise to, whatever the objective: name -> sentence."""
    spreads = [epoch["spread"] for epoch in history if epoch["spread"] is not None]
    if spreads and spreads[-1] < 0.1 and max(spreads) > 0.3:
        return {
            "collapse": (
                f"the generator collapses: its samples vary {spreads[-1]:.2f} times as much as the data, and did "
                f"{max(spreads):.2f} times. Lower generator_lr, or give the discriminator more updates "
                "(updates='alternating' with k=2)"
            )
        }
    return {}


def spread(images: Tensor) -> float:
    """Mean over the pixels of the standard deviation over the images [n, ...]; 0 if they are all alike."""
    return math.sqrt(images.flatten(1).var(dim=0, correction=0).mean().item())


def warn_once(found: Mapping[str, str], epoch: int, warned: list[str]) -> None:
    """Give the warnings that were not given before, and remember them in `warned`."""
    for name, sentence in found.items():
        if name not in warned:
            warned.append(name)
            warn(f"epoch {epoch}: {sentence}", HealthWarning)
