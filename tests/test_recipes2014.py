"""The recipes of 2014 for CIFAR-10 and TFD: their facts, their players, the two phases, and that each learns."""

import numpy as np
import pytest
import torch
from torch import nn

import pygan
from pygan.models.maxout_convolutional import ConvolutionalDiscriminator, ConvolutionalGenerator
from pygan.models.relu_sigmoid_mlp import DeepenedGenerator, ReluSigmoidGenerator
from pygan.optim import Momentum
from pygan.recipes import RECIPES

scipy_io = pytest.importorskip("scipy.io")

COLOUR, FACE = (3, 32, 32), (1, 48, 48)
FULLY_CONNECTED = {"relu_units": 64, "sigmoid_units": 64, "discriminator_hidden": (32, 32), "pieces": 3}
ADAM = {"optimizer": "adam", "generator_lr": 0.003, "discriminator_lr": 0.003, "generator_range": 0.2}
SMALL = {  # of each recipe, a game of seconds: few units, and weights and rates for so few
    "cifar2014": {**FULLY_CONNECTED, **ADAM, "discriminator_range": 0.05},
    "cifar2014_convolutional": {
        **ADAM,
        "relu_units": 64,
        "deconvolution_maps": 16,
        "convolution_maps": (4, 4, 8),
        "maxout_units": 32,
        "discriminator_range": 0.1,
    },
    "tfd2014": {
        **FULLY_CONNECTED,
        "output_sparse": 20,
        "generator_range": 0.2,
        "discriminator_range": 0.1,
        "generator_lr": 0.3,
        "discriminator_lr": 0.1,
        "max_column_norm": 3.0,
        "averaging": 0.98,
    },
}


def shapes(player):
    return [list(parameter.shape) for parameter in player.parameters()]


def players(name, shape):
    """The published sizes, without their memory."""
    recipe = RECIPES[name]
    with torch.device("meta"):
        return recipe.model.make_generator(shape, recipe.noise_size), recipe.model.make_discriminator(shape)


def test_the_files_of_2014_differ_from_mnists_in_few_settings():
    """momentum, decay, floor, dropout, losses and simultaneous updates are common to all."""
    code = RECIPES["code2014"].flat()
    own = {
        "cifar2014": {"pixels": "gcn", "generator_lr": 0.025, "batch_size": 100},
        "cifar2014_convolutional": {"pixels": "gcn", "generator_lr": 0.004, "batch_size": 128},
        "tfd2014": {"pixels": "unit", "generator_lr": 0.05, "max_column_norm": 1.9365, "epochs": 50},
        "tfd2014_phase2": {"pixels": "unit", "generator_lr": 0.05, "max_column_norm": 1.9365, "epochs": 22},
    }
    common = {key: value for key, value in code.items() if key.startswith(("lr_", "momentum", "keep_"))}
    for key in ("updates", "k", "objective", "discriminator_loss_scale", "pieces", "averaging", "noise_size"):
        common[key] = code[key]
    for name, facts in own.items():
        recipe = RECIPES[name].flat()
        assert {key: recipe[key] for key in common} == {**common, "keep_every": 0}
        assert (recipe["generator_range"], recipe["discriminator_range"]) == (0.05, 0.005)
        assert {key: recipe[key] for key in facts} == facts
        assert recipe["noise"] == "normal"
        assert recipe["discriminator_lr"] == recipe["generator_lr"]


def test_the_fully_connected_players_for_cifar():
    generator, discriminator = players("cifar2014", COLOUR)
    assert shapes(generator) == [[8000, 100], [8000], [8000, 8000], [8000], [3072, 8000], [3072]]
    assert shapes(discriminator)[::2] == [[1600, 5, 3072], [1600, 5, 1600], [1, 1600]]


