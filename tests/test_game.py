"""The game: noise, samples, logits, and what is refused before anything is trained."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from pygan.data.scaling import Gcn, Signed
from pygan.game import evaluating
from pygan.noise import NOISES, draw_noise
from pygan.recipes import Recipe

SHAPE = (1, 2, 3)
PLAYERS = {"generator_hidden": (5,), "discriminator_hidden": (4,)}


def small(generator=None, discriminator=None, **settings):
    return tiny.game(
        Recipe().with_settings(**{"noise_size": 4, **PLAYERS, **settings}), SHAPE, generator, discriminator
    )


class Labelled(nn.Module):
    """Adds ten times its labels to what it gets."""

    def forward(self, x, labels):
        return x.flatten(1) + 10 * labels.unsqueeze(1)


class Sum(Labelled):
    def forward(self, x, labels):
        return super().forward(x, labels).sum(1)


def conditional():
    return replace(small(Labelled(), Sum(), noise_size=6), classes=3, scale=Gcn(0.0, 1.0))


# Distribution -> its largest value, its variance, and its fourth moment.
MOMENTS = {"uniform": (math.sqrt(3), 1, 1.8), "normal": (6, 1, 3), "unit_uniform": (1, 1 / 3, 0.2)}


@pytest.mark.parametrize("distribution", NOISES)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_few_noise_vectors_are_the_first_of_many(distribution, size):
    """So that `pygan latent arithmetic` can name samples by their numbers, however many were drawn."""
    many = draw_noise(distribution, 64, size, random=torch.Generator().manual_seed(0))
    for n in range(1, 64):
        assert torch.equal(draw_noise(distribution, n, size, random=torch.Generator().manual_seed(0)), many[:n])


@pytest.mark.parametrize("distribution", NOISES)
def test_noise_is_of_its_distribution(distribution):
    bound, variance, fourth = MOMENTS[distribution]
    noise = draw_noise(distribution, 2000, 50)
    assert noise.shape == (2000, 50)
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.var().item() == pytest.approx(variance, abs=0.02)
    assert noise.pow(4).mean().item() == pytest.approx(fourth, abs=0.1)
    assert noise.abs().max() <= bound


@pytest.mark.parametrize("distribution", NOISES)
def test_noise_comes_from_the_source_or_else_from_torchs_generator(distribution):
    game, before = small(noise=distribution), torch.get_rng_state()
    one, other = (game.draw_noise(3, torch.Generator().manual_seed(4)) for _ in range(2))
    assert one.shape == (3, 4)
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    default = game.draw_noise(3)
    torch.set_rng_state(before)
    assert torch.equal(default, game.draw_noise(3))
    assert not torch.equal(default, game.draw_noise(3))


def test_sampling_repeats_itself_and_leaves_the_mode_alone():
    game = small()
    first, again = (game.sample(2500, random=torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (2500, *SHAPE)
    assert torch.equal(first, again)
    assert not first.requires_grad
    assert game.generator.training
    assert game.sample(0).shape == (0, *SHAPE)


def test_samples_are_those_of_one_pass_in_eval_mode():
    game = small(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Sigmoid()))
    samples = game.sample(1500, random=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = game.generator.eval()(game.draw_noise(1500, torch.Generator().manual_seed(4)))
    torch.testing.assert_close(samples, expected.view(-1, *SHAPE))


def test_labels_reach_both_players():
    game = conditional()
    noise, labels = torch.zeros(4, 6), torch.tensor([2, 0, 1, 1])
    images = game.generate(noise, labels)
    assert images[:, 0, 0, 0].tolist() == [20, 0, 10, 10]
    assert game.judge(torch.zeros(4, *SHAPE), labels).tolist() == [120, 0, 60, 60]
    game.discriminator.independent_examples = True
    judged = game.judge_both(torch.zeros(4, *SHAPE), torch.ones(4, *SHAPE), labels)
    assert judged.real_logits.tolist() == [120, 0, 60, 60]
    assert judged.fake_logits.tolist() == [126, 6, 66, 66]


def test_samples_have_the_classes_in_turn_or_those_that_are_wanted():
    game = conditional()
    in_turn = game.sample(1200)[:, 0].mean((1, 2)) / 10
    torch.testing.assert_close(in_turn, (torch.arange(1200) % 3).float(), atol=0.2, rtol=0)
    wanted = game.sample(2, torch.tensor([2, 2]))[:, 0].mean((1, 2)) / 10
    torch.testing.assert_close(wanted, torch.tensor([2.0, 2.0]), atol=0.2, rtol=0)
    game.check()


@pytest.mark.parametrize("width", [(), (1,)])
def test_logits_are_one_row_in_float32(width):
    class Half(nn.Module):
        def forward(self, images):
            return images.flatten(1).sum(1).view(-1, *width).bfloat16()

    logits = small(discriminator=Half()).judge(torch.ones(5, *SHAPE))
    assert logits.dtype == torch.float32
    assert logits.tolist() == [6.0] * 5


@pytest.mark.parametrize(("independent", "passes"), [(True, [10]), (False, [5, 5])])
def test_both_kinds_of_images_share_a_pass_only_if_that_changes_nothing(independent, passes):
    seen = []

    class Judge(nn.Module):
        independent_examples = independent

        def forward(self, images):
            seen.append(len(images))
            return images.flatten(1).sum(1)

    real, fakes = torch.rand(5, *SHAPE), torch.rand(5, *SHAPE)
    judged = small(discriminator=Judge()).judge_both(real, fakes)
    assert seen == passes
    torch.testing.assert_close(judged.real_logits, real.sum((1, 2, 3)))
    torch.testing.assert_close(judged.fake_logits, fakes.sum((1, 2, 3)))
    assert judged.real is real
    assert judged.fakes is fakes


def test_evaluating_restores_the_mode():
    module = nn.Linear(1, 1).eval()
    with evaluating(module):
        assert not module.training
    assert not module.training
    module.train()
    with pytest.raises(KeyError), evaluating(module):
        raise KeyError
    assert module.training


def test_evaluating_restores_the_mode_of_each_part():
    module = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout())  # a frozen part
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, False, True]


def sigmoid_of(size):
    return nn.Sequential(nn.Linear(4, size), nn.Sigmoid())


class Twice(nn.Module):
    def forward(self, images):
        return images.flatten(1).sum(1), images


class Integers(nn.Module):
    def forward(self, images):
        return images.flatten(1).sum(1).long()


class Endless(nn.Module):
    def forward(self, images):
        return images.flatten(1).sum(1) / 0


REFUSED = {
    "size of noise": (
        nn.Linear(100, 6),
        nn.Linear(6, 1),
        r"generator failed on noise \[64, 4\], whose size noise_size= sets: RuntimeError: mat1 .* multiplied .*100x6",
    ),
    "size of images": (
        sigmoid_of(6),
        nn.Sequential(nn.Flatten(), nn.Linear(7, 1)),
        r"discriminator failed on images \[64, 1, 2, 3\]: RuntimeError: mat1 and .* multiplied \(64x6 and 7x1\)",
    ),
    "no labels": (Labelled(), nn.Flatten(), r"generator failed on noise .*: TypeError: .* missing .* 'labels'"),
    "shape of images": (
        nn.Linear(4, 7),
        nn.Linear(6, 1),
        r"generator must map noise \[64, 4\] to images \[64, 1, 2, 3\] or \[64, 6\], got \[64, 7\]",
    ),
    "range of images": (
        nn.Sequential(nn.Linear(4, 6), nn.Hardtanh(3, 4)),
        nn.Flatten(),
        r"generator must give images in \[0, 1\], the pixel scale 'unit', got \[3, 3\]. .* pixels='signed'",
    ),
    "tanh without bias": (
        nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh()),
        nn.Flatten(),
        r"generator must give images in \[0, 1\]",
    ),
    "shape of logits": (
        sigmoid_of(6),
        nn.Flatten(),
        r"discriminator must map images \[64, 1, 2, 3\] to logits \[64\] or \[64, 1\], got \[64, 6\]",
    ),
    "sigmoid": (
        sigmoid_of(6),
        nn.Sequential(nn.Flatten(), nn.Linear(6, 1), nn.Sigmoid()),
        r"discriminator must give logits, .* but it seems to end in a sigmoid",
    ),
    "tuple": (sigmoid_of(6), Twice(), r"discriminator must map images .* got tuple"),
    "integers": (sigmoid_of(6), Integers(), r"discriminator must map .* in floating point, got torch.int64"),
    "infinity": (sigmoid_of(6), Endless(), r"discriminator must map .* got NaN or infinite values"),
}


@pytest.mark.parametrize(("generator", "discriminator", "message"), REFUSED.values(), ids=REFUSED)
def test_players_that_do_not_fit_are_refused(generator, discriminator, message):
    with pytest.raises(ValueError, match=f"^train: {message}"):
        small(generator, discriminator).check()


@pytest.mark.parametrize("noise", ["uniform", "ones"])
def test_a_discriminator_of_zeros_is_none_that_ends_in_a_sigmoid(noise, monkeypatch):
    monkeypatch.setitem(NOISES, "ones", lambda out, source: out.fill_(1.0))
    judge = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    nn.init.zeros_(judge[1].weight)
    nn.init.zeros_(judge[1].bias)
    small(sigmoid_of(6), judge, noise=noise).check()
    nn.init.ones_(judge[1].weight)
    with pytest.raises(ValueError, match="seems to end in a sigmoid"):
        small(sigmoid_of(6), nn.Sequential(*judge, nn.Sigmoid()), noise=noise).check()


def test_players_that_fit_are_let_pass_and_left_alone():
    judge = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    for game in (
        small(sigmoid_of(6).train(), judge),
        replace(small(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), judge), scale=Signed()),
        replace(small(nn.Linear(4, 6), judge), scale=Gcn(0.5, 1.0)),
    ):
        before = torch.get_rng_state()
        game.check()
        assert game.generator.training
        assert game.discriminator.training
        assert torch.equal(before, torch.get_rng_state())
