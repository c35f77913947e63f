"""One iteration: `Step`, the interface between the loop and the code that updates the players, and the plain step."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import grad

from pygan.batches import Batches
from pygan.data import Batch
from pygan.distributed import Share
from pygan.game import Game
from pygan.objectives import Judged
from pygan.optim import Optimizer, Rates, trainable, with_prefix

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["BaseStep", "NextBatch", "PlainStep", "StatisticsRows", "Step"]

NextBatch = Callable[[], Batch]
"""Returns the next batch of real images, in the game's pixel scale, on the players' device."""


class Step(Protocol):
    """One iteration of the game: k discriminator updates and one of the generator, or one of both at once.

    A step owns the optimisers' state and changes both players' parameters in place. All its randomness comes from
    torch's default generators, in a fixed order, so that their state and `state_dict` are all that a checkpoint needs.
    """

    def __call__(self, real: Batches, rates: Rates) -> None:
        """Update both players."""

    def statistics(self) -> Tensor:
        """Return the numbers of `Objective.row` of each iteration since the last call, float64 [iterations, numbers].

        They are on the CPU. They are taken in training, with dropout, and for k > 1 in the last discriminator update.
        """

    def reload(self) -> None:
        """Read the parameters again. Must be called after they were changed from outside."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimisers' state by name, e.g. "generator.output.weight.velocity"; not necessarily copies."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the `state_dict` of another step."""


class StatisticsRows:
    """Collects the rows of `Step.statistics`; they stay on the device until they are taken."""

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
    """The base class of steps: everything except the iteration itself.

    Args:
        game: the players and their rules; the players are on the device.
        recipe: how they are updated.
        optimizers: of the generator and of the discriminator.
        device: where both players are.
        share: this process's share of each batch; None is all of it.
    """

    def __init__(
        self,
        game: Game,
        recipe: "Recipe",
        optimizers: tuple[Optimizer, Optimizer],
        device: torch.device,
        share: Share | None = None,
    ) -> None:
        self.game, self.recipe, self.device = game, recipe, device
        self.share = Share(recipe.batch_size) if share is None else share
        self.g_optimizer, self.d_optimizer = optimizers
        self._rows = StatisticsRows(len(game.objective.statistics))

    def __call__(self, real: Batches, rates: Rates) -> None:
        """See `Step`."""
        self._rows.append(self.iterate(real, rates))

    def iterate(self, real: NextBatch, rates: Rates) -> Tensor:
        """Play one iteration and return its row of statistics, on the device. A CUDA graph may capture it."""
        raise NotImplementedError

    def noise(self) -> Tensor:
        """Return noise for this process's share of one batch, [n, noise_size]."""
        return self.share.of(self.game.draw_noise(self.recipe.batch_size, device=self.device))

    def instance_noise(self, like: Tensor) -> Tensor:
        """Return the recipe's instance noise for images of this shape and dtype."""
        with self.share.as_whole():
            return self.recipe.instance_noise * torch.randn_like(like)

    def blurred(self, images: Tensor) -> Tensor:
        """Return the images with the recipe's instance noise, as the discriminator sees them."""
        return images if self.recipe.instance_noise == 0 else images + self.instance_noise(images)

    def statistics(self) -> Tensor:
        """See `Step`."""
        return self.share.mean_rows(self._rows.take())

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


class PlainStep(BaseStep):
    """A `Step` by autograd, for any game; the reference for faster ones.

    Args:
        algorithm: one of `pygan.algorithm.ALGORITHMS`, which is written in terms of the methods of this class.
        game, recipe, device, share: see `BaseStep`.
    """

    def __init__(
        self,
        algorithm: "Algorithm",
        game: Game,
        recipe: "Recipe",
        device: torch.device,
        share: Share | None = None,
    ) -> None:
        optimizers = (recipe.optimizer.make(game.generator), recipe.optimizer.make(game.discriminator))
        super().__init__(game, recipe, optimizers, device, share)
        self._algorithm = algorithm

    def iterate(self, real: NextBatch, rates: Rates) -> Tensor:
        """Play one iteration and return its row of statistics, on the device. A CUDA graph may capture it."""
        return self._algorithm(self, real, rates)

    def samples(self, labels: Tensor | None) -> Tensor:
        """Generate a batch from fresh noise."""
        noise = self.noise() if labels is None else self.noise()[: len(labels)]
        with self.share.as_whole(), self._precision():
            return self.game.generate(noise, labels)

    def judge_both(self, batch: Batch, fakes: Tensor) -> Judged:
        """Judge a batch of real images and the generated ones, as the discriminator sees them."""
        real, fakes = self.blurred(batch.images), self.blurred(fakes)
        if self.game.objective.needs_slopes:
            real = real.detach().requires_grad_()
            fakes = fakes if fakes.requires_grad else fakes.detach().requires_grad_()
        with self.share.as_whole(), self._precision():
            return self.game.judge_both(real, fakes, batch.labels)

    def logits_for_generator(self, fakes: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the logits of generated images, and of the real ones if the generator's loss compares them."""
        if self.game.objective.compares:
            judged = self.judge_both(batch, fakes)
            return judged.fake_logits, judged.real_logits
        return self._judge(self.blurred(fakes), batch.labels), None

    def discriminator_gradients(
        self, loss: Tensor, judged: Judged, labels: Tensor | None, retain_graph: bool = False
    ) -> Sequence[Tensor]:
        """Return the gradients of the loss and the objective's penalty for the discriminator's parameters."""
        with self.share.as_whole():
            penalty = self.game.objective.penalty(judged, lambda images: self._judge(images, labels))
        return _gradients(loss if penalty is None else loss + penalty, self.game.discriminator, retain_graph)

    def generator_gradients(self, loss: Tensor) -> Sequence[Tensor]:
        """Return the gradients of the loss with respect to the generator's parameters."""
        return _gradients(loss, self.game.generator)

    def move_discriminator(self, gradients: Sequence[Tensor], rates: Rates) -> None:
        """Make one update of the discriminator, within the objective's constraint."""
        means = self.share.mean(gradients, self.d_optimizer.parameters.values())
        self.d_optimizer.step(means, rates.discriminator_lr, rates.momentum)
        self.game.objective.constrain(self.game.discriminator)

    def move_generator(self, gradients: Sequence[Tensor], rates: Rates) -> None:
        """Make one update of the generator."""
        means = self.share.mean(gradients, self.g_optimizer.parameters.values())
        self.g_optimizer.step(means, rates.generator_lr, rates.momentum)

    def _judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with self.share.as_whole(), self._precision():
            return self.game.judge(images, labels)

    def _precision(self) -> torch.autocast:
        # Without the cache of casts: inside somebody's own autocast it would outlive the update of the weights.
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


Algorithm = Callable[[PlainStep, NextBatch, Rates], Tensor]


def _gradients(loss: Tensor, player: nn.Module, retain_graph: bool = False) -> Sequence[Tensor]:
    return grad(loss, list(trainable(player).values()), retain_graph=retain_graph, materialize_grads=True)
