"""The two published updates, for any game: Algorithm 1 of Goodfellow et al. 2014, and the one of its authors' code.

`ALGORITHMS` has them by the names of the setting `updates`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd import grad

from pygan.data import Batch
from pygan.game import Game
from pygan.objectives import Judged
from pygan.optim import Rates, trainable
from pygan.step import BaseStep, Source

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["ALGORITHMS", "PlainStep", "alternating", "simultaneous"]


def alternating(play: "PlainStep", real: Source, rates: Rates) -> Tensor:
    """Algorithm 1 of the paper: k updates of the discriminator, then one of the generator, each on fresh noise."""
    objective = play.game.objective
    for _ in range(play.recipe.k):
        batch = real()
        with torch.no_grad():
            fakes = play.samples(batch.labels)
        judged = play.judge_both(batch, fakes)
        d_loss = objective.discriminator_loss(judged.real_logits, judged.fake_logits)
        play.move_discriminator(play.discriminator_gradients(d_loss, judged, batch.labels), rates)
    g_loss = objective.generator_loss(*play.logits_for_generator(play.samples(batch.labels), batch))
    play.move_generator(play.generator_gradients(g_loss), rates)
    return objective.row(d_loss, g_loss, judged.real_logits, judged.fake_logits)


def simultaneous(play: "PlainStep", real: Source, rates: Rates) -> Tensor:
    """The released code: both gradients at the same parameters, from one batch of samples and one set of masks."""
    objective = play.game.objective
    batch = real()
    judged = play.judge_both(batch, play.samples(batch.labels))
    d_loss = objective.discriminator_loss(judged.real_logits, judged.fake_logits)
    g_loss = objective.generator_loss(judged.fake_logits, judged.real_logits)
    d_gradients = play.discriminator_gradients(d_loss, judged, batch.labels, retain_graph=True)
    g_gradients = play.generator_gradients(g_loss)
    play.move_discriminator(d_gradients, rates)
    play.move_generator(g_gradients, rates)
    return objective.row(d_loss, g_loss, judged.real_logits, judged.fake_logits)


ALGORITHMS: dict[str, Callable[["PlainStep", Source, Rates], Tensor]] = {
    "alternating": alternating,
    "simultaneous": simultaneous,
}


class PlainStep(BaseStep):
    """A `pygan.step.Step` by autograd, for any game; the reference for faster ones.

    Its methods are the vocabulary in which the algorithms above are written.
    """

    def __init__(self, game: Game, recipe: "Recipe", device: torch.device) -> None:
        optimizers = (recipe.optimizer.make(game.generator), recipe.optimizer.make(game.discriminator))
        super().__init__(game, recipe, optimizers, device)
        self._algorithm = ALGORITHMS[recipe.updates]

    def iterate(self, real: Source, rates: Rates) -> Tensor:
        """One iteration -> its row of statistics, on the device. A CUDA graph may capture it."""
        return self._algorithm(self, real, rates)

    def samples(self, labels: Tensor | None) -> Tensor:
        """Generate a batch from fresh noise."""
        noise = self.noise() if labels is None else self.noise()[: len(labels)]
        with self._precision():
            return self.game.generate(noise, labels)

    def judge_both(self, batch: Batch, fakes: Tensor) -> Judged:
        """Judge a batch of real images and the generated ones, as the discriminator sees them."""
        real, fakes = self.blurred(batch.images), self.blurred(fakes)
        if self.game.objective.needs_slopes:
            real = real.detach().requires_grad_()
            fakes = fakes if fakes.requires_grad else fakes.detach().requires_grad_()
        with self._precision():
            return self.game.judge_both(real, fakes, batch.labels)

    def logits_for_generator(self, fakes: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The logits of generated images, and of the real ones if the generator's loss compares them."""
        if self.game.objective.compares:
            judged = self.judge_both(batch, fakes)
            return judged.fake_logits, judged.real_logits
        return self._judge(self.blurred(fakes), batch.labels), None

    def discriminator_gradients(
        self, loss: Tensor, judged: Judged, labels: Tensor | None, retain_graph: bool = False
    ) -> Sequence[Tensor]:
        """Gradients of the loss and of the objective's penalty with respect to the discriminator's parameters."""
        penalty = self.game.objective.penalty(judged, lambda images: self._judge(images, labels))
        return _gradients(loss if penalty is None else loss + penalty, self.game.discriminator, retain_graph)

    def generator_gradients(self, loss: Tensor) -> Sequence[Tensor]:
        """Gradients of the loss with respect to the generator's parameters."""
        return _gradients(loss, self.game.generator)

    def move_discriminator(self, gradients: Sequence[Tensor], rates: Rates) -> None:
        """One update of the discriminator, within the objective's constraint."""
        self.d_optimizer.step(gradients, rates.discriminator_lr, rates.momentum)
        self.game.objective.constrain(self.game.discriminator)

    def move_generator(self, gradients: Sequence[Tensor], rates: Rates) -> None:
        """One update of the generator."""
        self.g_optimizer.step(gradients, rates.generator_lr, rates.momentum)

    def _judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        with self._precision():
            return self.game.judge(images, labels)

    def _precision(self) -> torch.autocast:
        # Without the cache of casts: inside somebody's own autocast it would outlive the update of the weights.
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def _gradients(loss: Tensor, player: nn.Module, retain_graph: bool = False) -> Sequence[Tensor]:
    return grad(loss, list(trainable(player).values()), retain_graph=retain_graph, materialize_grads=True)
