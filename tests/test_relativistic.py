"""The relativistic pairing game: formulas, both penalties, pairs."""

import pytest
import torch
from torch.nn.functional import softplus

from pygan.objectives import Judged, Relativistic


def test_the_losses_are_those_of_r3gan() -> None:
    """Equations of arXiv 2501.05441, section 2: f(t) = -log(1 + exp(-t)), f(D(G(z)) - D(x)) for both players."""
    real, fakes = torch.tensor([1.0, -2.0, 30.0]), torch.tensor([0.5, 3.0, -50.0])
    game = Relativistic()
    torch.testing.assert_close(game.discriminator_loss(real, fakes), softplus(fakes - real).mean())
    torch.testing.assert_close(game.generator_loss(fakes, real), softplus(real - fakes).mean())
    row = game.row(torch.tensor(0.5), torch.tensor(0.7), real, fakes).tolist()
    assert dict(zip(game.statistics, row, strict=True)) == pytest.approx(
        {"d_loss": 0.5, "g_loss": 0.7, "d_paired": (real - fakes).sigmoid().mean().item()}
    )


def test_images_are_compared_in_pairs() -> None:
    real, fakes = torch.randn(5), torch.randn(5)
    game = Relativistic()
    assert game.discriminator_loss(real, fakes) != game.discriminator_loss(real, fakes.flip(0))
    with pytest.raises(ValueError, match=r"^relativistic: real_logits and fake_logits must .* got \[5\] and \[1\]"):
        game.discriminator_loss(real, fakes[:1])
    with pytest.raises(ValueError, match="generator_loss needs real_logits"):
        game.generator_loss(fakes)


@pytest.mark.parametrize(("r1", "r2", "expected"), [(1.0, 0.0, 2.0), (0.0, 1.0, 8.0), (0.5, 2.0, 17.0)])
def test_r1_is_at_the_data_and_r2_at_the_samples(r1: float, r2: float, expected: float) -> None:
    """Of D(x) = |x|^2 / 2, whose slope is x: |x|^2 = 4 at the data, 16 at the samples, for every example."""
    real = torch.ones(3, 1, 2, 2, requires_grad=True)
    fakes = torch.full((3, 1, 2, 2), 2.0, requires_grad=True)
    logits = [images.square().flatten(1).sum(1) / 2 for images in (real, fakes)]
    penalty = Relativistic(r1=r1, r2=r2).penalty(Judged(real, fakes, *logits), lambda images: images)
    assert penalty.item() == pytest.approx(expected)


def test_without_weights_there_is_no_penalty() -> None:
    game = Relativistic(r1=0.0, r2=0.0)
    assert game.penalty(Judged(*[torch.zeros(2)] * 4), lambda images: images) is None
    assert not game.needs_slopes
    assert not game.penalises
