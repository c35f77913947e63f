"""What others may add, each by one class or function and one line: it trains, resumes, loads, and is what is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from torch import Tensor, nn

import pygan
from pygan.algorithm import ALGORITHMS, PlainStep, alternating
from pygan.data import NAMED, Batch, Source
from pygan.data.scaling import SCALES, Scale
from pygan.fast import make_step
from pygan.fast.fused import FusedStep
from pygan.models import MODELS, Model
from pygan.noise import NOISES
from pygan.objectives import OBJECTIVES, NonSaturating, Objective
from pygan.optim import OPTIMIZERS, Momentum, OptimizerSettings, Rates
from pygan.recipes import RECIPES, known_settings
from pygan.run import Run
from pygan.settings import AT_LEAST_ONE, POSITIVE, setting
from pygan.step import NextBatch as Images

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Objective):
    name = "least_squares"
    target: float = setting(1.0, "what logits of real images should be", POSITIVE)

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (real_logits - self.target).square().mean() + fake_logits.square().mean()

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return (fake_logits - self.target).square().mean()


@dataclass(frozen=True, kw_only=True)
class Doubled(NonSaturating):
    """Of a class that the fast step knows, but not that class."""

    name = "doubled"

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return 2 * super().generator_loss(fake_logits)


def generator_first(play: PlainStep, real: Images, rates: Rates) -> Tensor:
    objective, batch = play.game.objective, real()
    g_loss = objective.generator_loss(*play.logits_for_generator(play.samples(batch.labels), batch))
    play.move_generator(play.generator_gradients(g_loss), rates)
    judged = play.judge_both(batch, play.samples(batch.labels).detach())
    d_loss = objective.discriminator_loss(judged.real_logits, judged.fake_logits)
    play.move_discriminator(play.discriminator_gradients(d_loss, judged, batch.labels), rates)
    return objective.row(d_loss, g_loss, judged.real_logits, judged.fake_logits)


class Heavy(Momentum):
    """Momentum of .9, whatever the schedule."""

    def step(self, gradients: Any, lr: float | Tensor, momentum: float | Tensor) -> None:
        super().step(gradients, lr, 0.9)


@dataclass(frozen=True, kw_only=True)
class HeavySettings(OptimizerSettings):
    name = "heavy"

    def make(self, module: nn.Module) -> Heavy:
        return Heavy(module)


def coin(out: Tensor, source: torch.Generator | None) -> object:
    return out.bernoulli_(0.5, generator=source)


@dataclass(frozen=True)
class Dimmed(Scale):
    brightest: float
    name = "dimmed"
    exact = True
    range = (0.0, 1.0)

    @classmethod
    def fit(cls, train: Batch) -> "Dimmed":
        return cls(2 * float(train.images.max()) / 255)

    def apply(self, images: Tensor) -> Tensor:
        return images / self.brightest

    def invert(self, values: Tensor) -> Tensor:
        return values * self.brightest


class Steps(nn.Sequential):
    """A generator that is none of the paper's."""


@dataclass(frozen=True, kw_only=True)
class Perceptron(Model):
    name = "perceptron"
    width: int = setting(8, "units of the generator's only hidden layer", AT_LEAST_ONE, player="generator")

    def make_generator(self, shape: Any, noise_size: int, classes: int = 0, mean_image: Any = None) -> nn.Module:
        pixels = torch.Size(shape).numel()
        return Steps(nn.Linear(noise_size, self.width), nn.Tanh(), nn.Linear(self.width, pixels), nn.Sigmoid())

    def make_discriminator(self, shape: Any, classes: int = 0) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 1))


class Toy(NamedTuple):
    registry: Any
    entry: Any
    settings: Mapping[str, Any]  # with which it is chosen
    step: type = PlainStep  # the one that is taken for it


TOYS = {
    "least_squares": Toy(OBJECTIVES, LeastSquares, {"objective": "least_squares", "target": 0.8}),
    "doubled": Toy(OBJECTIVES, Doubled, {"objective": "doubled"}),
    "generator_first": Toy(ALGORITHMS, generator_first, {"updates": "generator_first"}),
    "heavy": Toy(OPTIMIZERS, HeavySettings, {"optimizer": "heavy"}, FusedStep),
    "coin": Toy(NOISES, coin, {"noise": "coin"}, FusedStep),
    "dimmed": Toy(SCALES, Dimmed, {"pixels": "dimmed"}, FusedStep),
    "perceptron": Toy(MODELS, Perceptron, {"model": "perceptron", "width": 5}),
}
OF_THE_PAPER = ("generator_hidden", "discriminator_hidden", "pieces")


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Toy:
    chosen = TOYS[request.param]
    monkeypatch.setitem(chosen.registry, request.param, chosen.entry)
    return chosen


