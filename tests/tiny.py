"""A training run that takes a fraction of a second, for the tests of training and of the run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pygan.data.scaling import Unit
from pygan.game import Game
from pygan.recipes import Recipe
from pygan.run import Run
from pygan.train import train

SETTINGS: dict[str, Any] = {
    "recipe": "code2014",
    "progress": False,
    "epochs": 2,
    "batch_size": 10,
    "noise_size": 4,
    "generator_hidden": (8, 8),
    "discriminator_hidden": (6, 6),
    "pieces": 2,
    "evaluation_samples": 50,
    "evaluate_every": 2,
    "samples_every": 100,
}


def images(n: int = 60, seed: int = 0) -> Tensor:
    """n images [n, 1, 4, 4], uint8; split 80/10/10, so that 60 give 4 batches of 10 to train on and 8 images left."""
    return torch.randint(256, (n, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def run(out: Path, data: Any = None, **settings: Any) -> Run:
    """`train` on `images()` with SETTINGS and these."""
    return train(images() if data is None else data, out=out, **{**SETTINGS, **settings})


def game(
    recipe: Recipe,
    shape: tuple[int, ...],
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
) -> Game:
    """The game of the recipe, on pixels in [0, 1], between its own players or these."""
    if generator is None:
        generator = recipe.model.make_generator(shape, recipe.noise_size)
    if discriminator is None:
        discriminator = recipe.model.make_discriminator(shape)
    return Game(generator, discriminator, shape, recipe.objective, recipe.noise, recipe.noise_size, Unit())


def run_in_one_thread(out: Path, **settings: Any) -> None:
    """`run` for a process of its own."""
    torch.set_num_threads(1)
    run(out, **settings)


@contextmanager
def killed_after(learner: type, last: int) -> Iterator[None]:
    """Inside, a training by this class of `pygan.fit.Learner` ends after update number `last` as if it were killed."""
    update = learner.update

    def then_die(self: Any, number: int) -> None:
        update(self, number)
        if number == last:
            raise KeyboardInterrupt

    learner.update = then_die
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        learner.update = update
