import json
import math

import numpy as np
import pytest
import torch

from pygan.evaluate import (
    Classifier,
    classifier_distances,
    frechet_distance,
    kernel_distance,
    train_classifier,
)

save_file = pytest.importorskip("safetensors.torch").save_file


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (torch.from_numpy(found.images) * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(found.target).long()[order]


@pytest.fixture(scope="module")
def classifier(digits):
    images, labels = digits
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    trained = train_classifier(images[:1500], labels[:1500], name="digits", epochs=5, batch_size=25)
    torch.set_num_threads(before)
    return trained


def test_it_learns_real_digits(classifier, digits):
    images, labels = digits
    assert classifier.accuracy(images[1500:], labels[1500:]) >= 0.93
    assert classifier.accuracy(images[1500:], (labels[1500:] + 1) % 10) < 0.05
    as_floats = images[1500:].float() / 255
    assert torch.equal(classifier.predict(as_floats), classifier.predict(images[1500:]))


def test_everything_random_comes_from_the_seed(digits, one_thread):
    images, labels = digits[0][:200], digits[1][:200]
    state = torch.get_rng_state()
    first = train_classifier(images, labels, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again = train_classifier(images, labels, epochs=1).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.state_dict().items())
    other = train_classifier(images, labels, epochs=1, seed=1).state_dict()
    assert not torch.equal(other["output.weight"], again["output.weight"])


def test_features_and_pieces(classifier, digits, monkeypatch):
    images = digits[0][:25]
    features = classifier.features(images)
    assert features.shape == (25, 128)
    assert not features.requires_grad
    torch.testing.assert_close(classifier.output(features).argmax(1), classifier.predict(images))
    monkeypatch.setattr("pygan.evaluate.classifier._CHUNK", 10)
    torch.testing.assert_close(classifier.features(images), features)


def test_save_and_load(classifier, digits, tmp_path):
    path = tmp_path / "digits.safetensors"
    classifier.save(path)
    loaded = Classifier.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["digits.safetensors"]
    assert (loaded.name, loaded.classes, loaded.shape) == ("digits", 10, (1, 8, 8))
    assert not loaded.training
    assert torch.equal(loaded.features(digits[0]), classifier.features(digits[0]))


@pytest.mark.parametrize("content", ["no safetensors", "no description", "other weights", "another description"])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "file"
    description = {"shape": [1, 8, 8], "classes": 2, "name": "x"}
    weights = Classifier(**description).state_dict()
    if content == "no safetensors":
        path.write_bytes(b"weights")
    elif content == "no description":
        save_file(weights, path)
    elif content == "other weights":
        save_file({"x": torch.zeros(3)}, path, {"pygan_classifier": json.dumps(description)})
    else:
        save_file(weights, path, {"pygan_classifier": json.dumps({**description, "depth": 3})})
    with pytest.raises(ValueError, match=r"file: expected a file written by Classifier\.save"):
        Classifier.load(path)


REFUSED = [
    (ValueError, {"images": torch.zeros(5, 8, 8)}, r"images must have shape \[N, C, H >= 4, W >= 4\], got \[5, 8, 8\]"),
    (ValueError, {"images": torch.zeros(5, 1, 8, 3)}, r"images must have shape \[N, C, H >= 4, W >= 4\]"),
    (ValueError, {"labels": torch.zeros(4, dtype=torch.int64)}, r"labels must have shape \[5\], got \[4\]"),
    (TypeError, {"labels": torch.zeros(5)}, "labels must be integers, got torch.float32"),
    (ValueError, {"labels": torch.arange(5), "classes": 3}, r"labels must be in 0\.\.2, got 0\.\.4"),
    (ValueError, {"labels": torch.arange(5) - 1}, r"labels must be in 0\.\.3, got -1\.\.3"),
    (TypeError, {"images": torch.zeros(5, 1, 8, 8).double()}, "images must be uint8 or float32, got torch.float64"),
    (ValueError, {"images": torch.full((5, 1, 8, 8), -0.5)}, r"images must lie in \[0, 1\], got \[-0\.5, -0\.5\]"),
    (ValueError, {"epochs": 0}, "train_classifier: epochs must be at least 1, got 0"),
]


@pytest.mark.parametrize(("error", "given", "message"), REFUSED)
def test_refused(error, given, message):
    arguments = {"images": torch.zeros(5, 1, 8, 8), "labels": torch.zeros(5, dtype=torch.int64), **given}
    with pytest.raises(error, match=message):
        train_classifier(**arguments)


def test_images_of_another_kind_are_refused(classifier):
    with pytest.raises(ValueError, match=r"images must have shape \['n', 1, 8, 8\], got \[2, 1, 28, 28\]"):
        classifier.predict(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got \[-1, 1\]"):
        classifier.features(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got \[nan, nan\]"):
        classifier.predict(torch.full((2, 1, 8, 8), torch.nan))
    with pytest.raises(ValueError, match=r"labels must have shape \[2\], got \[3\]"):
        classifier.accuracy(torch.zeros(2, 1, 8, 8), torch.zeros(3))


def test_one_image_and_one_step_are_enough():
    trained = train_classifier(torch.zeros(1, 3, 5, 7), torch.zeros(1, dtype=torch.int64), classes=2, epochs=1)
    assert trained.predict(torch.zeros(2, 3, 5, 7)).shape == (2,)


def test_one_step_moves_the_weights(digits):
    """As far as one of Adam's may: the cycle of a single step would be at its end, with a rate of almost nothing."""
    images, labels = digits[0][:50], digits[1][:50]
    one, other = (
        train_classifier(images, labels, classes=10, epochs=1, batch_size=50, learning_rate=rate)
        for rate in (1e-2, 1e-9)
    )
    assert (one.output.weight - other.output.weight).abs().max() > 1e-4


def test_weights_that_are_not_finite_are_said(digits):
    with pytest.raises(ValueError, match="weights are not finite after training; choose a learning_rate below 1e"):
        train_classifier(digits[0][:200], digits[1][:200], classes=10, learning_rate=1e30)
    with pytest.raises(ValueError, match="learning_rate must be greater than 0 and finite, got inf"):
        train_classifier(digits[0][:200], digits[1][:200], classes=10, learning_rate=math.inf)


def test_the_users_defaults_do_not_matter(digits, tmp_path):
    trained = train_classifier(digits[0][:200], digits[1][:200], classes=10, epochs=1)
    trained.save(tmp_path / "x.safetensors")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            again = train_classifier(digits[0][:200], digits[1][:200], classes=10, epochs=1)
        loaded = Classifier.load(tmp_path / "x.safetensors")
        assert loaded.accuracy(*digits) == again.accuracy(*digits)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_name_what_is_not_finite(distance):
    x = torch.randn(5, 2)
    with pytest.raises(ValueError, match="y must be finite, got NaN or infinity"):
        distance(x, torch.full((5, 2), torch.nan))


# ---- distances -------------------------------------------------------------------------------------------------------


def with_moments(mean, covariance, n=400):
    """n points with exactly this mean and covariance."""
    x = torch.randn(n, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(len(mean)))
    x = x - x.mean(0)
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return torch.tensor(mean) + whitened @ torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64)).T


def test_frechet_between_gaussians_in_closed_form():
    x = with_moments([0.0, 1.0], [[4.0, 0.0], [0.0, 9.0]])
    y = with_moments([2.0, 1.0], [[1.0, 0.0], [0.0, 25.0]])
    assert frechet_distance(x, y) == pytest.approx(2**2 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(x, x + 3) == pytest.approx(2 * 3**2)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x[:, :1], y[:, :1]) == pytest.approx(2**2 + (2 - 1) ** 2)


def test_frechet_by_the_product_of_covariances():
    """trace (C_x C_y)^(1/2) is the sum of the roots of the eigenvalues of C_x C_y, which is not symmetric."""
    x = with_moments([0.0] * 3, [[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]])
    y = with_moments([0.1] * 3, [[2.0, -1.0, 0.3], [-1.0, 5.0, 0.0], [0.3, 0.0, 1.0]])
    c_x, c_y = np.cov(x.T), np.cov(y.T)
    expected = 3 * 0.1**2 + np.trace(c_x + c_y) - 2 * np.sqrt(np.linalg.eigvals(c_x @ c_y).real).sum()
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(y, x) == pytest.approx(expected)


def test_frechet_of_features_that_are_always_zero():
    """Covariances of ReLU features are singular."""
    x = torch.cat([torch.randn(5, 2), torch.zeros(5, 20)], 1)
    assert frechet_distance(x, 2 * x) == pytest.approx(float(x.var(0).sum() + x.mean(0).square().sum()), rel=1e-5)


def reference_kernel_distance(x, y):
    """Gretton et al. 2012, equation 3, pair by pair."""

    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def mean(a, b, distinct):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (distinct and i == j)]
        return sum(kernel(a[i], b[j]) for i, j in pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_kernel_distance_is_the_formula(monkeypatch):
    x = torch.randn(17, 5, dtype=torch.float64)
    y = torch.randn(12, 5, dtype=torch.float64) + 0.3
    expected = reference_kernel_distance(x.numpy(), y.numpy())
    assert kernel_distance(x, y) == pytest.approx(expected)
    monkeypatch.setattr("pygan.evaluate.distances._ROWS", 5)
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_kernel_distance_is_unbiased():
    draws = [kernel_distance(torch.randn(20, 4), torch.randn(30, 4)) for _ in range(300)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / math.sqrt(len(draws))
    assert min(draws) < 0


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_refuse(distance):
    with pytest.raises(ValueError, match=r"x must have shape \[n >= 2, d >= 1\], got \[1, 3\]"):
        distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"y must have shape \[m, 3\], got \[5, 4\]"):
        distance(torch.zeros(5, 3), torch.zeros(5, 4))
    with pytest.raises(TypeError, match="x must be float16"):
        distance(torch.zeros(5, 3, dtype=torch.uint8), torch.zeros(5, 3))


def test_distances_carry_the_classifiers_name(classifier, digits):
    images, _ = digits
    same = classifier_distances(classifier, images[:800], images[800:1600])
    assert set(same) == {"digits_classifier_frechet", "digits_classifier_kernel"}
    features = classifier.features(images[:800]), classifier.features(images[800:1600])
    assert same["digits_classifier_frechet"] == frechet_distance(*features)
    assert same["digits_classifier_kernel"] == kernel_distance(*features)
    noise = torch.randint(0, 256, (800, 1, 8, 8), dtype=torch.uint8)
    other = classifier_distances(classifier, images[:800], noise)
    assert all(other[name] > 10 * abs(same[name]) for name in same)
