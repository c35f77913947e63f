"""
Disjoint supports: the paper's game has no gradient there, a critic has
========================================================================

The data lie in [-0.1, 0.1], the samples in [1.9, 2.1], and the generator can only shift its samples. Left: its gradient
while the discriminator alone is trained. Right: the same discriminators go on, with one plain gradient step of the
generator after every ten updates of theirs.
"""

import torch
from matplotlib import pyplot
from torch import Tensor, nn

from pygan.algorithm import ALGORITHMS
from pygan.data import Batch
from pygan.data.scaling import Standard
from pygan.game import Game
from pygan.optim import Rates
from pygan.recipes import Recipe
from pygan.step import PlainStep

GAMES = {
    "minimax: E log(1 - D(G(z)))": ("saturating", "C3", "-"),
    "non-saturating: -E log D(G(z))": ("non_saturating", "C1", "--"),
    "W-GAN, slope penalty": ("wasserstein_penalty", "C0", "-"),
    "W-GAN, weights in [-.2, .2]": ("wasserstein", "C2", "--"),
}


class Shift(nn.Module):
    """Uniform noise in [-sqrt 3, sqrt 3] -> a uniform distribution of width .2 about a place that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor(2.0))

    def forward(self, noise: Tensor) -> Tensor:
        return self.place + 0.1 / 3**0.5 * noise


def real() -> Batch:
    """A batch of data."""
    return Batch(0.2 * torch.rand(64, 1, 1, 1) - 0.1)


def gradient(step: PlainStep) -> float:
    """The gradient of the generator's loss with respect to its place."""
    loss = step.game.objective.generator_loss(*step.logits_for_generator(step.samples(None), real()))
    return step.generator_gradients(loss)[0].item()


# %%
# Every game has the same players and the same first weights. D is updated ten times before each measurement.

figure = pyplot.figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for label, (objective, colour, line) in GAMES.items():
    torch.manual_seed(0)
    clip = {"clip": 0.2} if objective == "wasserstein" else {}
    recipe = Recipe(updates="alternating", batch_size=64, noise_size=1).with_settings(
        model="mlp", discriminator_hidden=(16,), optimizer="adam", objective=objective, **clip
    )
    critic = recipe.model.make_discriminator((1, 1, 1))
    game = Game(Shift(), critic, (1, 1, 1), recipe.objective, recipe.noise, 1, Standard(0.0, 1.0))
    step = PlainStep(ALGORITHMS["alternating"], game, recipe, torch.device("cpu"))
    gradients, places = [], []
    for _ in range(30):
        for _ in range(10):
            step(real, Rates(0.0, 0.02, 0.0))
        gradients.append(gradient(step))
    for _ in range(18):
        for _ in range(10):
            step(real, Rates(0.0, 0.02, 0.0))
        places.append(game.generator.place.item())
        game.generator.place.data -= 0.1 * gradient(step)
    left.semilogy(range(10, 301, 10), [abs(g) for g in gradients], line, color=colour, lw=2, label=label)
    right.plot(places, line, color=colour, lw=2)
    print(f"{objective:20} gradient {gradients[-1]:.2e}, place after 18 steps {places[-1]:.2f}")
left.set(xlabel="updates of the discriminator", ylabel="|d loss of G / d place|")
left.legend(frameon=False, fontsize="small")
right.axhspan(-0.1, 0.1, color="gray", alpha=0.4, lw=0)
right.text(0, -0.07, "data", color="white")
right.set(xlabel="gradient steps of the generator", ylabel="place of its samples")
