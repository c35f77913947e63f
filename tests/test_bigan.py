"""BiGAN: the losses of pairs, a training that resumes, and codes that say what an image shows."""

import pytest
import tiny
import torch

import pygan
from pygan import bigan
from pygan.bigan import BiganSettings

TINY = {"epochs": 2, "batch_size": 20, "noise_size": 3, "hidden": (16,), "progress": False, "threads": 1}


def images(n: int = 80) -> torch.Tensor:
    """4x4 images of one gray each."""
    return torch.linspace(0, 1, n).reshape(-1, 1, 1, 1).expand(n, 1, 4, 4).contiguous()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bigan.train(images(), out=tmp_path_factory.mktemp("run"), **TINY)


def test_the_update_follows_the_losses():
    splits = pygan.data.load(images())
    learner = bigan._Learner(splits, BiganSettings(batch_size=20, noise_size=3, hidden=(16,)), 0, torch.device("cpu"))
    learner.discriminator.eval()  # no dropout
    seen: dict[str, list[torch.Tensor]] = {}
    for name, optimizer in zip(("d", "ge"), learner.optimizers, strict=True):
        optimizer.step = lambda gradients, *_, name=name: seen.update({name: list(gradients)})
    torch.manual_seed(1)
    learner.update(0)

    torch.manual_seed(1)
    learner.batches.position = 0
    real, noise = learner.batches().images, torch.empty(20, 3).uniform_(-1, 1)
    d_real = learner.discriminator(real, learner.encoder(real)).sigmoid()
    d_fake = learner.discriminator(learner.generator(noise), noise).sigmoid()
    d_loss = -d_real.log().mean() - (1 - d_fake).log().mean()
    ge_loss = -d_fake.log().mean() - (1 - d_real).log().mean()
    wanted = [list(player.parameters()) for player in learner.players]
    torch.testing.assert_close(seen["d"], list(torch.autograd.grad(d_loss, wanted[0], retain_graph=True)))
    torch.testing.assert_close(seen["ge"], list(torch.autograd.grad(ge_loss, wanted[1])))


def test_it_says_what_it_is(model):
    assert repr(model) == f"Bigan({str(model.path)!r}: 1x4x4, 2 epochs)"


def test_it_maps_both_ways(model):
    noise = model.encode(images())
    assert noise.shape == (80, 3)
    torch.testing.assert_close(model.encode((images() * 255).round().to(torch.uint8)), noise, atol=0.05, rtol=0)
    made = model.generate(noise)
    assert made.shape == (80, 1, 4, 4)
    assert 0 <= made.min() <= made.max() <= 1
    assert model.history[-1].keys() >= {"d_loss", "ge_loss"}


def test_a_training_resumes_bit_for_bit(model, tmp_path):
    with tiny.killed_after(bigan._Learner, 4):
        bigan.train(images(), out=tmp_path, **TINY)
    again = bigan.train(images(), out=tmp_path, resume=True, **TINY)
    for net in ("generator", "encoder"):
        ours, theirs = (getattr(of, net).state_dict() for of in (again, model))
        assert all(map(torch.equal, ours.values(), theirs.values()))


def test_one_of_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"only pygan\.train and pygan\.table1 use several processes"):
        bigan.train(images(), out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_a_version_without_a_setting_is_refused_with_a_reason(tmp_path):
    bigan.train(images(), out=tmp_path, **TINY)
    config = tmp_path / "config.toml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "averaging" not in line))
    with pytest.raises(ValueError, match="begun by an earlier version of pygan, which had no setting 'averaging'"):
        bigan.train(images(), out=tmp_path, resume=True, **TINY)


def test_the_nets_are_averages_that_do_not_change_the_training(model, tmp_path):
    last = bigan.train(images(), out=tmp_path, averaging=0.0, **TINY)
    losses = [[{name: epoch[name] for name in ("d_loss", "ge_loss")} for epoch in of.history] for of in (last, model)]
    assert losses[0] == losses[1]
    for net in ("generator", "encoder"):
        ours, theirs = (getattr(of, net).state_dict() for of in (last, model))
        assert not all(map(torch.equal, ours.values(), theirs.values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"hidden": ()}, "hidden must be at least one size"),
        ({"noise_sizes": 3}, "unknown setting 'noise_sizes'; did you mean 'noise_size'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        bigan.train(images(), out=tmp_path / "run", **{**TINY, **arguments})


def test_wrong_shapes_are_refused(model):
    with pytest.raises(ValueError, match=r"encode: images must have shape \[n, 1, 4, 4\]"):
        model.encode(torch.rand(2, 1, 3, 3))
    with pytest.raises(ValueError, match=r"generate: noise must have shape \[n, 3\], got \[2, 4\]"):
        model.generate(torch.rand(2, 4))


def test_seed_and_settings_that_are_left_open_stay_when_resumed(tmp_path):
    bigan.train(images(), out=tmp_path, seed=3, **TINY)
    model = bigan.train(images(), out=tmp_path, resume=True, progress=False)
    assert (model.noise_size, len(model.history)) == (3, 2)
    with pytest.raises(ValueError, match=r"seed was 3 in .*, got 0; to resume, it must be the same"):
        bigan.train(images(), out=tmp_path, resume=True, seed=0, progress=False)
