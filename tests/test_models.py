"""The paper's players, and their noise."""

import math

import pytest
import torch
from torch import nn

from pygan.models import Discriminator, Generator, check_players, evaluating, make_players, sample, sample_noise
from pygan.recipes import Recipe

SHAPE = (1, 28, 28)


def test_the_generator_maps_noise_to_images():
    generator = Generator(SHAPE)
    images = generator(sample_noise(3, 100))
    assert images.shape == (3, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 1
    assert [tuple(layer.weight.shape) for layer in [*generator.hidden, generator.output]] == [
        (1200, 100),
        (1200, 1200),
        (784, 1200),
    ]


def test_the_discriminator_maps_images_to_logits():
    discriminator = Discriminator(SHAPE)
    assert discriminator(torch.rand(3, *SHAPE)).shape == (3,)
    assert [tuple(layer.weight.shape) for layer in discriminator.hidden] == [(240, 5, 784), (240, 5, 240)]
    assert discriminator.output.weight.shape == (1, 240)


@pytest.mark.parametrize(("player", "init_range"), [(Generator(SHAPE), 0.05), (Discriminator(SHAPE), 0.005)])
def test_weights_start_uniform_and_biases_at_zero(player, init_range):
    for name, parameter in player.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert parameter.abs().max() <= init_range
            assert parameter.std().item() == pytest.approx(init_range / math.sqrt(3), rel=0.1)


def test_the_output_starts_at_the_mean_image():
    mean = torch.linspace(0, 1, 784).reshape(SHAPE)  # 0 and 1 themselves would have infinite logits.
    generator = Generator(SHAPE, mean_image=mean)
    assert generator.output.bias.isfinite().all()
    torch.testing.assert_close(generator.output.bias.sigmoid(), mean.flatten(), atol=1e-6, rtol=0)


def test_dropout_keeps_the_published_shares_and_scales():
    discriminator = Discriminator(SHAPE)
    assert [layer.dropout for layer in discriminator.hidden] == pytest.approx([0.2, 0.5])
    with torch.no_grad():
        discriminator.output.weight.fill_(1.0)
        discriminator.hidden[1].weight.zero_()
        discriminator.hidden[1].bias.fill_(1.0)  # Every input of the output layer is 1.
        logits = discriminator(torch.rand(500, *SHAPE))
        assert set((logits / 2).round().tolist()) <= set(range(241))  # Kept inputs count twice,
        assert logits.mean().item() == pytest.approx(240, rel=0.02)  # so that the mean stays.
        assert logits.std() > 1
        torch.testing.assert_close(discriminator.eval()(torch.rand(5, *SHAPE)), torch.full((5,), 240.0))


def test_recipes_reach_the_players():
    recipe = Recipe(
        noise_size=7, generator_hidden=(5,), discriminator_hidden=(3, 4, 2), pieces=2, keep_input=0.9, keep_hidden=0.6
    )
    generator, discriminator = make_players(recipe, (3, 2, 2))
    assert generator.hidden[0].weight.shape == (5, 7)
    assert [tuple(layer.weight.shape) for layer in discriminator.hidden] == [(3, 2, 12), (4, 2, 3), (2, 2, 4)]
    assert [layer.dropout for layer in discriminator.hidden] == pytest.approx([0.1, 0.4, 0.4])
    check_players(generator, discriminator, recipe, (3, 2, 2))


@pytest.mark.parametrize(("distribution", "bound"), [("uniform", math.sqrt(3)), ("normal", 6)])
def test_noise_has_mean_0_and_variance_1(distribution, bound):
    noise = sample_noise(2000, 50, distribution)
    assert noise.shape == (2000, 50)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.var().item() == pytest.approx(1, abs=0.02)
    assert noise.abs().max() <= bound
    fourth = noise.pow(4).mean().item()
    assert fourth == pytest.approx(1.8 if distribution == "uniform" else 3.0, abs=0.1)


def test_sampling_repeats_itself_and_leaves_the_mode_alone():
    generator, _ = make_players(recipe := Recipe(noise_size=7, generator_hidden=(5,)), (1, 2, 3))
    first, again = (sample(generator, recipe, (1, 2, 3), 2500, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (2500, 1, 2, 3)
    assert torch.equal(first, again)
    assert generator.training
    assert sample(generator, recipe, (1, 2, 3), 0).shape == (0, 1, 2, 3)


def test_evaluating_restores_the_mode():
    module = nn.Linear(1, 1).eval()
    with evaluating(module):
        assert not module.training
    assert not module.training


@pytest.mark.parametrize(
    ("generator", "discriminator", "message"),
    [
        (
            nn.Linear(4, 7),
            nn.Linear(6, 1),
            r"generator must map noise \[2, 4\] to images \[2, 1, 2, 3\] or \[2, 6\], got \[2, 7\]",
        ),
        (
            nn.Sequential(nn.Linear(4, 6), nn.Hardtanh(3, 4)),
            nn.Flatten(),
            r"generator must give images in \[0, 1\].*got \[3, 3\]",
        ),
        (
            nn.Sequential(nn.Linear(4, 6), nn.Sigmoid()),
            nn.Flatten(),
            r"discriminator must map images \[2, 1, 2, 3\] to logits \[2\] or \[2, 1\], got \[2, 6\]",
        ),
    ],
)
def test_players_of_another_make_are_refused(generator, discriminator, message):
    with pytest.raises(ValueError, match=message):
        check_players(generator, discriminator, Recipe(noise_size=4), (1, 2, 3))