def test_the_convolutional_players_for_cifar():
    """Maps of 33 -> 16, 15 -> 7, 9 -> 5: pooling windows hang over the edge; a bias for each value of the image."""
    generator, discriminator = players("cifar2014_convolutional", COLOUR)
    assert sorted(shapes(generator)) == sorted([[8000, 100], [8000], [8000, 8000], [8000], [80, 3, 5, 5], [3, 32, 32]])
    assert shapes(discriminator)[::2] == [[64, 3, 8, 8], [64, 32, 8, 8], [384, 32, 5, 5], [500, 5, 4800], [1, 500]]
    assert [layer.dropout for layer in discriminator.convolutions] == pytest.approx([0.2, 0.5, 0.5])
    assert (discriminator.hidden.dropout, discriminator.dropout) == (0.5, 0.5)
    x, sides = torch.empty(1, *COLOUR, device="meta"), []
    for layer in discriminator.convolutions:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [16, 7, 5]


def test_a_maxout_convolution_is_the_maximum_of_its_pieces_and_of_windows_that_may_hang_over():
    layer = ConvolutionalDiscriminator((2, 11, 11), maps=(3, 3, 3), units=2, init_range=0.5).convolutions[0].eval()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 2, 11, 11)
    convolved = nn.functional.conv2d(x, layer.weight, layer.bias, padding=4).unflatten(1, (3, 2)).amax(2)
    side = convolved.shape[-1]
    assert side == 12  # windows begin at 0, 2, ..., 8
    expected = [[convolved[..., i : i + 4, j : j + 4].amax((-2, -1)) for j in range(0, 9, 2)] for i in range(0, 9, 2)]
    torch.testing.assert_close(layer(x), torch.stack([torch.stack(row, -1) for row in expected], -2))
    assert layer(torch.randn(1, 2, 14, 14)).shape[-1] == 7  # 15 -> 7: the last window holds 3 of 4 columns


def test_the_deconvolution_reaches_every_pixel_and_has_a_bias_for_each():
    generator = ConvolutionalGenerator((3, 11, 14), 5, units=4, maps=2)
    assert generator.maps == (2, 3, 4)
    with torch.no_grad():
        generator.kernel.fill_(1.0)
        generator.bias.copy_(torch.arange(3 * 11 * 14).view(3, 11, 14))
        images = generator(torch.randn(2, 5))
    assert images.shape == (2, 3, 11, 14)
    painted = images - generator.bias
    assert (painted > 0).all()  # sigmoids are positive
    assert painted[0, 0, 3, 3] > 1.5 * painted[0, 0, 2, 2]  # where four kernels overlap
    with pytest.raises(ValueError, match=r"must be 3 n \+ 2, at least 8, such as 32, got 28x28; image_size=32"):
        ConvolutionalGenerator((1, 28, 28))


def test_how_the_weights_of_the_generators_start():
    mean = torch.linspace(0.1, 0.9, 16).view(1, 4, 4)
    for output, bias in (("linear", torch.zeros(16)), ("sigmoid", mean.flatten().logit())):
        generator = ReluSigmoidGenerator((1, 4, 4), 7, (30, 40), output, sigmoid_bias=-2.0, mean_image=mean)
        torch.testing.assert_close(generator.output.bias, bias)
        assert generator.output.weight.abs().max().item() == pytest.approx(0.5, rel=0.05)
        assert generator.hidden[0].weight.abs().max().item() == pytest.approx(0.05, rel=0.05)
        assert not generator.hidden[0].bias.any()
        assert (generator.hidden[2].bias == -2).all()
    assert ReluSigmoidGenerator((1, 4, 4), 7, (30, 40))(100 * torch.randn(9, 7)).min() < 0


def test_a_sparse_start_gives_each_output_so_many_weights():
    weight = ReluSigmoidGenerator((1, 20, 20), 7, (30, 500), "sigmoid", output_sparse=100).output.weight
    assert ((weight != 0).sum(1) == 100).all()
    assert weight[weight != 0].std().item() == pytest.approx(1, rel=0.03)
    assert (weight != 0).sum(0).float().std() < 30  # not the same inputs for all
    assert (ReluSigmoidGenerator((1, 2, 2), 7, (3, 5), "sigmoid", output_sparse=100).output.weight != 0).all()


