"""The reference step: the two orders of play by hand, the signs, what is logged, the state."""

import math

import pytest
import tiny
import torch
from torch import nn
from torch.nn.functional import softplus

from pygan.algorithm import ALGORITHMS
from pygan.data import Batch
from pygan.fast import make_step
from pygan.noise import draw_noise
from pygan.optim import Rates
from pygan.recipes import Recipe
from pygan.step import PlainStep

SHAPE = (1, 3, 3)
CPU = torch.device("cpu")
RATES = Rates(0.2, 0.1, 0.5)


def small(**settings):
    sizes = {"batch_size": 8, "noise_size": 4, "generator_hidden": (6,), "discriminator_hidden": (5,), "pieces": 2}
    return Recipe().with_settings(**{**sizes, "discriminator_range": 0.3, "generator_range": 0.3, **settings})


def players(recipe):
    game = tiny.game(recipe, SHAPE)
    return game.generator, game.discriminator


def game(recipe):
    new = tiny.game(recipe, SHAPE)
    return new.generator, new.discriminator, PlainStep(ALGORITHMS[recipe.updates], new, recipe, CPU)


def images(n=8):
    return torch.rand(n, *SHAPE)


def batch(n=8):
    return Batch(images(n))


def noise(n=8):
    return draw_noise("uniform", n, 4)


def parameters(player):
    return [parameter.detach().clone() for parameter in player.parameters()]


def test_alternating_is_algorithm_1():
    """By hand, without dropout: k steps of D on fresh noise, then one of G on fresh noise."""
    recipe = small(updates="alternating", k=2, keep_input=1.0, keep_hidden=1.0)
    generator, discriminator, step = game(recipe)
    twin_g, twin_d = players(recipe)
    twin_g.load_state_dict(generator.state_dict())
    twin_d.load_state_dict(discriminator.state_dict())
    reals = [images(), images()]
    random = torch.get_rng_state()
    step(map(Batch, reals).__next__, RATES)

    torch.set_rng_state(random)
    velocities = [torch.zeros_like(parameter) for parameter in twin_d.parameters()]
    for real in reals:
        fakes = twin_g(noise()).detach()
        loss = (softplus(-twin_d(real)).mean() + softplus(twin_d(fakes)).mean()) / 2
        for p, v, g in zip(
            twin_d.parameters(), velocities, torch.autograd.grad(loss, list(twin_d.parameters())), strict=True
        ):
            v.copy_(0.5 * v - 0.1 * g)
            p.data += v
    loss = softplus(-twin_d(twin_g(noise()))).mean()
    for p, g in zip(twin_g.parameters(), torch.autograd.grad(loss, list(twin_g.parameters())), strict=True):
        p.data -= 0.2 * g
    for ours, hand in zip(
        parameters(generator) + parameters(discriminator), parameters(twin_g) + parameters(twin_d), strict=True
    ):
        torch.testing.assert_close(ours, hand)


def test_simultaneous_moves_both_from_the_same_point():
    """By hand, without dropout: both gradients at the old parameters, from one batch of samples."""
    recipe = small(keep_input=1.0, keep_hidden=1.0)
    generator, discriminator, step = game(recipe)
    real = images()
    random = torch.get_rng_state()
    fake_logits = discriminator(generator(noise()))
    d_loss = (softplus(-discriminator(real)).mean() + softplus(fake_logits).mean()) / 2
    d_gradients = torch.autograd.grad(d_loss, list(discriminator.parameters()), retain_graph=True)
    g_gradients = torch.autograd.grad(softplus(-fake_logits).mean(), list(generator.parameters()))
    expected = [p - 0.1 * g for p, g in zip(discriminator.parameters(), d_gradients, strict=True)]
    expected += [p - 0.2 * g for p, g in zip(generator.parameters(), g_gradients, strict=True)]
    torch.set_rng_state(random)
    step(lambda: Batch(real), RATES)
    for ours, hand in zip(parameters(discriminator) + parameters(generator), expected, strict=True):
        torch.testing.assert_close(ours, hand)


@pytest.mark.parametrize("objective", ["non_saturating", "saturating"])
@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_a_step_of_each_player_helps_it(updates, objective):
    """The signs: a step of G alone raises D(G(z)); one of D alone raises D(x) - D(G(z))."""
    recipe = small(updates=updates, objective=objective)
    generator, discriminator, step = game(recipe)
    real, seen = images(200), noise(200)

    def judged():
        with torch.no_grad():
            fake = discriminator.eval()(generator(seen)).sigmoid().mean().item()
            return discriminator(real).sigmoid().mean().item() - fake, fake

    _, fake_before = judged()
    discriminator.train()
    step(lambda: Batch(real[:8]), Rates(0.5, 0.0, 0.0))
    gap_before, fake_after = judged()
    assert fake_after > fake_before
    discriminator.train()
    for _ in range(10):
        step(lambda: Batch(real[:8]), Rates(0.0, 0.5, 0.0))
    assert judged()[0] > gap_before


