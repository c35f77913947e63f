"""Learned inference: an encoder that inverts a fixed generator, and gradient steps from there."""

import dataclasses

import pytest
import tiny
import torch

from pygan import inference
from pygan.evaluate import nearest_neighbour_accuracy
from pygan.noise import clamp_noise, draw_noise

SHORT = {
    "input_noise": 0.0,
    "reconstruction": 0.0,
    "epochs": 2,
    "updates_per_epoch": 10,
    "batch_size": 16,
    "hidden": (16,),
    "progress": False,
    "threads": 1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose generator is steep enough to be inverted."""
    trained = tiny.run(tmp_path_factory.mktemp("run") / "run", epochs=1, noise_size=2)
    with torch.no_grad():
        for parameter in trained.generator.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(len(parameter)))
    return trained


def test_the_encoder_finds_the_noise(run, tmp_path):
    before = [parameter.clone() for parameter in run.generator.parameters()]
    encoder = inference.train(run, out=tmp_path, **{**SHORT, "epochs": 10, "updates_per_epoch": 100, "hidden": (64,)})
    assert encoder.history[-1]["z_error"] < 0.3 < encoder.history[0]["z_error"]
    assert all(map(torch.equal, before, run.generator.parameters()))  # it is fixed

    noise = run.noise(200, seed=5)
    images = run.generate(noise)
    found = encoder.encode(images)
    assert (found - noise).square().mean() < 0.4  # the noise has a variance of 1
    torch.testing.assert_close(encoder(images), found)

    mean = images.mean(0, keepdim=True)
    error = encoder.reconstruction_error(images)
    assert error < 0.5 * (images - mean).square().mean()
    assert error == pytest.approx((run.generate(clamp_noise("uniform", found)) - images).square().mean().item())


def test_refinement_comes_nearer(run, tmp_path):
    encoder = inference.train(run, out=tmp_path, **SHORT)
    images = run.generate(run.noise(20, seed=5))
    noise = encoder.refine(images, steps=60)
    assert noise.abs().max() <= 3**0.5  # what the generator has seen
    start = clamp_noise("uniform", encoder.encode(images))
    torch.testing.assert_close(encoder.refine(images, steps=0), start)
    errors = [(encoder.reconstruct(z) - images).square().flatten(1).mean(1) for z in (start, noise)]
    assert (errors[1] <= errors[0]).all()
    assert errors[1].mean() < 0.5 * errors[0].mean()
    assert encoder.reconstruction_error(images, noise) == pytest.approx(errors[1].mean().item())
    wild = encoder.refine(images, steps=3, learning_rate=50.0)  # steps that make it worse are forgotten
    assert ((encoder.reconstruct(wild) - images).square().flatten(1).mean(1) <= errors[0] + 1e-6).all()


@pytest.mark.parametrize("reconstruction", [0.0, 5.0])
def test_an_encoder_resumes_bit_for_bit(run, tmp_path, reconstruction):
    settings = {**SHORT, "reconstruction": reconstruction}
    whole = inference.train(run, out=tmp_path / "whole", **settings)
    with tiny.killed_after(inference._Learner, 14):
        inference.train(run, out=tmp_path / "cut", **settings)
    again = inference.train(run, out=tmp_path / "cut", resume=True, **settings)
    assert all(map(torch.equal, again.parameters(), whole.parameters()))


def test_what_cannot_be_is_refused(run, tmp_path):
    inference.train(run, out=tmp_path, **SHORT)
    with torch.no_grad():
        run.generator.output.bias += 1
    with pytest.raises(ValueError, match=r"generator was .* to resume, it must be the same"):
        inference.train(run, out=tmp_path, resume=True, **SHORT)
    with torch.no_grad():
        run.generator.output.bias -= 1
    with pytest.raises(TypeError, match=r"run must be a pygan\.Run, got str"):
        inference.train("runs/mnist", out=tmp_path / "other")
    with pytest.raises(ValueError, match="must not be conditional"):
        inference.train(dataclasses.replace(run, game=dataclasses.replace(run.game, classes=3)), out=tmp_path / "other")


def test_reconstruction_pairs_images_and_noise(run, tmp_path):
    encoder = inference.train(run, out=tmp_path / "pairs", **SHORT)
    images = run.sample(3, seed=0)
    noise = encoder.encode(images)
    assert encoder.reconstruction_error(images, noise) >= 0
    for given, z, message in (
        (images, noise[:1], r"noise must have shape \[3, "),
        (images[:1], noise, r"noise must have shape \[1, "),
        (images, noise[:, 1:], rf"noise must have shape \[3, {run.game.noise_size}\], got \[3, "),
        (images[:0], noise[:0], "images must have shape"),
        (images * torch.nan, noise, r"images must lie in \[0, 1\]"),
        (images[0], noise, "images must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.reconstruction_error(given, z)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        encoder.refine(images, steps=-1)


def test_the_reconstruction_error_is_a_mean_of_doubles_and_checks_images_once(run, tmp_path, monkeypatch):
    """Looking at all pixels twice costs as much as the encoder; a float32 mean of many squares is off in the digits."""
    encoder = inference.train(run, out=tmp_path, **SHORT)
    images, checked = run.sample(40, seed=0), []
    monkeypatch.setattr(inference, "check_images", lambda op, *_: checked.append(op))
    error = encoder.reconstruction_error(images)
    assert checked == ["reconstruction_error"]
    squares = (encoder.reconstruct(clamp_noise("uniform", encoder.encode(images))) - images).square()
    assert error == squares.double().mean().item() != squares.mean().item()


@pytest.mark.parametrize("distribution", ["uniform", "normal", "unit_uniform"])
def test_noise_is_clamped_to_what_can_be_drawn(distribution):
    noise = draw_noise(distribution, 100, 10)
    assert torch.equal(clamp_noise(distribution, noise), noise)
    far = clamp_noise(distribution, 10 * noise)
    assert torch.equal(far, 10 * noise) == (distribution == "normal")
    assert far.abs().max() >= noise.abs().max()


def test_nearest_neighbour_accuracy():
    points, references = torch.tensor([[0.0], [0.9], [2.0]]), torch.tensor([[0.1], [1.9], [9.0]])
    labels, of_references = torch.tensor([4, 4, 5]), torch.tensor([4, 5, 4])
    assert nearest_neighbour_accuracy(points, labels, references, of_references) == pytest.approx(1.0)
    assert nearest_neighbour_accuracy(points + 1.2, labels, references, of_references) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match=r"reference_labels must have shape \[3\], got \[2\]"):
        nearest_neighbour_accuracy(points, labels, references, of_references[:2])


def test_the_samples_that_it_learns_from_are_noisy(run, tmp_path, monkeypatch):
    """Their noise has the deviation of the setting, and the target is the noise of the generator all the same."""
    seen = []
    monkeypatch.setattr(inference.Encoder, "predict", lambda self, values: seen.append(values) or self.layers(values))
    settings = inference.InferenceSettings(input_noise=0.6, hidden=(16,), batch_size=400)
    learner = inference._Learner(run.game, None, settings, 0, torch.device("cpu"))
    torch.manual_seed(0)
    learner.update(0)
    torch.manual_seed(0)
    clean = run.game.generate(run.game.draw_noise(400))
    assert (seen[0] - clean).std().item() == pytest.approx(0.6, rel=0.05)
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        inference.train(run, out=tmp_path / "one", batch_size=1)


def test_images_of_the_data_are_reconstructed(run, tmp_path):
    """The generator stays as it is, and its mode too; what counts is the difference on images, not on samples."""
    images, before = run.splits.train.images, [parameter.clone() for parameter in run.generator.parameters()]
    longer = {**SHORT, "epochs": 5, "updates_per_epoch": 40, "hidden": (32,)}
    without = inference.train(run, out=tmp_path / "without", **longer)
    encoder = inference.train(run, out=tmp_path / "with", **{**longer, "reconstruction": 5.0})
    assert encoder.history[-1]["pixel_error"] < encoder.history[0]["pixel_error"]
    assert "pixel_error" not in without.history[-1]
    assert encoder.reconstruction_error(images) < 0.9 * without.reconstruction_error(images)
    assert all(map(torch.equal, before, run.generator.parameters()))
    assert all(parameter.grad is None for parameter in run.generator.parameters())
    forgotten = dataclasses.replace(run, known_splits=None)
    with pytest.raises(RuntimeError, match="in memory"):
        inference.train(forgotten, out=tmp_path / "forgotten", **{**longer, "reconstruction": 5.0})
    assert not (tmp_path / "forgotten").exists()
