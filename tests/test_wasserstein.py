"""The Wasserstein game: what the critic estimates, its penalty and its clip, what is logged, what looks ill."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor, nn

import pygan
from pygan.algorithm import ALGORITHMS
from pygan.data import Batch
from pygan.data.scaling import Signed
from pygan.game import Game
from pygan.health import HealthWarning
from pygan.objectives import OBJECTIVES, Judged, Wasserstein, WassersteinPenalty
from pygan.optim import Rates
from pygan.recipes import RECIPES, Recipe
from pygan.step import PlainStep

POINT = (1, 1, 1)
SIZES = {"batch_size": 32, "noise_size": 1, "generator_hidden": (2,), "discriminator_hidden": (16,)}


class Shift(nn.Module):
    """Noise in [-sqrt 3, sqrt 3], made narrow, about a place that is learned."""

    def __init__(self, place: float, width: float = 0.0) -> None:
        super().__init__()
        self.place, self.width = nn.Parameter(torch.tensor(place)), width

    def forward(self, noise: Tensor) -> Tensor:
        return self.place + self.width * noise


def make_step(place: float, width: float = 0.0, **settings: object) -> PlainStep:
    torch.manual_seed(0)
    recipe = Recipe(updates="alternating").with_settings(**{"model": "mlp", "optimizer": "adam", **SIZES, **settings})
    game = tiny.game(recipe, POINT, Shift(place, width))
    return PlainStep(ALGORITHMS["alternating"], game, recipe, torch.device("cpu"))


def train_critic(step: PlainStep, place: float, updates: int, lr: float, width: float = 0.0) -> list[float]:
    """The statistics of the last update; the data are about `place`, the generator stays where it is."""
    for _ in range(updates):
        step(lambda: Batch(place + width * (2 * torch.rand(32, *POINT) - 1)), Rates(0.0, lr, 0.0))
    return step.statistics()[-1].tolist()


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_the_penalised_critic_knows_the_distance_of_two_points(t: float) -> None:
    """Its best slope is 1 + t / 2 lambda, where -s t + lambda (s - 1)^2 is smallest."""
    step = make_step(0.0, objective="wasserstein_penalty", slope_penalty=40.0)
    _, _, distance = train_critic(step, t, 100, 0.02)
    assert distance == pytest.approx(t * (1 + t / 80), rel=0.01)
    assert distance == pytest.approx(t, rel=0.05)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_the_clipped_critic_knows_it_up_to_its_lipschitz_constant(t: float) -> None:
    """The constant is the largest slope on a fine grid that holds both points."""
    step = make_step(0.0, objective="wasserstein", clip=0.2, optimizer="rmsprop", leak=0.0)
    _, _, distance = train_critic(step, t, 60, 0.01)
    grid = torch.linspace(-1, 3, 4001, requires_grad=True)
    (slope,) = torch.autograd.grad(step.game.judge(grid.reshape(-1, *POINT)).sum(), grid)
    assert distance / slope.abs().max().item() == pytest.approx(t, rel=0.05)


@pytest.mark.parametrize(
    ("objective", "expected"), [("saturating", 0.0), ("wasserstein_penalty", 1.0), ("wasserstein", 1.0)]
)
def test_on_disjoint_supports_only_the_critic_leads_anywhere(objective: str, expected: float) -> None:
    """Data in [-.1, .1], samples about 2: the better the discriminator, the less the paper's game moves G."""
    step = make_step(2.0, 0.05, objective=objective)
    train_critic(step, 0.0, 150, 0.02, width=0.1)
    (gradient,) = step.generator_gradients(
        step.game.objective.generator_loss(step.game.judge(step.game.generate(step.noise())))
    )
    if objective == "wasserstein":  # up to its Lipschitz constant
        assert gradient.item() > 0
        gradient = gradient.sign()
    assert gradient.item() == pytest.approx(expected, abs=0.12 if expected else 0.02)


