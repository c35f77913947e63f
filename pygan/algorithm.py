"""The two published updates, for any game: Algorithm 1 of Goodfellow et al. 2014, and the one of its authors' code.

`ALGORITHMS` lists them by the names of the setting `updates`. The operations that they use are methods of `PlainStep`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pygan.optim import Rates
from pygan.step import NextBatch, PlainStep

__all__ = ["ALGORITHMS", "alternating", "simultaneous"]


def alternating(play: PlainStep, real: NextBatch, rates: Rates) -> Tensor:
    """Play one iteration of Algorithm 1: k updates of the discriminator, then one of the generator, on fresh noise."""
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


def simultaneous(play: PlainStep, real: NextBatch, rates: Rates) -> Tensor:
    """Play one iteration of the authors' code: both gradients at the same parameters, on the same samples and masks."""
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


ALGORITHMS: dict[str, Callable[[PlainStep, NextBatch, Rates], Tensor]] = {
    "alternating": alternating,
    "simultaneous": simultaneous,
}
"""The two published iterations by name. Each makes one of the given step, and returns its statistics."""
