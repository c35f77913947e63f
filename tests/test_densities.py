import math

import pytest
import torch

from pygan.data import Batch, mnist, stacked
from pygan.data.densities import (
    DENSITIES,
    LOADERS,
    GaussianMixture,
    Uniform,
    as_images,
    gaussian,
    gaussians8,
    gaussians25,
    mixture,
    swiss_roll,
    uniform,
)
from pygan.data.splits import Source, divide
from pygan.evaluate import two_sample_test

ALL = {**DENSITIES, "gaussian": gaussian, "mixture": lambda: mixture([-1.0, 3.0], 0.5), "uniform": uniform}
WITH_DENSITY = [name for name in ALL if name != "swiss_roll"]


def test_ring_of_eight():
    ring = gaussians8()
    assert ring.centres.shape == (8, 2)
    torch.testing.assert_close(ring.centres.norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))
    steps = (ring.centres - ring.centres.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 4 * math.sin(math.pi / 8)))
    assert ring.std == 0.02


def test_grid_of_twenty_five():
    grid = gaussians25()
    expected = {(x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert {tuple(centre) for centre in grid.centres.tolist()} == expected
    assert grid.std == 0.05


@pytest.mark.parametrize("name", ALL)
def test_a_sample_comes_from_its_seed_alone(name):
    density = ALL[name]()
    state = torch.get_rng_state()
    first = density.sample(50, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.float32
    assert first.shape == (50, density.centres.shape[1])
    torch.manual_seed(9)
    assert torch.equal(density.sample(50, seed=3), first)
    assert not torch.equal(density.sample(50, seed=4), first)


@pytest.mark.parametrize("density", [gaussians8(), gaussians25(), mixture([-1.0, 3.0], 0.1)], ids=["8", "25", "1d"])
def test_points_lie_around_the_mode_they_are_labelled_with(density):
    x, modes = density.sample_with_modes(20_000, seed=0)
    count, d = density.centres.shape
    assert torch.equal(torch.cdist(x.double(), density.centres).argmin(1), modes)
    expected = len(x) / count
    assert bool(((torch.bincount(modes, minlength=count) - expected).abs() < 5 * math.sqrt(expected)).all())
    offset = (x.double() - density.centres[modes]) / density.std
    assert offset.mean(0).abs().max() < 5 / math.sqrt(len(x))
    torch.testing.assert_close(offset.T.cov().reshape(d, d), torch.eye(d).double(), rtol=0, atol=5 / math.sqrt(len(x)))


@pytest.mark.parametrize("density", [gaussians25(), mixture([-1.0, 3.0], 0.5)], ids=["25", "1d"])
def test_log_prob_is_that_of_the_mixture(density):
    x = density.sample(200, seed=1)
    components = torch.distributions.Independent(torch.distributions.Normal(density.centres, density.std), 1)
    weights = torch.distributions.Categorical(torch.ones(len(density.centres), dtype=torch.float64))
    expected = torch.distributions.MixtureSameFamily(weights, components).log_prob(x.double())
    torch.testing.assert_close(density.log_prob(x), expected)


@pytest.mark.parametrize("density", [gaussian(1.0, 0.3), mixture([-1.0, 3.0], 0.5), uniform(-1.0, 3.0)])
def test_one_dimensional_densities_integrate_to_one(density):
    edges = torch.linspace(density.low, density.high, 4001, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1])[:, None] / 2
    integral = density.log_prob(middles).exp().sum() * (edges[1] - edges[0])
    torch.testing.assert_close(integral, torch.tensor(1.0, dtype=torch.float64))


def test_uniform_is_zero_outside():
    log_prob = uniform(1.0, 3.0).log_prob(torch.tensor([[0.9], [1.0], [2.5], [3.1]]))
    assert log_prob.tolist() == [-math.inf, -math.log(2), -math.log(2), -math.inf]


def test_the_swiss_roll_is_that_of_scikit_learn():
    from sklearn.datasets import make_swiss_roll

    theirs = torch.from_numpy(make_swiss_roll(1000, noise=0.25, random_state=0)[0][:, [0, 2]]).float()
    assert two_sample_test(theirs, swiss_roll().sample(1000, seed=0)).accuracy < 0.55
    radius = swiss_roll().sample(20_000, seed=0).norm(dim=1)
    parts = torch.tensor([0.02, 0.25, 0.5, 0.75, 0.98])
    torch.testing.assert_close(radius.quantile(parts), math.pi * (1.5 + 3 * parts), rtol=0, atol=0.2)
    assert two_sample_test(theirs, 1.1 * swiss_roll().sample(1000, seed=0)).accuracy > 0.6


@pytest.mark.parametrize("name", ALL)
def test_the_unit_box(name):
    density = ALL[name]()
    unit = density.in_unit_box()
    assert (unit.low, unit.high) == (0, 1)
    x, u = density.sample(1000, seed=0), unit.sample(1000, seed=0)
    assert 0 <= u.min() <= u.max() <= 1
    torch.testing.assert_close(density.to_unit(x), u, rtol=0, atol=1e-6)
    torch.testing.assert_close(density.from_unit(density.to_unit(x)), x, rtol=1e-5, atol=1e-5)
    if name in WITH_DENSITY:
        expected = density.log_prob(density.from_unit(u.double())) + x.shape[1] * math.log(density.high - density.low)
        torch.testing.assert_close(unit.log_prob(u), expected)
        torch.testing.assert_close(unit.centres, density.to_unit(density.centres))


@pytest.mark.parametrize("name", ALL)
def test_as_images(name):
    density = ALL[name]()
    batch = as_images(density, 100, seed=2)
    images = batch.images
    x, modes = density.sample_with_modes(100, seed=2)
    assert images.dtype == torch.float32
    assert images.shape == (100, 1, 1, x.shape[1])
    torch.testing.assert_close(images.flatten(1), density.to_unit(x), rtol=0, atol=1e-6)
    assert batch.labels is None if len(density.centres) == 0 else torch.equal(batch.labels, modes)
    outside = GaussianMixture(torch.zeros(1, 2).double(), 1.0, -0.5, 0.5)
    assert as_images(outside, 100, seed=0).images.aminmax() == (0, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture(torch.zeros(3), 1.0, 0, 1), r"centres must have shape \[K >= 1, d\], got \[3\]"),
        (lambda: GaussianMixture(torch.zeros(1, 1), 0.0, 0, 1), "std must be positive and finite, got 0.0"),
        (lambda: GaussianMixture(torch.zeros(1, 1), 1.0, 1, 1), "low must be below high, got 1 and 1"),
        (lambda: uniform(2.0, 1.0), "begin must be below end, got 2.0 and 1.0"),
        (lambda: Uniform(0.0, 1.0, 1.0, 0.0), "low must be below high"),
        (lambda: gaussians8().log_prob(torch.zeros(4, 3)), r"x must have shape \[n, 2\], got \[4, 3\]"),
        (lambda: uniform().log_prob(torch.zeros(4)), r"x must have shape \[n, 1\], got \[4\]"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", LOADERS)
def test_the_loaders(name):
    splits = divide(LOADERS[name](None), seed=0)
    assert splits.name == name
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (50_000, 10_000, 10_000)
    density = DENSITIES[name]()
    assert splits.shape == (1, 1, density.centres.shape[1])
    if len(density.centres) == 0:
        assert splits.classes is None
        assert splits.train.labels is None
    else:
        assert splits.classes == tuple(map(str, range(len(density.centres))))
        assert splits.test.labels.unique().tolist() == list(range(len(density.centres)))
    assert not torch.equal(splits.valid.images, splits.test.images)
    assert not torch.equal(splits.valid.images, splits.train.images[:10_000])


DIGITS = Batch(torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 4, 4), torch.arange(10))


def test_stacked_digits():
    state = torch.get_rng_state()
    batch = stacked.stack_digits(DIGITS, 5000, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert batch.images.shape == (5000, 3, 4, 4)
    assert batch.images.dtype == torch.uint8
    a, b, c = batch.images[:, :, 0, 0].long().unbind(1)
    assert torch.equal(batch.labels, 100 * a + 10 * b + c)
    assert len(batch.labels.unique()) > 985  # 1000 (1 - exp(-5)) = 993 of the 1,000 modes on average
    assert torch.equal(stacked.stack_digits(DIGITS, 5000, seed=0).images, batch.images)
    assert not torch.equal(stacked.stack_digits(DIGITS, 5000, seed=1).images, batch.images)


def test_stacked_mnist_keeps_the_splits_apart(monkeypatch):
    """Here the training split has the digits 0 to 3, the validation split 4 to 6, the test split 7 to 9."""
    parts = [DIGITS[torch.tensor(digits).repeat(50)] for digits in ([0, 1, 2, 3], [4, 5, 6], [7, 8, 9])]
    source = Source("mnist", parts[0], "MNIST", parts[1], parts[2], classes=tuple(map(str, range(10))))
    monkeypatch.setattr(mnist, "load", lambda root: source)
    splits = divide(stacked.load(), seed=0)
    for split, part, digits in zip(
        (splits.train, splits.valid, splits.test), parts, ("0123", "456", "789"), strict=True
    ):
        assert len(split) == len(part)
        assert split.images.shape[1:] == (3, 4, 4)
        assert {digit for label in split.labels for digit in splits.classes[label]} == set(digits)


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        (Batch(torch.zeros(2, 3, 4, 4)), r"images \[N >= 1, 1, H, W\], got \[2, 3, 4, 4\]"),
        (Batch(torch.zeros(2, 1, 4, 4)), r"labels in 0\.\.9, got none"),
        (Batch(torch.zeros(2, 1, 4, 4), torch.tensor([0, 10])), r"labels in 0\.\.9, got 0\.\.10"),
    ],
)
def test_stacked_digits_refused(digits, message):
    with pytest.raises(ValueError, match=f"stack_digits: digits must have {message}"):
        stacked.stack_digits(digits, 5, seed=0)
