"""The objectives: scale of the losses, gradient penalty, what is logged; and the instance noise of the plain step."""

import math

import pytest
import tiny
import torch
from torch import nn
from torch.nn.functional import softplus

from pygan.algorithm import ALGORITHMS
from pygan.data import Batch
from pygan.objectives import OBJECTIVES, NonSaturating, Saturating
from pygan.recipes import Recipe
from pygan.step import PlainStep

SHAPE = (1, 3, 3)


class Linear(nn.Module):
    """A discriminator whose gradient has norm 3 everywhere: peers that take one norm over the batch get it wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((9,), 1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight


def make_step(**settings: object) -> PlainStep:
    recipe = Recipe().with_settings(noise_size=2, batch_size=4, **settings)
    generator = nn.Sequential(nn.Linear(2, 9), nn.Sigmoid())
    game = tiny.game(recipe, SHAPE, generator, Linear())
    return PlainStep(ALGORITHMS[recipe.updates], game, recipe, torch.device("cpu"))


@pytest.mark.parametrize("updates", ALGORITHMS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_plays_in_each_precision(objective: str, precision: str, updates: str) -> None:
    recipe = Recipe().with_settings(
        model="mlp", objective=objective, precision=precision, updates=updates, batch_size=4, step="plain"
    )
    step = PlainStep(ALGORITHMS[updates], tiny.game(recipe, SHAPE), recipe, torch.device("cpu"))
    step(lambda: Batch(torch.rand(4, *SHAPE)), recipe.rates(0, 1))
    assert step.statistics().isfinite().all()


@pytest.mark.parametrize(("scale", "factor"), [("sum", 1.0), ("half", 0.5)])
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_penalty_is_a_mean_over_examples(batch: int, scale: str, factor: float) -> None:
    step = make_step(gradient_penalty=2.0, discriminator_loss_scale=scale)
    judged = step.judge_both(Batch(torch.rand(batch, *SHAPE)), torch.rand(batch, *SHAPE))
    penalty = step.game.objective.penalty(judged, step.game.judge)
    assert penalty.item() == pytest.approx(9 * 2.0 / 2 * factor)
    (slope,) = torch.autograd.grad(penalty, step.game.discriminator.weight)
    torch.testing.assert_close(slope, torch.full((9,), 2.0 * factor))  # 2 w gamma / 2


@pytest.mark.parametrize("kind", [NonSaturating, Saturating])
def test_the_discriminators_loss_is_the_sum_or_half_of_it(kind: type[NonSaturating]) -> None:
    real, fakes = torch.randn(7), torch.randn(7)
    expected = softplus(-real).mean() + softplus(fakes).mean()
    for scale, factor in (("sum", 1.0), ("half", 0.5)):
        loss = kind(discriminator_loss_scale=scale).discriminator_loss(real, fakes)
        torch.testing.assert_close(loss, factor * expected)


def test_the_generators_loss_is_never_scaled() -> None:
    logits = torch.randn(7)
    for scale in ("sum", "half"):
        loss = NonSaturating(discriminator_loss_scale=scale).generator_loss(logits)
        torch.testing.assert_close(loss, softplus(-logits).mean())
        loss = Saturating(discriminator_loss_scale=scale).generator_loss(logits)
        torch.testing.assert_close(loss, -softplus(logits).mean())


def test_a_row_has_the_losses_and_the_mean_probabilities() -> None:
    real, fakes = torch.randn(7), torch.randn(7)
    row = NonSaturating().row(torch.tensor(1.5), torch.tensor(0.25), real, fakes)
    assert row.dtype == torch.float64
    expected = {"d_loss": 1.5, "g_loss": 0.25, "d_real": real.sigmoid().mean().item()}
    expected["d_fake"] = fakes.sigmoid().mean().item()
    assert dict(zip(NonSaturating.statistics, row.tolist(), strict=True)) == pytest.approx(expected)


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_the_penalty_moves_the_discriminator_and_leaves_the_data_alone(updates: str) -> None:
    weights = []
    real = torch.rand(4, *SHAPE)
    for penalty in (0.0, 10.0):
        torch.manual_seed(1)
        step = make_step(gradient_penalty=penalty, updates=updates)
        step(lambda: Batch(real), step.recipe.rates(0, 1))
        weights.append(step.game.discriminator.weight.detach())
        assert not real.requires_grad
    assert weights[1].norm() < weights[0].norm() - 0.1


def test_instance_noise_blurs_both_kinds_of_images() -> None:
    step = make_step(instance_noise=0.5)
    images = torch.full((1000, 9), 0.5)
    difference = step.blurred(images) - images
    assert difference.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(difference.mean().item()) < 0.05
    judged = step.judge_both(Batch(torch.zeros(1000, *SHAPE)), torch.zeros(1000, *SHAPE))
    for logits in (judged.real_logits, judged.fake_logits):
        assert logits.std().item() == pytest.approx(0.5 * math.sqrt(9), rel=0.1)
    assert not torch.equal(judged.real_logits, judged.fake_logits)


def test_without_noise_the_images_are_untouched() -> None:
    images = torch.rand(3, 1, 3, 3)
    assert make_step().blurred(images) is images
