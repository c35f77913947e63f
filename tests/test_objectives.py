"""The gradient penalty and the instance noise of the plain step."""

import math

import pytest
import torch
from torch import nn

from pygan.recipes import Recipe
from pygan.step.plain import PlainStep


class Linear(nn.Module):
    """A discriminator whose gradient has norm 3 everywhere: peers that take one norm over the batch get it wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((9,), 1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight


def make_step(**settings: object) -> PlainStep:
    recipe = Recipe(noise_size=2, batch_size=4, **settings)
    generator = nn.Sequential(nn.Linear(2, 9), nn.Sigmoid())
    return PlainStep(generator, Linear(), recipe, (1, 3, 3), torch.device("cpu"))


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_penalty_is_a_mean_over_examples(batch: int) -> None:
    step = make_step(gradient_penalty=2.0)
    *_, penalty = step._judge_both(torch.rand(batch, 1, 3, 3), torch.rand(batch, 1, 3, 3))
    assert penalty.item() == pytest.approx(9 * 2.0 / 4)
    (slope,) = torch.autograd.grad(penalty, step.discriminator.weight)
    torch.testing.assert_close(slope, torch.full((9,), 1.0))  # 2 w gamma / 4


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_the_penalty_moves_the_discriminator_and_leaves_the_data_alone(updates: str) -> None:
    weights = []
    real = torch.rand(4, 1, 3, 3)
    for penalty in (0.0, 10.0):
        torch.manual_seed(1)
        step = make_step(gradient_penalty=penalty, updates=updates)
        step(lambda: real, step.recipe.rates(0, 1))
        weights.append(step.discriminator.weight.detach())
        assert not real.requires_grad
    assert weights[1].norm() < weights[0].norm() - 0.1


def test_instance_noise_blurs_both_kinds_of_images() -> None:
    step = make_step(instance_noise=0.5)
    images = torch.full((1000, 9), 0.5)
    difference = step._blurred(images) - images
    assert difference.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(difference.mean().item()) < 0.05
    real_logits, fake_logits, _ = step._judge_both(torch.zeros(1000, 1, 3, 3), torch.zeros(1000, 1, 3, 3))
    for logits in (real_logits, fake_logits):
        assert logits.std().item() == pytest.approx(0.5 * math.sqrt(9), rel=0.1)
    assert not torch.equal(real_logits, fake_logits)


def test_without_noise_the_images_are_untouched() -> None:
    images = torch.rand(3, 1, 3, 3)
    assert make_step()._blurred(images) is images
