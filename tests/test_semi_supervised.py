"""Few labels: the loss of K + 1 classes, the draw of labels, a run that resumes, and one that learns."""

import math

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy

import pygan
from pygan import ops, semi_supervised
from pygan.health import NonFiniteError
from pygan.learning import settings_from
from pygan.semi_supervised import ClassDiscriminator, NormalisedLinear, SemiSupervisedSettings

TINY = {"epochs": 2, "batch_size": 20, "hidden": (16, 8), "generator_hidden": (8,), "progress": False, "threads": 1}


def images(n: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes of 4x4 images that the first and the last rows tell apart."""
    labels = torch.arange(n) % 2
    pixels = torch.randint(100, (n, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[labels == 0, :, :2] += 150
    pixels[labels == 1, :, 2:] += 150
    return pixels, labels


def test_the_loss_is_that_of_k_plus_1_classes():
    """A softmax over K + 1 logits, the last fixed at 0, gives the same two terms as logsumexp over K of them."""
    real, fake = torch.randn(7, 3, dtype=torch.float64) * 5, torch.randn(6, 3, dtype=torch.float64) * 5
    with_last = [torch.cat([logits, torch.zeros(len(logits), 1)], 1).log_softmax(1) for logits in (real, fake)]
    not_generated = with_last[0][:, :3].logsumexp(1).mean()
    expected = -not_generated - with_last[1][:, 3].mean()
    torch.testing.assert_close(ops.discriminator_loss(real.logsumexp(1), fake.logsumexp(1)), expected)


def test_the_update_follows_the_losses(tmp_path):
    """One update of both players moves all weights by the gradients of the losses of Salimans et al."""
    splits = pygan.data.load(images())
    settings = SemiSupervisedSettings(hidden=(16, 8), generator_hidden=(8,), batch_size=20)
    learner = semi_supervised._Learner(splits, torch.arange(8), settings, 0, torch.device("cpu"))
    net, generator = learner.discriminator, learner.generator
    net.input_noise = net.hidden_noise = 0.0
    seen: dict[str, list[torch.Tensor]] = {}
    for name, optimizer in zip(("d", "g"), learner.optimizers, strict=True):
        optimizer.step = lambda gradients, *_, name=name: seen.update({name: list(gradients)})
    torch.manual_seed(1)
    learner.update(0)

    torch.manual_seed(1)
    rows = torch.randint(8, (25,))
    known, labels = learner.labelled.images[rows].float() / 255, learner.labelled.labels[rows]
    learner.batches.position = 0
    real = learner.batches().images
    fake = generator(torch.empty(20, 100).uniform_(-1, 1))
    z_real, z_fake = net(real).exp().sum(1), net(fake).exp().sum(1)
    d_loss = cross_entropy(net(known), labels) - ((z_real / (z_real + 1)).log().mean() - (z_fake + 1).log().mean()) / 2
    g_loss = (net.features(real).mean(0) - net.features(fake).mean(0)).square().mean()
    trained = [[p for p in player.parameters() if p.requires_grad] for player in (net, generator)]
    torch.testing.assert_close(seen["d"], list(torch.autograd.grad(d_loss, trained[0], retain_graph=True)))
    torch.testing.assert_close(seen["g"], list(torch.autograd.grad(g_loss, trained[1])))


def test_both_rates_stay_for_half_of_the_updates_and_fall_to_zero():
    """2 epochs of 3 updates: the generator's rate falls with the discriminator's, in proportion."""
    splits = pygan.data.load(images())
    settings = SemiSupervisedSettings(
        epochs=2, hidden=(8,), generator_hidden=(8,), batch_size=20, learning_rate=0.1, generator_learning_rate=0.4
    )
    learner = semi_supervised._Learner(splits, torch.arange(8), settings, 0, torch.device("cpu"))
    assert learner.batches.per_epoch == 3
    seen: list[float] = []
    for optimizer in learner.optimizers:
        optimizer.step = lambda _, rate, *__: seen.append(rate)
    for number in range(6):
        learner.update(number)
    shares = [1, 1, 1, 1, 2 / 3, 1 / 3]
    assert seen[0::2] == pytest.approx([0.1 * share for share in shares])
    assert seen[1::2] == pytest.approx([0.4 * share for share in shares])


def test_layers_are_normalised():
    layer = NormalisedLinear(5, 3)
    with torch.no_grad():
        layer.gain.copy_(torch.tensor([1.0, 2.0, 3.0]))
    effective = layer(torch.eye(5)) - layer.bias
    torch.testing.assert_close(effective.norm(dim=0), torch.tensor([1.0, 2.0, 3.0]))

    net = ClassDiscriminator((1, 4, 4), 2, (16,), 0.0, 0.0)
    pixels = torch.rand(50, 1, 4, 4)
    net.normalise(pixels)
    deviation, mean = torch.std_mean(net.hidden[0](pixels.flatten(1)), 0)
    torch.testing.assert_close((deviation, mean), (torch.ones(16), torch.zeros(16)), atol=1e-3, rtol=0)


def test_it_learns_from_few_labels(tmp_path):
    model = semi_supervised.train(images(200), 1, out=tmp_path / "run", **{**TINY, "epochs": 10})
    assert model.error <= 0.1
    assert len(model.labelled) == 2
    pixels, labels = images(200)
    assert float((model.predict(pixels) != labels).float().mean()) <= 0.1
    assert model.history[-1].keys() >= {"supervised_loss", "d_loss", "g_loss", "valid_error"}


def test_a_run_resumes_bit_for_bit(tmp_path):
    whole = semi_supervised.train(images(), 3, out=tmp_path / "whole", **TINY)
    with tiny.killed_after(semi_supervised._Learner, 3):
        semi_supervised.train(images(), 3, out=tmp_path / "cut", **TINY)
    again = semi_supervised.train(images(), 3, out=tmp_path / "cut", resume=True, **TINY)
    for ours, theirs in zip(again.discriminator.parameters(), whole.discriminator.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    finished = semi_supervised.train(images(), 3, out=tmp_path / "cut", resume=True, **TINY)
    assert (finished.error, finished.history) == (again.error, whole.history)


def test_labels_are_drawn_by_class():
    splits = pygan.data.load(images())
    first, other = (semi_supervised._draw_labels(splits, 4, seed) for seed in (0, 1))
    assert splits.train.labels[first].bincount().tolist() == [4, 4]
    assert len(first.unique()) == 8
    assert not torch.equal(first, other)


def test_draws_have_a_spread(tmp_path):
    short = {**TINY, "epochs": 1, "supervised_only": True}
    draws = semi_supervised.repeat(images(), 2, 1, out=tmp_path, seed=5, **short)
    one = semi_supervised.train(images(), 1, out=tmp_path / "6", seed=6, resume=True, **short)
    assert draws.errors[1] == one.error
    assert one.generator is None
    assert draws.mean == pytest.approx(sum(draws.errors) / 2)
    assert draws.deviation == pytest.approx(abs(draws.errors[0] - draws.errors[1]) / math.sqrt(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels_per_class": 0}, "labels_per_class must be at least 1, got 0"),
        (
            {"labels_per_class": 99},
            r"at most \d+, the number of training images of class '\d'",
        ),
        ({"epoch": 3}, "unknown setting 'epoch'.*epochs"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, r"seed must be at most 2\*\*63 - 1"),
        ({"labels_per_class": 1.5}, "labels_per_class must be int, got 1.5"),
        ({"labels_per_class": [1, 2]}, "labels_per_class must be int"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0"),
        ({"data": (images()[0], torch.zeros(80, dtype=torch.int64))}, "data must have at least 2 classes, got 1"),
        ({"data": images()[0]}, "data must have labels"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        semi_supervised.train(**{"data": images(), "out": tmp_path / "run", **TINY, **arguments})
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    semi_supervised.train(images(), 1, out=tmp_path, **{**TINY, "epochs": 1, "supervised_only": True})
    with pytest.raises(ValueError, match=r"epochs was 1 .* got 2; to resume, it must be the same"):
        semi_supervised.train(images(), 1, out=tmp_path, resume=True, **TINY)
    with pytest.raises(ValueError, match=r"holds what pygan.semi_supervised has trained, and no game"):
        pygan.load(tmp_path)
    with pytest.raises(ValueError, match=r"holds what pygan.semi_supervised has trained, and no game"):
        pygan.train(images(), out=tmp_path, resume=True)


def test_other_labels_are_refused_by_name(tmp_path):
    pixels, labels = images()
    same = "data must be the same as at the start of the run in .*:"
    short = {**TINY, "epochs": 1, "supervised_only": True, "out": tmp_path}
    semi_supervised.train((pixels, labels), 1, **short)
    with pytest.raises(ValueError, match=rf"{same} other labels in train, valid, test$"):
        semi_supervised.train((pixels, 1 - labels), 1, resume=True, **short)
    with pytest.raises(ValueError, match=rf"{same} other images in train, valid, test$"):
        semi_supervised.train((255 - pixels, labels), 1, resume=True, **short)
    config = tmp_path / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "_labels = " not in line))
    semi_supervised.train((pixels, labels), 1, resume=True, **short)  # version 0.1 kept no checksums of labels


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_without_labels_is_refused_before_training(tmp_path, split):
    for folder in ("train/a", "train/b", f"{split}/a", f"{split}/c"):
        for number, image in enumerate(images(6)[0]):
            pygan.pictures.save_png(tmp_path / "data" / folder / f"{number}.png", image[None], enlarge=False)
    with pytest.raises(ValueError, match=f"the {split} split must have labels, of the classes of the training split"):
        semi_supervised.train(tmp_path / "data", 1, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_the_rate_falls_at_the_end():
    settings = settings_from(SemiSupervisedSettings, {"epochs": 4, "learning_rate": 1.0}, {})
    assert [settings.rate(update, 2) for update in (0, 4, 6, 7)] == [1.0, 1.0, 0.5, 0.25]


def test_the_generator_starts_at_the_mean_image():
    mean = torch.rand(1, 4, 4) * 0.8 + 0.1
    samples = semi_supervised.Generator((1, 4, 4), (64,), mean)(torch.rand(500, 100) * 2 - 1)
    assert (samples.mean(0) - mean).abs().max() < 0.1


def test_advice_names_the_settings_that_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(semi_supervised, "cross_entropy", lambda *_: torch.tensor(math.nan, requires_grad=True))
    monkeypatch.setattr(semi_supervised, "grad", lambda loss, of, **_: [torch.full_like(p, math.nan) for p in of])
    advice = "It usually helps to lower learning_rate and generator_learning_rate"
    with pytest.raises(NonFiniteError, match=advice):
        semi_supervised.train(images(), 1, out=tmp_path / "run", **TINY)
