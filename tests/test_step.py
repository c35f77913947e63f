import pytest
import torch

from pygan.models import Discriminator, Generator
from pygan.recipes import Rates, Recipe
from pygan.step import make_step
from pygan.step.fused import FusedStep
from pygan.step.plain import PlainStep

SHAPE = (1, 7, 9)
RATES = [Rates(0.1, 0.05, 0.5), Rates(0.09, 0.04, 0.6), Rates(0.08, 0.03, 0.7)]


def recipe(**settings):
    sizes = {"batch_size": 10, "noise_size": 12, "generator_hidden": (20, 24), "discriminator_hidden": (16, 12)}
    return Recipe(**{**sizes, "pieces": 3, "updates": "alternating", **settings})


def players(recipe, init_range=0.3):
    torch.manual_seed(1)
    generator = Generator(SHAPE, recipe.noise_size, recipe.generator_hidden, init_range)
    keep = {"keep_input": recipe.keep_input, "keep_hidden": recipe.keep_hidden}
    return generator, Discriminator(SHAPE, recipe.discriminator_hidden, recipe.pieces, init_range, **keep)


def batches(recipe):
    generator = torch.Generator().manual_seed(2)
    return lambda: torch.rand(recipe.batch_size, *SHAPE, generator=generator)


def play(step, recipe, rates=RATES):
    torch.manual_seed(3)
    real = batches(recipe)
    for now in rates:
        step(real, now)
    return step


def both(recipe, init_range=0.3):
    """The same iterations by the plain and the fused step."""
    steps = []
    for choice in ("plain", "auto"):
        chosen = recipe.with_settings(step=choice)
        generator, discriminator = players(recipe, init_range)
        steps.append(play(make_step(generator, discriminator, chosen, SHAPE, torch.device("cpu")), chosen))
        steps[-1].weights = {**generator.state_dict(prefix="g."), **discriminator.state_dict(prefix="d.")}
    assert [type(step) for step in steps] == [PlainStep, FusedStep]
    return steps


def assert_same(plain, fused, **tolerance):
    for ours, reference in ((fused.weights, plain.weights), (fused.state_dict(), plain.state_dict())):
        assert ours.keys() == reference.keys()
        for name, tensor in reference.items():
            torch.testing.assert_close(ours[name], tensor, **tolerance, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(fused.statistics(), plain.statistics(), **tolerance)


CASES = {
    "alternating": {},
    "three discriminator updates": {"k": 3},
    "simultaneous": {"updates": "simultaneous"},
    "saturating": {"objective": "saturating"},
    "saturating simultaneous": {"objective": "saturating", "updates": "simultaneous"},
    "normal noise": {"noise": "normal"},
    "one layer": {"generator_hidden": (20,), "discriminator_hidden": (16,), "updates": "simultaneous"},
    "three layers": {"generator_hidden": (20, 9, 8), "discriminator_hidden": (16, 5, 4), "updates": "simultaneous"},
    "no dropout": {"keep_input": 1.0, "keep_hidden": 1.0, "updates": "simultaneous"},
    "dropout of hidden layers only": {"keep_input": 1.0},
    "adam": {"optimizer": "adam"},
    "one image": {"batch_size": 1, "updates": "simultaneous"},
    "large": {"batch_size": 100, "discriminator_hidden": (48, 48), "pieces": 5, "updates": "simultaneous"},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_same_numbers_as_the_plain_step(settings):
    loose = {"rtol": 1e-2, "atol": 1e-3} if "adam" in settings.values() else {"rtol": 1e-4, "atol": 1e-5}
    assert_same(*both(recipe(**settings)), **loose)
