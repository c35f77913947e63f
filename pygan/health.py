"""The health of a run: a NaN or an infinity stops it; the usual failures give a warning with advice, once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pygan._terminal import warn

__all__ = [
    "LEAST_SPREAD",
    "HealthWarning",
    "NonFiniteError",
    "check_finite",
    "diagnose",
    "not_finite",
    "rank",
    "spread",
    "warn_once",
]

LEAST_SPREAD = 0.3
"""The spread of samples over that of the data below which samples are much alike, and score too high."""
_LEVELS = (LEAST_SPREAD, 0.6, 0.8)  # an epoch that reaches one more is better; MNIST and digits come to .97
_GRACE = 500  # updates in which a generator may learn to vary


class HealthWarning(UserWarning):
    """Training goes on, but is likely to fail in the way that the message names."""


class NonFiniteError(RuntimeError):
    """A NaN or an infinity appeared in training; the message names the update and the tensor."""


def check_finite(update: int, tensors: Mapping[str, Tensor], saved: int | None, rates: Sequence[str]) -> None:
    """Raise NonFiniteError for the first tensor that holds a NaN or an infinity at this update.

    `saved` is the update after which the last checkpoint was made, or None if there is none; `rates` are the names of
    the settings that are learning rates.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"train: {name} holds {count} NaN or infinite values of {tensor.numel()} after update {update}. "
                + ("There is no checkpoint yet" if saved is None else f"The last checkpoint is of update {saved}")
                + f". It usually helps to lower {' and '.join(rates)}"
            )


def not_finite(
    update: int, statistics: Mapping[str, float], tensors: Mapping[str, Tensor], saved: int | None, rates: Sequence[str]
) -> NonFiniteError:
    """Return the error for statistics that are not finite: it names the first bad tensor, or else the loss."""
    try:
        check_finite(update, tensors, saved, rates)
    except NonFiniteError as error:
        return error
    bad = next(name for name, value in statistics.items() if not math.isfinite(value))
    return NonFiniteError(f"train: {bad} is {statistics[bad]} at update {update}, while all weights are finite")


def diagnose(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Return the problems that a history of epochs shows, for any objective: see `Objective.diagnose`."""
    found: dict[str, tuple[int, str]] = {}
    most = 0.0
    for entry in history:
        if (varied := entry.get("spread")) is None:
            continue
        most = max(most, varied)
        if varied < 0.1 and most > 0.3:
            sentence = (
                f"the generator collapses: its samples vary {varied:.2f} times as much as the data, and did "
                f"{most:.2f} times. Lower generator_lr, or give the discriminator more updates "
                "(updates='alternating' with k=2)"
            )
            found.setdefault("collapse", (entry["epoch"], sentence))
        elif varied < LEAST_SPREAD and entry.get("update", 0) >= _GRACE:
            sentence = (
                f"the samples are much alike: they vary {varied:.2f} times as much as the data, so the log-likelihood "
                "is misleadingly high (a mean image scores well). Train longer, raise generator_lr, or take another "
                "recipe or model"
            )
            found.setdefault("low_spread", (entry["epoch"], sentence))
    return found


def rank(entry: Mapping[str, Any]) -> tuple[int, float, int]:
    """Return what makes one epoch better than another: samples that vary as the data do, then the log-likelihood.

    The log-likelihood alone would choose blurred samples, because a Parzen window prefers them to sharp ones. So a
    score above that of training images is no advantage; of epochs with such scores the latest is the best.

    Args:
        entry: the history's entry of an epoch that was evaluated. Without "spread" and "reference" (the score of
            training images in place of samples), only "log_likelihood" counts.
    """
    varied = entry.get("spread")
    likeness = 1.0 if varied is None else min(varied, 1 / varied) if varied > 0 else 0.0
    level, score, most = sum(likeness >= least for least in _LEVELS), entry["log_likelihood"], entry.get("reference")
    return (level, score, 0) if most is None or score < most else (level, most, entry["update"])


def spread(pieces: Iterable[Tensor]) -> float:
    """Return how much images vary: the root mean square, over the pixels, of the standard deviation over the images.

    The images come in pieces [n, ...], floats. The result is 0 if they are all alike.
    """
    n = 0
    mean = squares = torch.zeros((), dtype=torch.float64)  # per pixel: mean, and sum of squared differences from it
    for piece in pieces:
        images = piece.flatten(1)
        variance, centre = torch.var_mean(images, dim=0, correction=0)
        m, variance, centre = len(images), variance.double().cpu(), centre.double().cpu()
        shift = centre - mean
        squares = squares + m * variance + shift.square() * (n * m / (n + m))
        mean = mean + shift * (m / (n + m))
        n += m
    return math.sqrt((squares / n).mean().item())


def warn_once(found: Mapping[str, tuple[int, str]], warned: list[str]) -> None:
    """Give the warnings that were not given before, and remember them in `warned`."""
    for name, (epoch, sentence) in found.items():
        if name not in warned:
            warned.append(name)
            warn(f"epoch {epoch}: {sentence}", HealthWarning)
