"""What the steps that are written in Python share: the choice of the algorithm, optimisers' state, statistics."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pygan.models import sample_noise
from pygan.optim import Optimizer, with_prefix
from pygan.recipes import Rates, Recipe

__all__ = ["BaseStep", "Rows", "statistics_row"]


class Rows:
    """Rows of `Step.statistics` as they come, one an iteration; they stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def append(self, row: Tensor) -> None:
        """Add one row: float64 [4]."""
        self._rows.append(row)

    def take(self) -> Tensor:
        """All rows since the last call: float64 [iterations, 4] on the CPU."""
        rows, self._rows = self._rows, []
        return torch.stack(rows).cpu() if rows else torch.empty(0, 4, dtype=torch.float64)


class BaseStep:
    """A `pygan.step.Step` without its two algorithms.

    Args:
        recipe: settings of the run.
        optimizers: those of "generator" and "discriminator".
        device: where both players are.
    """

    def __init__(self, recipe: Recipe, optimizers: Mapping[str, Optimizer], device: torch.device) -> None:
        self.recipe, self._optimizers, self._device = recipe, optimizers, device
        self._rows = Rows()

    def __call__(self, real: Callable[[], Tensor], rates: Rates) -> None:
        """One iteration; see `pygan.step.Step`."""
        self._rows.append(self.iterate(real, rates))

    def iterate(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """One iteration -> its row of statistics, on the device; a CUDA graph may capture it."""
        update = self._simultaneous if self.recipe.updates == "simultaneous" else self._alternating
        return update(real, rates)

    def _alternating(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """Algorithm 1 of the paper."""
        raise NotImplementedError

    def _simultaneous(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """The update of its authors' code."""
        raise NotImplementedError

    def _noise(self) -> Tensor:
        return sample_noise(self.recipe.batch_size, self.recipe.noise_size, self.recipe.noise, device=self._device)

    def _blurred(self, images: Tensor) -> Tensor:
        if self.recipe.instance_noise == 0:
            return images
        return images + self.recipe.instance_noise * torch.randn_like(images)

    def statistics(self) -> Tensor:
        """See `pygan.step.Step`."""
        return self._rows.take()

    def state_dict(self) -> dict[str, Tensor]:
        """See `pygan.step.Step`."""
        return {
            f"{player}.{name}": tensor
            for player, optimizer in self._optimizers.items()
            for name, tensor in optimizer.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `pygan.step.Step`."""
        for player, optimizer in self._optimizers.items():
            optimizer.load_state_dict(with_prefix(state, f"{player}."))


@torch.no_grad()
def statistics_row(d_loss: Tensor, g_loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """One row of `Step.statistics`."""
    return torch.stack([d_loss, g_loss, real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]).double()
