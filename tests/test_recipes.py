"""The recipes: the facts of 2014, the schedules, and what is refused."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from pygan.data import Batch, Splits
from pygan.models import MaxoutMLP
from pygan.objectives import OBJECTIVES, NonSaturating, Saturating
from pygan.optim import AdamSettings, MomentumSettings, Rates
from pygan.recipes import PARTS, RECIPES, Recipe, default_recipe, find_recipe, known_settings


def fit(recipe=None, data="mnist", pixels=784, images=50_000, before=None, conditional=False, **settings):
    one = torch.zeros(1, 1, 1, pixels, dtype=torch.uint8).expand(images, -1, -1, -1)
    splits = Splits(data, Batch(one), Batch(one), Batch(one), "made up")
    return find_recipe(recipe, settings, splits, before, conditional)


def test_the_two_recipes_of_2014_differ_in_the_update_and_in_the_half_of_the_discriminators_loss():
    paper, code = RECIPES["paper2014"], RECIPES["code2014"]
    same = {"name": "", "updates": "simultaneous", "discriminator_loss_scale": "half"}
    assert paper.with_settings(**same) == code.with_settings(**same)
    assert (paper.updates, code.updates) == ("alternating", "simultaneous")
    assert (paper.discriminator_loss_scale, code.discriminator_loss_scale) == ("sum", "half")


def test_the_facts_of_2014():
    code = RECIPES["code2014"]
    assert (code.noise, code.noise_size, code.generator_hidden, code.generator_range) == (
        "uniform",
        100,
        (1200, 1200),
        0.05,
    )
    assert (code.discriminator_hidden, code.pieces, code.discriminator_range) == ((240, 240), 5, 0.005)
    assert (code.keep_input, code.keep_hidden, code.batch_size, code.k) == (0.8, 0.5, 100, 1)
    assert (code.generator_lr, code.discriminator_lr, code.lr_floor) == (0.1, 0.1, 1e-6)
    assert (code.objective.name, code.optimizer.name, code.averaging) == ("non_saturating", "momentum", 0)
    assert (code.lr_anneal, code.pixels, code.gradient_penalty) == ("none", "unit", 0)


def test_every_setting_says_what_it_is():
    known = known_settings()
    assert all(setting.help for setting in known.values())
    assert known.keys() >= {*RECIPES["digits"].flat(), *RECIPES["code2014"].flat()} - {"name"}


@pytest.mark.parametrize("update", [0, 1, 124_999, 2_878_222, 2_900_000, 10**9])
def test_the_rate_is_divided_at_each_update_down_to_the_floor(update):
    exact = max(0.1 * math.exp(-update * math.log1p(4e-6)), 1e-6)
    assert RECIPES["code2014"].rates(update, 500).generator_lr == pytest.approx(exact, rel=1e-9)


def test_momentum_rises_by_epoch():
    code = RECIPES["code2014"]
    momenta = [
        code.rates((epoch - 1) * 500 + within, 500).momentum for epoch in (1, 2, 125, 250, 300) for within in (0, 499)
    ]
    expected = [0.5 + 0.2 * rise for epoch in (1, 2, 125, 250, 250) for rise in [(epoch - 1) / 249] * 2]
    assert momenta == pytest.approx(expected, rel=1e-12)
    assert Recipe(optimizer=MomentumSettings(momentum_epochs=1)).rates(0, 500).momentum == 0.7


@pytest.mark.parametrize(("anneal", "half"), [("linear", 0.5), ("cosine", 0.5)])
def test_an_annealed_rate_falls_to_zero_at_the_end_of_the_run(anneal, half):
    recipe = Recipe(lr_anneal=anneal, lr_decay=1, epochs=10, generator_lr=0.1, discriminator_lr=0.3)
    assert recipe.rates(0, 7) == Rates(0.1, 0.3, 0.5)
    assert recipe.rates(35, 7)[:2] == pytest.approx((0.1 * half, 0.3 * half))
    assert recipe.rates(70, 7)[:2] == pytest.approx((0, 0), abs=1e-15)
    falling = [recipe.rates(update, 7).generator_lr for update in range(71)]
    assert falling == sorted(falling, reverse=True)


def test_both_players_have_rates_of_their_own():
    assert Recipe(generator_lr=0.2, discriminator_lr=0.1).rates(0, 1)[:2] == (0.2, 0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": 2}, "k must be 1 with updates='simultaneous', got 2; updates='alternating' takes any k"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"objective": "hinge"}, f"objective must be one of {', '.join(map(repr, OBJECTIVES))}, got 'hinge'"),
        ({"keep_hidden": 0.0}, "keep_hidden must be in (0, 1], got 0.0"),
        ({"averaging": 1.0}, "averaging must be in [0, 1), got 1.0"),
        ({"generator_lr": math.nan}, "generator_lr must be finite, got nan"),
        ({"generator_lr": 1e-9}, "lr_floor must be at most the learning rates, 1e-09 and 0.1, got 1e-06"),
        ({"lr_decay": 0.5}, "lr_decay must be at least 1, got 0.5"),
        ({"pieces": 257}, "pieces must be in 1..256, got 257"),
        ({"generator_hidden": ()}, "generator_hidden must be at least one size, each at least 1, got ()"),
    ],
)
def test_an_impossible_value_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Recipe().with_settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 1.5}, "k must be int, got 1.5"),
        ({"k": True}, "k must be int, got True"),
        ({"generator_lr": "fast"}, "generator_lr must be float, got 'fast'"),
        ({"deterministic": 1}, "deterministic must be bool, got 1"),
        ({"generator_hidden": (1.5,)}, "generator_hidden must be a tuple of ints, got (1.5,)"),
    ],
)
def test_a_wrong_type_is_refused(settings, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        Recipe().with_settings(**settings)


def test_convenient_types_are_taken():
    recipe = Recipe().with_settings(
        generator_lr=np.int64(1), generator_hidden=[5, 6], discriminator_hidden=np.int32(7), objective="minimax"
    )
    assert (recipe.generator_lr, recipe.generator_hidden, recipe.discriminator_hidden) == (1.0, (5, 6), (7,))
    assert type(recipe.generator_lr) is float
    assert type(recipe.model.discriminator_hidden[0]) is int
    assert recipe.objective == Saturating(discriminator_loss_scale="half")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(TypeError, match="unknown setting 'bach_size'; did you mean 'batch_size'"):
        fit(bach_size=3)
    with pytest.raises(ValueError, match=r"unknown recipe 'paper2015' \(.*digits.*\); did you mean 'paper2014'"):
        fit("paper2015")


def test_a_named_recipe_is_fitted_to_the_data():
    cifar = fit("code2014", "cifar10", 3072, 40_000)
    assert cifar.generator_lr == cifar.discriminator_lr == pytest.approx(0.025, rel=0.03)  # The authors' rate.
    assert fit("code2014", "digits", 64, 1437).generator_lr == 0.1
    assert fit("code2014", "folder", 784, 30).batch_size == 30
    assert fit("code2014", "folder", 784, 30, batch_size=20).batch_size == 20
    assert fit("conditional2014", "cifar10", 3072).generator_lr == cifar.generator_lr
    assert fit("dcgan", "cifar10", 3072).generator_lr == 2e-4, "that rate is not for one size"
    with pytest.raises(ValueError, match="batch_size must be at most 30, the number of training images, got 100"):
        fit("code2014", "folder", 784, 30, batch_size=100)


def test_the_default_is_the_datas_own():
    assert fit(None, "digits", 64, 1437).name == fit(None, "faces", 3600, 400).name == "digits"
    assert fit(None, "points", 2, 400).name == "relativistic"
    shapes = {(3, 31, 45): "pictures", (3, 7, 300): "digits", (1, 28, 28): "digits", (1, 1, 784): "digits"}
    assert {shape: default_recipe("faces", shape) for shape in shapes} == shapes
    assert fit(None, "mnist").name == "code2014"
    assert fit(None, "cifar10", 3072).name == "dcgan"
    assert fit(None, "tfd", 2304).name == "tfd2014"
    assert fit(None, "gaussian", 1).name == fit(None, "points", 2).name == "relativistic"
    assert fit(None, "mnist", conditional=True).name == "conditional2014"
    assert fit(None, "digits", 64, 1437, conditional=True).name == "dcgan"
    assert fit(Recipe(name="mine", batch_size=7)).batch_size == 7


def test_a_resumed_run_keeps_what_is_left_open():
    before = Recipe(batch_size=7, epochs=3)
    assert fit(before=before) == before
    assert fit(before=before, epochs=5) == replace(before, epochs=5)
    assert fit("code2014", before=before) == replace(RECIPES["code2014"], epochs=3)


# ---- the parts of a recipe, and all settings by flat names ----------------------------------------------------------

OF_PARTS = [pytest.param(kind, name, id=f"{kind} {name}") for kind, registry in PARTS.items() for name in registry]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_flat_settings_make_the_same_recipe_again(recipe):
    assert Recipe().with_settings(**recipe.flat()) == recipe
    assert all(isinstance(value, int | float | str | tuple) for value in recipe.flat().values())


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize(("kind", "name"), OF_PARTS)
def test_every_part_goes_into_every_recipe_and_back(kind, name, recipe):
    changed = recipe.with_settings(**{kind: name})
    assert type(getattr(changed, kind)) is PARTS[kind][name]
    assert Recipe().with_settings(**changed.flat()) == changed
    assert all(getattr(changed, other) == getattr(recipe, other) for other in PARTS if other != kind)


def test_settings_reach_the_part_that_has_them():
    recipe = Recipe().with_settings(optimizer="adam", adam_beta1=0.3, gradient_penalty=2.0, pieces=3, batch_size=7)
    assert recipe.optimizer == AdamSettings(adam_beta1=0.3)
    assert recipe.objective == NonSaturating(discriminator_loss_scale="half", gradient_penalty=2.0)
    assert recipe.model == MaxoutMLP(pieces=3)
    assert (recipe.adam_beta1, recipe.gradient_penalty, recipe.pieces, recipe.batch_size) == (0.3, 2.0, 3, 7)
    assert recipe == Recipe(
        optimizer=AdamSettings(adam_beta1=0.3),
        objective=NonSaturating(discriminator_loss_scale="half", gradient_penalty=2.0),
        model=MaxoutMLP(pieces=3),
        batch_size=7,
    )


def test_a_new_part_keeps_what_it_shares_with_the_old_one():
    recipe = Recipe().with_settings(gradient_penalty=2.0).with_settings(objective="saturating")
    assert recipe.objective == Saturating(discriminator_loss_scale="half", gradient_penalty=2.0)


def test_settings_that_describe_a_player_of_ones_own_are_left_out():
    generators, discriminators = {"generator_hidden", "generator_range"}, {"pieces", "keep_input", "keep_hidden"}
    discriminators |= {"discriminator_hidden", "discriminator_range"}
    flat = Recipe().flat()
    assert flat.keys() - Recipe().flat(("generator",)).keys() == generators
    assert flat.keys() - Recipe().flat(("discriminator",)).keys() == discriminators
    assert flat.keys() - Recipe().flat(("generator", "discriminator")).keys() == generators | discriminators | {"model"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pices": 3}, "unknown setting 'pices'; did you mean 'pieces'?"),
        ({"gradient_penalti": 3}, "unknown setting 'gradient_penalti'; did you mean 'gradient_penalty'?"),
        ({"adam_beta1": 0.3}, "the setting 'adam_beta1' goes with optimizer='adam', which this recipe does not use"),
        ({"optimizer": "adam", "momentum": 0.5}, "the setting 'momentum' goes with optimizer='momentum', which"),
    ],
)
def test_a_setting_that_the_recipe_has_not_is_refused(settings, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        Recipe().with_settings(**settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"objective": "non_saturatin"}, "did you mean 'non_saturating'"),
        ({"optimizer": "adamm"}, "did you mean 'adam'"),
        ({"model": "maxout_mpl"}, "did you mean 'maxout_mlp'"),
        ({"updates": "alternate"}, "did you mean 'alternating'"),
        ({"noise": "unifrom"}, "did you mean 'uniform'"),
        ({"pixels": "sined"}, "did you mean 'signed'"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"discriminator_loss_scale": "hal"}, "did you mean 'half'"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_nearest(settings, expected):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"^{name} must be one of .*, got {value!r}; {expected}"):
        Recipe().with_settings(**settings)