def train(toy: Toy, out: Path, **settings: Any) -> Run:
    known = {n: value for n, value in tiny.SETTINGS.items() if toy.registry is not MODELS or n not in OF_THE_PAPER}
    return pygan.train(tiny.images(), out=out, **{**known, **toy.settings, **settings})


def weights(run: Run) -> dict[str, Tensor]:
    return {**run.game.generator.state_dict(prefix="g."), **run.game.discriminator.state_dict(prefix="d.")}


def assert_equal(one: Run, other: Run) -> None:
    assert weights(one).keys() == weights(other).keys()
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())
    assert torch.equal(one.sample(5, 0), other.sample(5, 0))
    assert one.history == other.history


def test_it_trains_resumes_and_loads(toy: Toy, tmp_path: Path) -> None:
    straight = train(toy, tmp_path / "straight", epochs=4)
    train(toy, tmp_path / "halves")
    halves = train(toy, tmp_path / "halves", epochs=4, resume=True)
    assert_equal(halves, straight)
    loaded = pygan.load(tmp_path / "halves")
    assert_equal(loaded, straight)
    assert loaded.recipe == straight.recipe
    assert {name: loaded.recipe.flat()[name] for name in toy.settings} == toy.settings
    assert loaded.game.scale == straight.game.scale


def test_it_is_what_is_used_by_the_step_that_knows_it(toy: Toy, tmp_path: Path) -> None:
    """By the plain step it gives the same numbers, and they are not those of a run without it."""
    recipe = RECIPES["code2014"].with_settings(**toy.settings)
    assert type(make_step(tiny.game(recipe, (1, 4, 4)), recipe, CPU)) is toy.step
    chosen, plain = train(toy, tmp_path / "chosen"), train(toy, tmp_path / "plain", step="plain")
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(chosen)[name], tensor, rtol=1e-4, atol=1e-5)
    without = tiny.run(tmp_path / "without")
    assert any(not torch.equal(t, weights(without).get(n, torch.empty(0))) for n, t in weights(chosen).items())


def test_the_fast_step_takes_nothing_that_it_does_not_know(toy: Toy) -> None:
    recipe = RECIPES["code2014"].with_settings(**toy.settings)
    game = tiny.game(recipe, (1, 4, 4))
    if toy.step is FusedStep:
        assert type(FusedStep(game, recipe, CPU)) is FusedStep
    else:
        with pytest.raises(ValueError, match=r"^FusedStep: does not know this game, .*; make_step chooses"):
            FusedStep(game, recipe, CPU)


def test_a_mistyped_name_of_it_is_refused_with_the_right_one(toy: Toy) -> None:
    name, value = next(iter(toy.settings.items()))
    with pytest.raises(
        ValueError, match=f"^{name} must be one of .*{value}.*, got '{value}x'; did you mean '{value}'?"
    ):
        RECIPES["code2014"].with_settings(**{name: f"{value}x"})


def test_its_settings_are_on_the_command_line(toy: Toy) -> None:
    assert known_settings().keys() >= toy.settings.keys()
    name, value = next(iter(toy.settings.items()))
    assert value in (known_settings()[name].choices or ())


def test_another_algorithm_of_a_known_name_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["paper2014"]
    assert type(make_step(tiny.game(recipe, (1, 4, 4)), recipe, CPU)) is FusedStep
    monkeypatch.setitem(ALGORITHMS, "alternating", lambda *arguments: alternating(*arguments))
    assert type(make_step(tiny.game(recipe, (1, 4, 4)), recipe, CPU)) is PlainStep


@pytest.mark.filterwarnings("ignore:precision='bf16'")
def test_an_optimiser_from_outside_is_seen_by_bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "heavy", HeavySettings)
    recipe = RECIPES["code2014"].with_settings(optimizer="heavy", precision="bf16", batch_size=10)
    step = make_step(tiny.game(recipe, (1, 4, 4)), recipe, CPU)
    assert isinstance(step, FusedStep)
    for _ in range(3):
        step(lambda: Batch(torch.rand(10, 1, 4, 4)), Rates(0.1, 0.1, 0.5))
    for player in (step._painter, step._judge):
        assert all(map(torch.equal, player._operands, [p.bfloat16() for p in player._parameters]))


def test_a_data_set_trains_resumes_and_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(NAMED, "squares", lambda root: Source("squares", Batch(tiny.images()), "drawn by a test"))
    straight = tiny.run(tmp_path / "straight", "squares", epochs=4)
    tiny.run(tmp_path / "halves", "squares")
    assert_equal(tiny.run(tmp_path / "halves", "squares", epochs=4, resume=True), straight)
    assert_equal(pygan.load(tmp_path / "halves"), straight)
    assert straight.data["name"] == "squares"
    with pytest.raises(ValueError, match="did you mean 'squares'"):
        pygan.data.load("squars")
