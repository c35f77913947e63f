"""A discriminator's hidden layers as features, and the linear classifier that says what they are worth."""

import pytest
import tiny
import torch
from torch import nn
from torch.nn.functional import max_pool2d

from pygan.evaluate import few_label_curve, few_label_curves, few_labels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    labels = torch.arange(100) % 2
    pixels = torch.randint(100, (100, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[labels == 0, :, :2] += 150
    pixels[labels == 1, :, 2:] += 150
    return tiny.run(tmp_path_factory.mktemp("run") / "run", (pixels, labels), epochs=1)


def test_features_are_the_hidden_layers(run):
    images = run.splits.test.images
    first = run.discriminator.hidden[0](images.float().flatten(1) / 255)
    second = run.discriminator.hidden[1](first)
    torch.testing.assert_close(run.features(images), torch.cat([first, second], 1).detach())
    torch.testing.assert_close(run.features(images, layers=[-1]), second.detach())
    assert torch.equal(run.features(images, [1, 0])[:, :6], run.features(images, [-1]))


def test_maps_are_pooled(run):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 3))

        def forward(self, images):
            return self.hidden(images).flatten(1).sum(1)

    run.game.discriminator, before = Own(), run.game.discriminator
    images = torch.rand(5, 1, 4, 4)
    maps = run.discriminator.hidden[0](images).detach()
    features = run.features(images, pool=2)
    run.game.discriminator = before
    torch.testing.assert_close(features[:, :12], max_pool2d(maps, 2).flatten(1))
    assert features.shape == (5, 3 * 4 + 2 * 4)


@pytest.mark.parametrize("model", ["mlp", "dcgan", "conditional_mlp"])
def test_every_model_has_features(model, tmp_path):
    pixels = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8)
    data = (pixels, torch.arange(20) % 2) if model == "conditional_mlp" else pixels
    settings = {"recipe": None, "model": model, "epochs": 1, "batch_size": 8, "evaluation_samples": 10}
    sizes = {"dcgan": {"channels": 2, "pixels": "signed"}, "mlp": {"pixels": "standard"}, "conditional_mlp": {}}[model]
    trained = tiny.train(
        data, out=tmp_path, progress=False, conditional=model == "conditional_mlp", **settings, **sizes
    )
    features = trained.features(pixels)
    assert features.shape == (20, {"dcgan": 2 * 16, "mlp": 2 * 240, "conditional_mlp": 240}[model])
    assert features.std(0).max() > 0


def test_what_cannot_be_is_refused(run):
    images = run.splits.test.images
    with pytest.raises(ValueError, match="layers must name at least one layer"):
        run.features(images, layers=[])
    with pytest.raises(ValueError, match=r"layers must be in -2\.\.1, got 2"):
        run.features(images, layers=[2])
    with pytest.raises(ValueError, match="pool must be at least 1, got 0"):
        run.features(images, pool=0)
    with pytest.raises(TypeError, match=r"layers must be a tuple of ints, got \[1\.5\]"):
        run.features(images, layers=[1.5])
    run.game.discriminator, before = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), run.game.discriminator
    with pytest.raises(ValueError, match="attribute `hidden`, and Sequential has none"):
        run.features(images)
    run.game.discriminator = before
    points, labels = torch.rand(20, 3), torch.arange(20) % 2
    with pytest.raises(ValueError, match=r"per_class must be in 5\.\.10, .* got 11"):
        few_label_curve(points, labels, points, labels, per_class=[11])


def test_the_curve_rises_with_the_labels():
    """Two classes that differ in one of 30 numbers: few labels hardly tell, many do; meaningless ones never do."""
    random = torch.Generator().manual_seed(0)
    points, labels = torch.randn(1200, 30, generator=random), torch.arange(1200) % 2
    points[:, 0] += 3 * labels
    curve = few_label_curve(points[:800], labels[:800], points[800:], labels[800:], per_class=(5, 300))
    assert [point.per_class for point in curve] == [5, 300]
    assert curve[1].accuracy == pytest.approx(0.933, abs=0.03)  # 1.5 standard deviations on either side
    assert curve[0].accuracy < curve[1].accuracy - 0.05
    assert curve[0].deviation > curve[1].deviation
    mixed = torch.randint(2, (1200,), generator=random)
    (point,) = few_label_curve(points[:800, 1:], mixed[:800], points[800:, 1:], mixed[800:], per_class=(300,), draws=1)
    assert abs(point.accuracy - 0.5) < 0.1
    assert point.deviation == 0


def test_features_that_are_constant_up_to_rounding_are_none():
    random = torch.Generator().manual_seed(0)
    points, labels = torch.randn(600, 20, generator=random), torch.arange(600) % 2
    points[:, 0] += 3 * labels
    constant = 20 * (1 + torch.finfo(torch.float32).eps * torch.randint(-1, 2, (600, 100), generator=random))
    constant[::97] += 0.3 * torch.rand(7, 100, generator=random)
    accuracies = []
    for features in (points, torch.cat([points, constant], 1)):
        (point,) = few_label_curve(features[400:], labels[400:], features[:400], labels[:400], (10,), draws=5)
        accuracies.append(point.accuracy)
    assert accuracies[1] > accuracies[0] - 0.03


def test_features_of_half_precision_and_with_gradients():
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 2
    points[:, 0] += 5 * labels
    for features in (points.bfloat16(), points.clone().requires_grad_()):
        assert few_label_curve(features, labels, features, labels, (10,), draws=1)[0].accuracy > 0.9
    with pytest.raises(ValueError, match="few_label_curve: test_features must be finite"):
        few_label_curve(points, labels, points * torch.nan, labels, (10,))


def test_curves_of_a_run(run, monkeypatch):
    assert few_label_curves(run, per_class=(5,), draws=2)["pixels"][0].accuracy == 1.0

    given = []
    monkeypatch.setattr(few_labels, "few_label_curve", lambda *arguments: given.append(arguments))
    assert list(few_label_curves(run, per_class=(5,), draws=3)) == ["pixels", "random weights", "discriminator"]
    assert [len(arguments[0]) for arguments in given] == [2 * 3 * 5] * 3  # so that the draws of two times 5 differ
    images = run.splits.test.images
    pixels, random, trained = (arguments[2] for arguments in given)
    torch.testing.assert_close(pixels, images.flatten(1) / 255)
    assert torch.equal(trained, run.features(images))
    assert random.shape == trained.shape
    assert not torch.allclose(random, trained)


def test_the_numbers_of_labels_are_those_that_the_data_have():
    """By default as many of 10, 100 and 1000 as each class has; the bound in a message is that of the data."""
    labels = torch.arange(60) % 2
    points = labels[:, None] + torch.randn(60, 1, generator=torch.Generator().manual_seed(0)) / 10
    assert [point.per_class for point in few_label_curve(points, labels, points, labels, draws=1)] == [10]
    for wrong, message in (
        ({"per_class": (31,)}, r"per_class must be in 5\.\.30"),
        ({"per_class": (5.5,)}, "per_class must be a tuple of ints"),
        ({"draws": 1.5}, "draws must be int"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"labels": labels.tolist()}, "labels must be a tensor, got list"),
        ({"labels": torch.zeros(60, dtype=torch.int64)}, "labels must have at least 2 classes, got 1"),
    ):
        given = {"features": points, "labels": labels, "test_features": points, "test_labels": labels}
        with pytest.raises((TypeError, ValueError), match=message):
            few_label_curve(**{**given, **wrong})