def test_the_faces_players_have_the_published_sizes():
    generator, discriminator = players("tfd2014", FACE)
    assert shapes(generator)[::2] == [[8000, 100], [8000, 8000], [2304, 8000]]
    assert shapes(discriminator)[::2] == [[1200, 5, 2304], [1200, 5, 1200], [1, 1200]]
    deeper, _ = players("tfd2014_phase2", FACE)
    assert shapes(deeper)[::2] == [[8000, 100], [100, 8000], *shapes(generator)[::2]]


def test_the_column_norm_is_bounded_before_the_first_update_and_after_each():
    """Of each piece of a maxout unit, and of each unit of other layers, biases not counted."""
    layers = nn.ModuleList([pygan.nn.Maxout(6, 3, 2), nn.Linear(6, 4), nn.Conv2d(2, 3, 2)])
    for parameter in layers.parameters():
        nn.init.normal_(parameter, 0, 3)
    small = layers[1].weight.data[0].mul_(0.01).clone()
    bias = layers[1].bias.data.clone()
    optimizer = Momentum(layers, max_column_norm=1.5)

    def norms():
        weights = layers[0].weight, layers[1].weight, layers[2].weight.flatten(1)
        return torch.cat([weight.norm(dim=-1).flatten() for weight in weights])

    assert norms().max().item() == pytest.approx(1.5, rel=1e-5)
    assert torch.equal(layers[1].weight[0], small)
    assert torch.equal(layers[1].bias, bias)
    for _ in range(2):
        optimizer.step([torch.randn_like(p) for p in layers.parameters()], 1.0, 0.5)
        assert norms().max().item() == pytest.approx(1.5, rel=1e-5)
    unbounded = nn.Linear(6, 4)
    nn.init.constant_(unbounded.weight, 3.0)
    Momentum(unbounded)
    assert (unbounded.weight == 3).all()


