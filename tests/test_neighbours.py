"""Checked against the formulas of the papers, written out over all pairs in numpy, float64."""

import sys

import numpy as np
import pytest
import torch

from pygan.evaluate import density_coverage, nearest, precision_recall, two_sample_test

MODULE = sys.modules["pygan.evaluate.neighbours"]


def all_distances(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))


def radii(points, k):
    """Distance of each point from its k-th nearest neighbour among the others."""
    distances = all_distances(points, points)
    return np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(distances)])


def reference_precision(real, fake, k):
    """Kynkaanniemi et al. 2019: the share of the fake points that lie in at least one ball of the real points."""
    return (all_distances(fake, real) <= radii(real, k)).any(1).mean()


def reference_density_coverage(real, fake, k):
    """Naeem et al. 2020, section 3."""
    inside = all_distances(real, fake) <= radii(real, k)[:, None]
    return inside.sum() / (k * len(fake)), inside.any(1).mean()


def reference_two_sample(real, fake):
    """Leave-one-out accuracy of the 1-nearest-neighbour classifier on the pooled points."""
    pooled = np.concatenate([real, fake])
    labels = np.arange(len(pooled)) < len(real)
    distances = all_distances(pooled, pooled)
    np.fill_diagonal(distances, np.inf)
    return (labels[distances.argmin(1)] == labels).mean()


def two_sets(n, m, d, shift=0.5, spread=0.8):
    generator = torch.Generator().manual_seed(n + m + d)
    return torch.randn(n, d, generator=generator), shift + spread * torch.randn(m, d, generator=generator)


SETS = {
    "plane": two_sets(60, 60, 2),
    "more fake": two_sets(30, 70, 3),
    "more real": two_sets(70, 30, 40, shift=0.1, spread=0.9),
    "many values": two_sets(40, 50, 200, shift=0.05, spread=0.95),
    "far from the origin": tuple(x + 1000 for x in two_sets(40, 40, 40, shift=0.1)),
    "float64": tuple(x.double() for x in two_sets(40, 40, 20, shift=0.1)),
}


@pytest.fixture(params=[1 << 22, 100], ids=["one block", "many blocks"])
def _block(request, monkeypatch):
    monkeypatch.setattr(MODULE, "_BLOCK", request.param)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", SETS)
def test_equal_to_the_formulas(name, k):
    real, fake = SETS[name]
    found = precision_recall(real, fake, k)
    assert found.precision == pytest.approx(reference_precision(real, fake, k), abs=1e-12)
    assert found.recall == pytest.approx(reference_precision(fake, real, k), abs=1e-12)
    assert found.precision > 0
    assert found.precision + found.recall < 2
    found = density_coverage(real, fake, k)
    density, coverage = reference_density_coverage(real, fake, k)
    assert found.density == pytest.approx(density, abs=1e-12)
    assert found.coverage == pytest.approx(coverage, abs=1e-12)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("d", [2, 40])
def test_nearest(d):
    points, references = two_sets(50, 60, d)
    distances, indices = nearest(points, references, 4)
    expected = all_distances(points, references)
    np.testing.assert_allclose(distances, np.sort(expected, 1)[:, :4], rtol=1e-9)
    assert torch.equal(indices, torch.from_numpy(expected.argsort(1)[:, :4]))


def test_nearest_takes_images_and_finds_copies():
    train = torch.rand(30, 3, 8, 8)
    distances, indices = nearest(train[[4, 7]], train)
    assert indices.tolist() == [[4], [7]]
    assert distances.tolist() == [[0], [0]]  # exactly, though inner products leave rounding errors


def test_nearest_far_from_the_origin():
    points, references = (x.double() for x in two_sets(50, 60, 40))
    expected, _ = nearest(points, references, 4)
    np.testing.assert_allclose(nearest(points + 2**24, references + 2**24, 4)[0], expected, rtol=1e-6)


def test_the_largest_k():
    """The ball around a point reaches to the farthest other point of its set, never beyond."""
    real, fake = two_sets(20, 20, 3, shift=2)
    found = precision_recall(real, fake, 19)
    assert found.precision == reference_precision(real, fake, 19)
    assert density_coverage(real, fake, 19).density == reference_density_coverage(real, fake, 19)[0]


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("d", [2, 40])
def test_two_sample_test_is_the_classifier(d):
    real, fake = two_sets(60, 60, d, shift=0.1)
    found = two_sample_test(real, fake)
    assert found.accuracy == pytest.approx(reference_two_sample(real, fake), abs=1e-12)
    assert found.accuracy == pytest.approx((found.real + found.fake) / 2)
    assert found.real != found.fake


