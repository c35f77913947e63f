"""The seam between the loop and whatever updates the players: `Step`, and what all steps that we have share."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from pygan.batches import Batches
from pygan.data import Batch
from pygan.game import Game
from pygan.optim import Optimizer, Rates, with_prefix

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["BaseStep", "Rows", "Source", "Step"]

Source = Callable[[], Batch]  # the next batch of real images, in the game's pixel scale, on the players' device


class Step(Protocol):
    """One iteration of the game: k discriminator updates and one of the generator, or one of both at once.

    A step owns the optimisers' state and changes both players' parameters in place. All its randomness comes from
    torch's default generators, in a fixed order, so that their state and `state_dict` are all that a checkpoint needs.
    """

    def __call__(self, real: Batches, rates: Rates) -> None:
        """Update both players."""

    def statistics(self) -> Tensor:
        """Return the numbers of `Objective.row` of each iteration since the last call, float64 [iterations, numbers].

        They are on the CPU, and as the players saw them, with dropout; with k > 1 of the last discriminator update.
        """

    def reload(self) -> None:
        """Take up parameters that somebody else has changed. Whoever does that calls this."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimisers' state by name, e.g. "generator.output.weight.velocity"; perhaps the live tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what another step's `state_dict` held."""


class Rows:
    """The rows of `Step.statistics` as they come; they stay on the device until they are asked for."""

    def __init__(self, width: int) -> None:
        self._width, self._rows = width, list[Tensor]()

    def append(self, row: Tensor) -> None:
        """Add one row: float64 [width]."""
        self._rows.append(row)

    def take(self) -> Tensor:
        """Return all rows since the last call: float64 [iterations, width] on the CPU."""
        rows, self._rows = self._rows, []
        return torch.stack(rows).cpu() if rows else torch.empty(0, self._width, dtype=torch.float64)


class BaseStep:
    """A `Step` but for the iteration itself.

    Args:
        game: the players and their rules; the players are on the device.
        recipe: how they are updated.
        optimizers: those of the generator and of the discriminator.
        device: where both players are.
    """

    def __init__(
        self, game: Game, recipe: "Recipe", optimizers: tuple[Optimizer, Optimizer], device: torch.device
    ) -> None:
        self.game, self.recipe, self.device = game, recipe, device
        self.g_optimizer, self.d_optimizer = optimizers
        self._rows = Rows(len(game.objective.statistics))

    def __call__(self, real: Batches, rates: Rates) -> None:
        """See `Step`."""
        self._rows.append(self.iterate(real, rates))

    def iterate(self, real: Source, rates: Rates) -> Tensor:
        """One iteration -> its row of statistics, on the device. A CUDA graph may capture it."""
        raise NotImplementedError

    def noise(self) -> Tensor:
        """Return noise for one batch, [batch_size, noise_size]."""
        return self.game.draw_noise(self.recipe.batch_size, device=self.device)

    def blurred(self, images: Tensor) -> Tensor:
        """Return the images with the recipe's instance noise, as the discriminator sees them."""
        if self.recipe.instance_noise == 0:
            return images
        return images + self.recipe.instance_noise * torch.randn_like(images)

    def statistics(self) -> Tensor:
        """See `Step`."""
        return self._rows.take()

    def reload(self) -> None:
        """See `Step`."""

    def state_dict(self) -> dict[str, Tensor]:
        """See `Step`."""
        players = {"generator": self.g_optimizer, "discriminator": self.d_optimizer}
        return {f"{name}.{key}": tensor for name, of in players.items() for key, tensor in of.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Step`."""
        self.g_optimizer.load_state_dict(with_prefix(state, "generator."))
        self.d_optimizer.load_state_dict(with_prefix(state, "discriminator."))