def write_tfd(root, n=60, side=48, **changes):
    """A file of TFD's format: 60 % without labels, a tenth for validation, a tenth for testing, by fold."""
    draws = np.random.default_rng(0)
    x = np.linspace(-1, 1, side)
    centres = draws.uniform(-0.3, 0.3, (n, 2))
    blobs = np.exp(-((x[None, :, None] - centres[:, :1, None]) ** 2 + (x - centres[:, 1:])[:, None] ** 2) * 4)
    uses = np.array([0] * (n * 6 // 10) + [1, 1, 2, 3] * (n // 10))
    folds = np.stack([np.concatenate([uses[: n * 6 // 10], np.roll(uses[n * 6 // 10 :], k)]) for k in range(5)], 1)
    content = {
        "images": (255 * blobs).astype(np.uint8),
        "labs_ex": np.where(uses == 0, -1, 1)[:, None],
        "labs_id": np.full((n, 1), -1),
        "folds": folds.astype(np.int16),
        **changes,
    }
    (root / "tfd").mkdir(exist_ok=True)
    scipy_io.savemat(root / "tfd" / "TFD_48x48.mat", {key: x for key, x in content.items() if x is not None})
    return content


def test_tfd_is_read_by_folds(tmp_path):
    content = write_tfd(tmp_path)
    for fold in range(5):
        splits = pygan.data.load("tfd" if fold == 0 else f"tfd_fold{fold}", root=tmp_path)
        for use, split in ((0, splits.train), (2, splits.valid), (3, splits.test)):
            expected = content["images"][content["folds"][:, fold] == use]
            assert np.array_equal(split.images[:, 0].numpy(), expected)
        assert splits.train.labels is None
        assert f"fold {fold} of 0 to 4" in splits.protocol
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [36, 6, 6]


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"images": np.zeros((60, 96, 96), np.uint8)}, r"uint8 \[60, 96, 96\] and int16 \[60, 5\]"),
        ({"images": np.zeros((60, 48, 48))}, r"float64 \[60, 48, 48\]"),
        ({"folds": np.zeros((60, 3), np.int16)}, r"int16 \[60, 3\]"),
        ({"images": None}, r"float64 \[0\] and int16 \[60, 5\]"),
        ({"folds": np.zeros((60, 5), np.int16)}, "`folds` to hold 2 for some image of every fold, got none"),
    ],
)
def test_another_tfd_file_is_refused(tmp_path, changes, got):
    write_tfd(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"TFD_48x48\.mat: expected .*{got}"):
        pygan.data.load("tfd", root=tmp_path)


def test_a_damaged_tfd_file_is_refused_and_a_missing_one_says_where_to_put_it(tmp_path):
    write_tfd(tmp_path)
    path = tmp_path / "tfd" / "TFD_48x48.mat"
    whole = path.read_bytes()
    for content in (b"", whole[:124] + b"\0\2" + whole[126:], whole[: len(whole) // 2], b"not at all" * 40):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"TFD_48x48\.mat: byte \d+: expected"):
            pygan.data.load("tfd", root=tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"by application only; put it at .*set \$PYGAN_DATA to a folder that"):
        pygan.data.load("tfd", root=tmp_path)


def test_tfd_trains_in_two_phases(tmp_path):
    """The second begins with the first one's generator behind new layers, and goes on from there alone."""
    write_tfd(tmp_path)
    small = {**SMALL["tfd2014"], "epochs": 2, "batch_size": 12, "evaluation_samples": 50, "root": tmp_path}
    first = pygan.train("tfd", out=tmp_path / "1", progress=False, **small)
    assert first.recipe.name == "tfd2014"
    seen = {}
    second = pygan.train(
        "tfd",
        "tfd2014_phase2",
        out=tmp_path / "2",
        progress=False,
        front_units=16,
        first_phase=str(tmp_path / "1"),
        on_epoch=lambda run: seen.setdefault("epoch", len(run.history)) and None,
        **small,
    )
    assert isinstance(second.generator, DeepenedGenerator)
    old, new = pygan.load(tmp_path / "1", "last").generator, second.generator.generator
    change = (new.hidden[2].weight - old.hidden[2].weight).abs().max().item()
    assert 0 < change < 0.01  # it went on from there, and was trained
    loaded = pygan.load(tmp_path / "2", "best")
    assert torch.equal(loaded.sample(3, seed=0), second.sample(3, seed=0))
    with pytest.raises(ValueError, match="first_phase must name the run folder of phase 1"):
        pygan.train("tfd", "tfd2014_phase2", out=tmp_path / "3", progress=False, front_units=16, **small)
    other = {**small, "relu_units": 32, "front_units": 16, "first_phase": str(tmp_path / "1")}
    with pytest.raises(ValueError, match=r"first_phase: the generator of .* must have .*, got "):
        pygan.train("tfd", "tfd2014_phase2", out=tmp_path / "4", progress=False, **other)


@pytest.mark.parametrize(
    ("name", "epochs", "nats"), [("cifar2014", 8, 8), ("cifar2014_convolutional", 6, 5), ("tfd2014", 12, 1)]
)
def test_some_hundred_updates_improve_the_log_likelihood(tmp_path, name, epochs, nats):
    """On real digits of 8x8 pixels, 28 updates an epoch; the start is that of a generator that has hardly moved."""
    settings = {**SMALL[name], "batch_size": 50, "evaluation_samples": 300, "sigma": "refined", "progress": False}
    still = {"epochs": 1, "generator_lr": 1e-6, "averaging": 0}
    start = pygan.train("digits", name, out=tmp_path / "still", **{**settings, **still}).history[-1]
    history = pygan.train("digits", name, out=tmp_path / "run", epochs=epochs, evaluate_every=4, **settings).history
    scores = [entry["log_likelihood"] for entry in history if entry["log_likelihood"] is not None]
    assert max(scores) > start["log_likelihood"] + nats