def test_statistics_are_those_of_each_update():
    recipe = small(keep_input=1.0, keep_hidden=1.0)
    generator, discriminator, step = game(recipe)
    assert step.statistics().shape == (0, 4)
    real = images()
    random = torch.get_rng_state()
    with torch.no_grad():
        real_logits, fake_logits = discriminator(real), discriminator(generator(noise()))
    torch.set_rng_state(random)
    for _ in range(3):
        step(lambda: Batch(real), RATES)
    rows = step.statistics()
    assert rows.shape == (3, 4)
    d_loss = (softplus(-real_logits).mean() + softplus(fake_logits).mean()) / 2
    expected = [d_loss, softplus(-fake_logits).mean(), real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]
    assert rows[0].tolist() == pytest.approx([value.item() for value in expected], rel=1e-5)
    assert len(step.statistics()) == 0


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam"}, {"updates": "alternating", "k": 2}])
def test_state_goes_on_where_it_was(settings):
    recipe = small(**settings)
    generator, discriminator, step = game(recipe)
    for _ in range(3):
        step(batch, RATES)
    *players, twin = game(recipe)
    for player, other in zip(players, (generator, discriminator), strict=True):
        player.load_state_dict(other.state_dict())
    twin.load_state_dict({name: tensor.clone() for name, tensor in step.state_dict().items()})
    random = torch.get_rng_state()
    step(batch, RATES)
    torch.set_rng_state(random)
    twin(batch, RATES)
    for one, other in zip([generator, discriminator], players, strict=True):
        assert all(map(torch.equal, parameters(one), parameters(other)))


def test_state_is_named_after_the_parameters():
    *_, step = game(small())
    assert "discriminator.hidden.0.weight.velocity" in step.state_dict()
    assert "generator.output.bias.velocity" in step.state_dict()


def test_a_discriminator_with_batch_norm_sees_real_and_fake_apart():
    seen = []

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(9, 1))

        def forward(self, images):
            seen.append(len(images))
            return self.layer(images)

    recipe = small()
    mixed = tiny.game(recipe, SHAPE, discriminator=Norm())
    PlainStep(ALGORITHMS[recipe.updates], mixed, recipe, CPU)(batch, RATES)
    assert seen == [8, 8]
    assert tiny.game(recipe, SHAPE).discriminator.independent_examples


def test_frozen_and_unused_parameters_stay():
    recipe = small()
    frozen = tiny.game(recipe, SHAPE)
    generator = frozen.generator
    generator.hidden[0].weight.requires_grad_(False)
    generator.unused = nn.Linear(1, 1)
    before = parameters(generator)
    make_step(frozen, small(step="plain"), CPU)(batch, RATES)
    moved = [not torch.equal(old, new) for old, new in zip(before, parameters(generator), strict=True)]
    names = [name for name, _ in generator.named_parameters()]
    assert {name for name, changed in zip(names, moved, strict=True) if not changed} == {
        "hidden.0.weight",
        "unused.weight",
        "unused.bias",
    }


def test_bf16_stays_near_float32():
    losses = []
    for precision in ("float32", "bf16"):
        torch.manual_seed(1)
        generator, _, step = game(small(precision=precision, batch_size=64))
        real = batch(64)
        for _ in range(5):
            step(lambda real=real: real, RATES)
        assert all(parameter.dtype == torch.float32 for parameter in generator.parameters())
        losses.append(step.statistics()[:, :2])
    torch.testing.assert_close(*losses, atol=0.02, rtol=0)
    assert not torch.equal(*losses)


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_bf16_is_not_for_losses_and_statistics(updates):
    """A logit of .5 for every image, exact in bfloat16; its softplus and its sigmoid are not."""
    recipe = small(precision="bf16", updates=updates)
    _, discriminator, step = game(recipe)
    with torch.no_grad():
        discriminator.output.weight.zero_()
        discriminator.output.bias.fill_(0.5)
    assert step.judge_both(batch(), images()).fake_logits.dtype == torch.float32
    step(batch, Rates(0.0, 0.0, 0.0))
    high, low, probability = math.log1p(math.exp(0.5)), math.log1p(math.exp(-0.5)), 1 / (1 + math.exp(-0.5))
    expected = [(high + low) / 2, low, probability, probability]
    assert step.statistics()[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_the_losses_start_at_log_2():
    *_, step = game(small(discriminator_range=1e-6))
    step(batch, RATES)
    assert step.statistics()[0].tolist() == pytest.approx([math.log(2), math.log(2), 0.5, 0.5], abs=1e-4)