def test_one_distribution():
    """What the papers derive for two samples of the same distribution: density 1, coverage, and chance."""
    real, fake = two_sets(1000, 1500, 4, shift=0, spread=1)
    found = density_coverage(real, fake, 5)
    assert found.density == pytest.approx(1, abs=0.1)
    n, m = 1000, 1500
    assert found.ideal_coverage == pytest.approx(1 - np.prod([(n - i) / (n + m - i) for i in range(1, 6)]))
    assert found.coverage == pytest.approx(found.ideal_coverage, abs=0.02)
    assert two_sample_test(real, fake[:1000]).accuracy == pytest.approx(0.5, abs=0.05)


def test_far_apart():
    real, fake = two_sets(30, 30, 4, shift=1000)
    found = precision_recall(real, fake)
    assert (found.precision, found.recall) == (0, 0)
    found = density_coverage(real, fake)
    assert (found.density, found.coverage) == (0, 0)
    assert two_sample_test(real, fake).accuracy == 1


@pytest.mark.parametrize("d", [4, 40])
def test_copies_of_the_data(d):
    real = two_sets(50, 1, d)[0]
    found = precision_recall(real, real.clone())
    assert (found.precision, found.recall) == (1, 1)
    found = two_sample_test(real, real.clone())
    assert (found.accuracy, found.real, found.fake) == (0, 0, 0)
    found = two_sample_test(real[[0, 0]], real[[0, 0]])  # a tie goes to the other set
    assert (found.accuracy, found.real, found.fake) == (0, 0, 0)


@pytest.mark.parametrize("d", [4, 40])
def test_a_collapsed_generator(d):
    """All samples are one real point: each is realistic, and one real point is recalled, by balls of radius 0."""
    real = two_sets(50, 1, d)[0]
    found = precision_recall(real, real[:1].expand(20, d))
    assert found.precision == 1
    assert found.recall == 1 / 50
    assert density_coverage(real, real[:1].expand(20, d)).coverage < 0.5


def test_the_users_precision_switches_change_nothing():
    real, fake = two_sets(50, 50, 200, shift=0.05)
    before = torch.get_float32_matmul_precision()
    exact = density_coverage(real, fake)
    torch.set_float32_matmul_precision("medium")
    try:
        assert density_coverage(real, fake) == exact
    finally:
        torch.set_float32_matmul_precision(before)


REFUSED = [
    (ValueError, r"real must have shape \[n >= 1, \.\.\.\], got \[5\]", torch.zeros(5), torch.zeros(5, 2)),
    (ValueError, r"fake must have shape \[m, 2\] when flattened, got \[9, 3\]", torch.rand(9, 2), torch.rand(9, 3)),
    (ValueError, "real must be finite", torch.full((9, 2), torch.nan), torch.rand(9, 2)),
    (ValueError, "fake must be finite", torch.rand(9, 2), torch.full((9, 2), torch.inf)),
    (TypeError, "fake must be float16, .* got torch.uint8", torch.rand(9, 2), torch.zeros(9, 2, dtype=torch.uint8)),
    (TypeError, "real must be a tensor, got list", [[1.0]], torch.rand(9, 2)),
]


@pytest.mark.parametrize("function", [precision_recall, density_coverage, two_sample_test])
@pytest.mark.parametrize(("error", "message", "real", "fake"), REFUSED)
def test_refused(function, error, message, real, fake):
    with pytest.raises(error, match=f"{function.__name__}: {message}"):
        function(real, fake)


def test_refused_numbers():
    real, fake = torch.rand(4, 2), torch.rand(6, 2)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.3, the number of other points of real, got 4"):
        precision_recall(real, fake, 4)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.3, the number of other points of real, got 0"):
        density_coverage(real, fake, 0)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.6, the number of references, got 7"):
        nearest(real, fake, 7)
    with pytest.raises(ValueError, match="real and fake must have as many points, got 4 and 6"):
        two_sample_test(real, fake)
