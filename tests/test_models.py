"""The paper's players, and how models make them."""

import math

import pytest
import tiny
import torch

from pygan.models import MLP, MODELS, Discriminator, Generator, MaxoutMLP
from pygan.recipes import Recipe

SHAPE = (1, 28, 28)


def test_the_generator_maps_noise_to_images():
    generator = Generator(SHAPE)
    images = generator(torch.randn(3, 100))
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
        assert torch.equal(logits / 2, (logits / 2).round())  # Kept inputs count twice,
        assert logits.mean().item() == pytest.approx(240, rel=0.02)  # so that the mean stays.
        assert logits.std() > 1
        torch.testing.assert_close(discriminator.eval()(torch.rand(5, *SHAPE)), torch.full((5,), 240.0))


SIZES = {
    "generator_hidden": (5,),
    "discriminator_hidden": (3, 4, 2),
    "pieces": 2,
    "keep_input": 0.9,
    "keep_hidden": 0.6,
    "generator_range": 0.2,
    "discriminator_range": 0.1,
}


@pytest.mark.parametrize("model", [MaxoutMLP(**SIZES), Recipe().with_settings(**SIZES).model], ids=["model", "recipe"])
def test_settings_reach_the_players(model):
    generator, discriminator = model.make_generator((3, 2, 2), 7), model.make_discriminator((3, 2, 2))
    assert generator.hidden[0].weight.shape == (5, 7)
    assert [tuple(layer.weight.shape) for layer in discriminator.hidden] == [(3, 2, 12), (4, 2, 3), (2, 2, 4)]
    assert [layer.dropout for layer in discriminator.hidden] == pytest.approx([0.1, 0.4, 0.4])
    assert discriminator.dropout == pytest.approx(0.4)
    assert 0.15 < generator.hidden[0].weight.abs().max() <= 0.2
    assert 0.08 < discriminator.hidden[0].weight.abs().max() <= 0.1
    tiny.game(Recipe(noise_size=7, model=model), (3, 2, 2)).check()


def test_the_mean_image_reaches_the_generator():
    mean = torch.rand(3, 2, 2)
    generator = MaxoutMLP(**SIZES).make_generator((3, 2, 2), 7, mean_image=mean)
    torch.testing.assert_close(generator.output.bias.sigmoid(), mean.flatten())


def test_each_model_is_registered_by_its_name():
    assert {name: model.name for name, model in MODELS.items()} == {name: name for name in MODELS}


def test_a_model_without_a_conditional_form_says_so():
    for make in (lambda: MaxoutMLP().make_generator(SHAPE, 7, 10), lambda: MaxoutMLP().make_discriminator(SHAPE, 10)):
        with pytest.raises(ValueError, match="conditional=True: the model 'maxout_mlp' has no conditional form"):
            make()


@pytest.mark.parametrize(("output", "low", "high"), [("linear", -99, 99), ("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_the_plain_players(output, low, high):
    """No dropout, no batch norm, a linear last step of the critic, and the output that was asked for."""
    model = MLP(generator_hidden=(50, 60), discriminator_hidden=(70,), leak=0.1, generator_output=output)
    generator, critic = model.make_generator((1, 1, 2), 5), model.make_discriminator((1, 1, 2))
    kinds = {type(part).__name__ for player in (generator, critic) for part in player.layers}
    last = {"linear": "Identity", "sigmoid": "Sigmoid", "tanh": "Tanh"}[output]
    assert kinds == {"Linear", "LeakyReLU", "Flatten", "Unflatten", last}
    assert [part.negative_slope for part in critic.layers if hasattr(part, "negative_slope")] == [0.1]
    assert [part.negative_slope for part in generator.layers if hasattr(part, "negative_slope")] == [0.0, 0.0]
    images = generator(4 * torch.randn(500, 5))
    assert images.shape == (500, 1, 1, 2)
    assert low <= images.min() < (low + high) / 2 - 0.4
    assert 0.9 < images.max() <= high
    assert critic(1e3 * images).shape == (500,)
    assert critic(1e3 * images).abs().max() > 100
    first = critic.layers[1].weight
    assert generator.layers[0].weight.std().item() == pytest.approx(math.sqrt(2 / 5), rel=0.15)
    assert first.std().item() == pytest.approx(math.sqrt(2 / 2 / 1.01), rel=0.2)
