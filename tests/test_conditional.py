"""Conditional games, p(x given c): the published nets, their default recipes, and what is kept of each class."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan import cli, pictures
from pygan.evaluate import ParzenWindow
from pygan.export import load_generator
from pygan.models import ConditionalMLP
from pygan.models.conditional_mlp import ConditionalDiscriminator, ConditionalGenerator
from pygan.recipes import RECIPES
from pygan.run import load
from pygan.train import train

SHAPE = (1, 28, 28)
NAMES = ("dark", "bright")
SMALL = {
    "conditional2014": {
        "generator_units": (8, 8, 16),
        "discriminator_units": (8, 4, 8),
        "pieces": 2,
        "joint_pieces": 2,
    },
    "dcgan": {"channels": 8},
}


def dark_and_bright(n: int = 200) -> tuple[Tensor, Tensor]:
    """n images [n, 1, 8, 8]: those with label 0 have pixels of 0 to 99, those with label 1 of 156 to 255."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (n,), generator=source)
    return (torch.randint(100, (n, 1, 8, 8), generator=source) + 156 * labels.view(n, 1, 1, 1)).byte(), labels


def run(out, recipe="conditional2014", data=None, **settings):
    short = {"epochs": 1, "batch_size": 20, "noise_size": 4, "evaluation_samples": 60, "evaluate_every": 1}
    return train(
        dark_and_bright() if data is None else data,
        recipe,
        out,
        progress=False,
        conditional=True,
        **{**short, **SMALL[recipe], **settings},
    )


def test_the_published_nets():
    """Mirza and Osindero 2014, section 4.1."""
    generator, discriminator = ConditionalGenerator(SHAPE, 10), ConditionalDiscriminator(SHAPE, 10)
    assert {name: tuple(p.shape) for name, p in generator.named_parameters() if name.endswith("weight")} == {
        "noise.weight": (200, 100),
        "label.weight": (1000, 10),
        "joint.weight": (1200, 1200),
        "output.weight": (784, 1200),
    }
    assert {name: tuple(p.shape) for name, p in discriminator.named_parameters() if name.endswith("weight")} == {
        "image.weight": (240, 5, 784),
        "label.weight": (50, 5, 10),
        "joint.weight": (240, 4, 290),
        "output.weight": (1, 240),
    }
    made = ConditionalMLP().make_generator(SHAPE, 100, 10), ConditionalMLP().make_discriminator(SHAPE, 10)
    for player, default in zip(made, (generator, discriminator), strict=True):
        assert str(player) == str(default)


def test_the_published_training():
    recipe = RECIPES["conditional2014"]
    assert (recipe.optimizer.name, recipe.batch_size, recipe.lr_decay, recipe.lr_floor) == (
        "momentum",
        100,
        1.00004,
        1e-6,
    )
    assert (recipe.generator_lr, recipe.discriminator_lr) == (0.1, 0.1)
    assert (recipe.momentum, recipe.momentum_final, recipe.keep_hidden, recipe.generator_keep_hidden) == (
        0.5,
        0.7,
        0.5,
        0.5,
    )
    assert recipe.patience > 0, "the best validation log-likelihood was the stopping point"


def test_dropout_is_in_both_nets_in_training_only():
    generator, discriminator = ConditionalGenerator(SHAPE, 3), ConditionalDiscriminator(SHAPE, 3)
    labels, noise, images = torch.tensor([0, 1]), torch.rand(2, 100), torch.rand(2, *SHAPE)
    for player, x in ((generator, noise), (discriminator, images)):
        assert not torch.equal(player(x, labels), player(x, labels))
        player.eval()
        assert torch.equal(player(x, labels), player(x, labels))
    with torch.no_grad():  # Every joint unit is 1: those that are kept count twice, so that the mean stays.
        generator.joint.weight.zero_()
        generator.joint.bias.fill_(1.0)
        generator.output.weight.fill_(0.001)
        logits = generator.train()(torch.rand(400, 100), torch.zeros(400, dtype=torch.int64)).logit()
    assert logits.mean().item() == pytest.approx(1.2, rel=0.01)
    assert logits[:, 0, 0, 0].std().item() == pytest.approx(0.001 * math.sqrt(1200), rel=0.2)
    parts = discriminator.image, discriminator.label, discriminator.joint
    assert [part.dropout for part in parts] == pytest.approx([0.2, 0, 0.5])
    with torch.no_grad():
        discriminator.joint.weight.zero_()
        discriminator.joint.bias.fill_(1.0)
        discriminator.output.weight.fill_(1.0)
        logits = discriminator.train()(torch.rand(400, *SHAPE), torch.zeros(400, dtype=torch.int64))
    assert logits.mean().item() == pytest.approx(240, rel=0.02)
    assert logits.std().item() == pytest.approx(math.sqrt(240), rel=0.2)


@pytest.mark.parametrize("recipe", SMALL)
def test_samples_are_of_the_class_that_was_asked_for(tmp_path, recipe):
    rates = {"optimizer": "adam", "generator_lr": 0.005, "discriminator_lr": 0.005}
    gan = (
        run(tmp_path, recipe, epochs=20, evaluate_every=20, keep_hidden=0.9, **rates)
        if recipe != "dcgan"
        else run(tmp_path, recipe, epochs=20, evaluate_every=20, generator_lr=0.002, discriminator_lr=0.002)
    )
    dark, bright = (gan.sample(50, seed=1, labels=label).mean((1, 2, 3)) for label in (0, 1))
    assert dark.max() < 0.5 < bright.min()
    in_turn = gan.sample(4, seed=1).mean((1, 2, 3))
    assert (in_turn > 0.5).tolist() == [False, True, False, True]