def linear(inputs: int = 9) -> nn.Module:
    """A critic with a gradient of norm 1 everywhere."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 1), nn.Flatten(0))
    nn.init.constant_(critic[1].weight, 1 / math.sqrt(inputs))
    return critic


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_penalty_of_a_linear_critic_with_unit_weights_is_zero(batch: int) -> None:
    """Peers that take one norm over the batch get (sqrt(n) - 1)^2."""
    critic, real, fakes = linear(), torch.rand(batch, 1, 3, 3), torch.rand(batch, 1, 3, 3)
    judged = Judged(real, fakes, critic(real), critic(fakes))
    assert WassersteinPenalty().penalty(judged, critic).item() == pytest.approx(0, abs=1e-12)
    critic[1].weight.data *= 3
    assert WassersteinPenalty(slope_penalty=5.0).penalty(judged, critic).item() == pytest.approx(5 * 4, rel=1e-5)
    assert WassersteinPenalty().penalty(judged, lambda x: 0 * critic(x)).isfinite()


def test_the_penalty_is_at_points_between_pairs_each_mixed_for_itself() -> None:
    seen: list[Tensor] = []

    def critic(images: Tensor) -> Tensor:
        seen.append(images)
        return images.square().flatten(1).sum(1)

    real, fakes = torch.full((500, 1, 2, 2), 2.0), torch.full((500, 1, 2, 2), -1.0)
    WassersteinPenalty().penalty(Judged(real, fakes, critic(real), critic(fakes)), critic)
    shares = (seen[-1].detach().flatten(1) + 1) / 3
    assert torch.allclose(shares, shares[:, :1])  # all values of an image in the same proportion
    assert shares.min() < 0.02
    assert shares.max() > 0.98
    assert shares[:, 0].std().item() == pytest.approx(1 / math.sqrt(12), rel=0.1)


def test_a_dead_critic_has_a_finite_gradient() -> None:
    critic = linear()
    critic[1].weight.data.zero_()
    judged = Judged(torch.rand(4, 1, 3, 3), torch.rand(4, 1, 3, 3), torch.zeros(4), torch.zeros(4))
    penalty = WassersteinPenalty().penalty(judged, critic)
    assert penalty.item() == 10
    assert all(g.isfinite().all() for g in torch.autograd.grad(penalty, critic[1].weight))


@pytest.mark.parametrize("name", ["wasserstein", "wasserstein_penalty"])
def test_the_signs_and_what_is_logged(name: str) -> None:
    objective, real, fakes = OBJECTIVES[name](), torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])
    d_loss, g_loss = objective.discriminator_loss(real, fakes), objective.generator_loss(fakes)
    assert (d_loss, g_loss) == (-2.5, -1.5)
    row = dict(zip(objective.statistics, objective.row(d_loss, g_loss, real, fakes).tolist(), strict=True))
    assert row == {"d_loss": -2.5, "g_loss": -1.5, "distance": 2.5}
    assert objective.describe(row) == "distance 2.5 G loss -1.5"


def test_a_step_of_the_generator_raises_the_critics_value() -> None:
    step = make_step(2.0, objective="wasserstein_penalty")
    train_critic(step, 0.0, 100, 0.02)
    before = step.game.judge(step.game.generate(step.noise())).mean()
    step(lambda: Batch(torch.zeros(32, *POINT)), Rates(0.1, 0.0, 0.0))
    assert step.game.judge(step.game.generate(step.noise())).mean() > before
    assert step.game.generator.place < 2.0


def test_every_weight_of_the_critic_is_clipped_after_each_update() -> None:
    step = make_step(2.0, objective="wasserstein", clip=0.03, optimizer="rmsprop")
    train_critic(step, 0.0, 3, 0.1)
    largest = [parameter.abs().max().item() for parameter in step.game.discriminator.parameters()]
    assert max(largest) == pytest.approx(0.03)
    assert all(value <= 0.03000001 for value in largest)
    assert step.game.generator.place == 2.0


@pytest.mark.parametrize("objective", ["wasserstein_penalty", "relativistic", "non_saturating"])
def test_batch_norm_in_a_penalised_critic_is_refused(objective: str) -> None:
    recipe = Recipe().with_settings(objective=objective, noise_size=4)
    if objective == "non_saturating":
        recipe = recipe.with_settings(gradient_penalty=1.0)
    judge = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(9, 1))
    generator = nn.Sequential(nn.Linear(4, 9), nn.Sigmoid())
    with pytest.raises(
        ValueError, match=f"^train: discriminator must have no batch norm, got BatchNorm1d .*{objective}"
    ):
        tiny.game(recipe, (1, 3, 3), generator, judge).check()
    judge[1] = nn.LayerNorm(9)
    tiny.game(recipe, (1, 3, 3), generator, judge).check()


@pytest.mark.parametrize("objective", ["wasserstein_penalty", "relativistic"])
def test_a_dcgan_leaves_batch_norm_out_of_its_critic(objective: str) -> None:
    recipe = RECIPES["dcgan"].with_settings(objective=objective, channels=2, noise_size=3, batch_size=4)

    def game(recipe: Recipe) -> Game:
        return replace(tiny.game(recipe, (1, 16, 16)), scale=Signed())

    with pytest.raises(ValueError, match=r"must have no batch norm.*discriminator_norm='none'"):
        game(recipe).check()
    without = game(recipe := recipe.with_settings(discriminator_norm="none"))
    without.check()
    assert without.discriminator.independent_examples
    step = PlainStep(ALGORITHMS["alternating"], without, recipe, torch.device("cpu"))
    step(lambda: Batch(torch.rand(4, 1, 16, 16)), Rates(0.1, 0.1, 0.0))
    assert step.statistics().isfinite().all()


def test_no_setting_is_dead() -> None:
    """Peers have a clip_value in their gradient-penalty game that nothing reads."""
    with pytest.raises(TypeError, match="the setting 'clip' goes with objective='wasserstein'"):
        RECIPES["wgan_gp"].with_settings(clip=0.1)
    with pytest.raises(TypeError, match="'slope_penalty' goes with objective='wasserstein_penalty'"):
        RECIPES["wgan"].with_settings(slope_penalty=1.0)
    with pytest.raises(ValueError, match=r"^clip must be greater than 0, got 0.0"):
        Wasserstein(clip=0.0)
    assert RECIPES["digits"].with_settings(objective="wasserstein_penalty").slope_penalty == 10.0


def history(*distances: float) -> list[dict[str, float]]:
    return [{"epoch": n, "d_loss": -d, "g_loss": 900.0, "distance": d} for n, d in enumerate(distances, 1)]


@pytest.mark.parametrize(
    ("distances", "names"),
    [
        ((3.0, 2.0, 1.0, 0.5, 0.2, 0.1), []),  # g_loss has no natural zero: 900 means nothing
        ((-1.0, -1.0), []),
        ((1.0, -1.0, -0.5, -0.1), ["weak critic"]),
        ((-1.0, -0.5, 0.1), []),
        ((9.0, 2.0, 1.0, 19.0, 18.5, 20.0), ["growing distance"]),
        ((9.0, 2.0, 1.0, 19.0, 17.0, 20.0), []),
        ((0.1, 0.5, 1.0, 5.0, 6.0), []),  # the critic learns
        ((-1.0, 0.5, 1.0, 5.0, 6.0), []),
    ],
)
def test_what_is_diagnosed(distances: tuple[float, ...], names: list[str]) -> None:
    assert list(WassersteinPenalty().diagnose(history(*distances))) == names
    expected = [name for name in names if name == "weak critic"]  # the scale of a clipped critic means nothing
    assert list(Wasserstein().diagnose(history(*distances))) == expected


RUN = {"generator_hidden": (8,), "discriminator_hidden": (8,), "batch_size": 8, "noise_size": 4, "progress": False}
SHORT = {"evaluation_samples": 20, "evaluate_every": 2, "samples_every": 9, "epochs": 2}


@pytest.mark.filterwarnings("ignore::pygan.health.HealthWarning")
@pytest.mark.parametrize("recipe", ["wgan", "wgan_gp", "relativistic"])
def test_the_recipes_train_resume_bit_for_bit_and_load(recipe: str, tmp_path) -> None:
    points = torch.rand(80, 1, 1, 2, generator=torch.Generator().manual_seed(0))

    def train(out: str, **settings: object) -> pygan.Run:
        return pygan.train(points, recipe=recipe, out=tmp_path / out, **{**RUN, **SHORT, "k": 2, **settings})

    straight, _ = train("straight", epochs=4), train("halves")
    halves = train("halves", epochs=4, resume=True)
    loaded = pygan.load(tmp_path / "halves")
    for run in (halves, loaded):
        for player in ("generator", "discriminator"):
            ours, theirs = (getattr(of, player).state_dict() for of in (run, straight))
            assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        assert run.history == straight.history
    assert loaded.recipe == straight.recipe
    assert loaded.game.scale == straight.game.scale
    assert set(straight.recipe.objective.statistics) < straight.history[0].keys()
    assert not {"d_real", "d_fake"} & straight.history[0].keys()
    assert straight.recipe.sigma == "refined"  # else the best epoch on points in the plane is chosen by a blur


def test_the_weak_critic_is_named_in_a_run(tmp_path) -> None:
    """A generator far too fast for its critic."""
    points = torch.rand(80, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    settings = {**RUN, **SHORT, "epochs": 4, "k": 1, "generator_lr": 0.05, "discriminator_lr": 1e-5}
    with pytest.warns(HealthWarning) as record:
        pygan.train(points, recipe="wgan_gp", out=tmp_path / "run", **settings)
    assert [str(w.message) for w in record if "critic does not keep up" in str(w.message)]