def test_a_picture_has_a_row_for_each_class_and_a_column_for_each_noise(tmp_path, monkeypatch):
    saved = []
    draw = pictures.grid

    def grid(images, columns=None, enlarge=True):
        saved.append((images, columns))
        return draw(images, columns, enlarge)

    gan = run(tmp_path, samples_every=1, report=False)
    monkeypatch.setattr(pictures, "grid", grid)
    assert gan.picture() == (gan.path / "samples" / "0001.png").read_bytes()
    ((images, columns),) = saved
    assert columns == 10
    assert len(images) == 20
    noise = gan.noise(10, gan.seed)
    for label, row in enumerate(images.split(10)):
        torch.testing.assert_close(row, gan.generate(noise, label))


def test_the_command_draws_such_a_picture_unless_a_number_or_labels_are_given(tmp_path):
    gan = run(tmp_path, report=False)
    words = ["sample", str(gan.path), "-o", str(tmp_path / "x.png"), "--seed", str(gan.seed)]
    for more, picture in {
        (): gan.picture(),
        ("-n", "6"): pictures.png(pictures.grid(gan.sample(6, gan.seed))),
        ("--labels", "1"): pictures.png(pictures.grid(gan.sample(64, gan.seed, labels=1))),
    }.items():
        assert cli.main([*words, *more]) == 0
        assert (tmp_path / "x.png").read_bytes() == picture


def test_the_log_likelihood_of_each_class(tmp_path):
    gan = run(tmp_path)
    scores = gan.log_likelihood_by_class()
    assert list(scores) == ["0", "1"]
    splits = gan.splits
    for label, score in enumerate(scores.values()):
        valid, test = (split.images[split.labels == label].float() / 255 for split in (splits.valid, splits.test))
        window = ParzenWindow(gan.sample(30, gan.seed, label)).fit(valid)
        assert score == window.score(test)
        assert score.n_test == (splits.test.labels == label).sum()
    with pytest.raises(ValueError, match="this run is not conditional; train with conditional=True"):
        train(dark_and_bright(), "digits", tmp_path / "plain", 1, progress=False).log_likelihood_by_class()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recipe", SMALL)
def test_a_conditional_run_resumes_and_loads(tmp_path, recipe):
    whole = run(tmp_path / "whole", recipe, epochs=2)
    run(tmp_path / "halves", recipe, epochs=1)
    halves = run(tmp_path / "halves", recipe, epochs=2, resume=True)
    loaded = load(tmp_path / "whole")
    for other in (halves, loaded):
        assert torch.equal(whole.sample(6, seed=1), other.sample(6, seed=1))
        assert torch.equal(whole.judge(whole.sample(6, seed=1), 1), other.judge(whole.sample(6, seed=1), 1))
    assert math.isfinite(loaded.history[-1]["d_loss"])


def test_other_labels_are_refused_by_name(tmp_path):
    images, labels = dark_and_bright()
    np.savez(tmp_path / "data.npz", images=images.numpy(), labels=labels.numpy())
    gan = run(tmp_path / "run", data=tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", images=images.numpy(), labels=labels.flip(0).numpy())
    message = "other labels in train, valid, test$"
    with pytest.raises(ValueError, match=f"data must be the same as at the start of the run in .*: {message}"):
        run(tmp_path / "run", data=tmp_path / "data.npz", resume=True)
    with pytest.raises(ValueError, match=f"has changed since .*: {message}"):
        load(gan.path).log_likelihood()

    config = gan.path / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.startswith(("train_labels", "valid_labels", "test_labels"))]
    assert len(older) == len(lines) - 3
    config.write_text("".join(older))
    run(tmp_path / "run", data=tmp_path / "data.npz", resume=True)  # version 0.1 kept no checksums of labels


@pytest.mark.parametrize("recipe", SMALL)
def test_the_callers_defaults_do_not_matter(tmp_path, recipe):
    gan = run(tmp_path / "run", recipe)
    expected = gan.noise(3, 1), gan.sample(3, 1), gan.sample(3, 1, labels=[1, 1, 0])
    for place in (torch.device("cpu"), torch.device("meta")):
        torch.set_default_dtype(torch.float64)
        try:
            with place:
                loaded = load(gan.path)
                made = loaded.noise(3, 1), loaded.sample(3, 1), loaded.sample(3, 1, labels=[1, 1, 0])
                generator = load_generator(gan.path / "generator.safetensors")
        finally:
            torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(made, expected, rtol=0, atol=0)
        exported = generator(expected[0], torch.tensor([0, 1, 0]))
        torch.testing.assert_close(exported, expected[1], rtol=0, atol=0)


def test_what_cannot_be_is_said(tmp_path):
    images, labels = dark_and_bright()
    with pytest.raises(ValueError, match="the model 'conditional_mlp' needs labels: pass conditional=True"):
        train(images, "conditional2014", tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"'maxout_mlp' has no conditional form; .*recipe='conditional2014'"):
        train((images, labels), "digits", tmp_path, progress=False, conditional=True)
    with pytest.raises(ValueError, match=r"generator_units must be three sizes, each at least 1, got \(8, 8\)"):
        run(tmp_path, generator_units=(8, 8))


def test_a_run_stays_conditional_when_it_is_resumed(tmp_path):
    begun = run(tmp_path / "run")
    again = {"data": dark_and_bright(), "out": begun.path, "resume": True, "progress": False}
    assert train(**again).game.classes == begun.game.classes
    with pytest.raises(ValueError, match="'conditional_mlp' needs labels: pass conditional=True"):
        train(**again, conditional=False)
