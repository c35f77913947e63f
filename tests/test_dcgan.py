"""The DCGAN: the published nets, batch norm where it belongs and nowhere else, and runs that resume and load."""

import copy

import pytest
import torch
from torch import nn

from pygan.export import load_generator
from pygan.folder import RunFolder
from pygan.game import evaluating
from pygan.models.dcgan import DCGAN, DCGANDiscriminator, DCGANGenerator
from pygan.recipes import RECIPES
from pygan.run import load
from pygan.train import train

BATCH_NORM = nn.BatchNorm2d
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def images(n=60, side=8, channels=1):
    return torch.randint(256, (n, channels, side, side), generator=torch.Generator().manual_seed(0)).byte()


def run(out, data=None, **settings):
    small = {"channels": 4, "noise_size": 5, "batch_size": 12, "epochs": 2, "evaluation_samples": 50}
    data = images() if data is None else data
    return train(data, "dcgan", out, progress=False, **{**small, "evaluate_every": 1, **settings})


def layers(player):
    return [module for module in player.modules() if isinstance(module, LAYERS)]


def test_the_published_net_at_64_pixels():
    """Section 3 and figure 1: 100 numbers -> 4x4x1024 -> 512 -> 256 -> 128 maps -> 64x64x3."""
    generator, discriminator = DCGANGenerator((3, 64, 64)), DCGANDiscriminator((3, 64, 64))
    project, *doublings = layers(generator)
    assert (project.in_features, project.out_features) == (100, 4 * 4 * 1024)
    assert [(layer.in_channels, layer.out_channels) for layer in doublings] == [
        (1024, 512),
        (512, 256),
        (256, 128),
        (128, 3),
    ]
    *halvings, output = layers(discriminator)
    assert [(layer.in_channels, layer.out_channels) for layer in halvings] == [
        (3, 128),
        (128, 256),
        (256, 512),
        (512, 1024),
    ]
    assert (output.in_features, output.out_features) == (4 * 4 * 1024, 1)
    assert all(layer.stride == (2, 2) for layer in doublings + halvings)


@pytest.mark.parametrize(
    ("size", "layers_of_each", "smallest"),
    [
        ((8, 8), 2, 4 * 4),
        ((28, 28), 3, 7 * 7),
        ((32, 32), 4, 4 * 4),
        ((56, 56), 4, 7 * 7),
        ((31, 45), 3, 7 * 11),
        ((9, 70), 2, 4 * 35),
    ],
    ids=str,
)
def test_every_size_from_8_pixels_on(size, layers_of_each, smallest):
    shape = (3, *size)
    generator, discriminator = DCGAN(channels=2).make_generator(shape, 5), DCGAN(channels=2).make_discriminator(shape)
    assert len(layers(generator)) == len(layers(discriminator)) == layers_of_each
    samples = generator(torch.rand(3, 5))
    assert samples.shape == (3, *shape)
    assert discriminator(samples).shape == (3,)
    assert (
        layers(generator)[0].out_features == layers(discriminator)[-1].in_features == smallest << (layers_of_each - 1)
    )


@pytest.mark.parametrize("size", [(7, 32), (30, 7), (4, 4), (1, 784)], ids=str)
def test_smaller_images_are_refused(size):
    message = f"images must have at least 8 pixels on a side, got {size[0]}x{size[1]}"
    for make in (lambda: DCGAN().make_generator((1, *size), 5), lambda: DCGAN().make_discriminator((1, *size))):
        with pytest.raises(ValueError, match=message):
            make()


def test_batch_norm_and_activations_are_the_published_ones():
    for player, activation in (
        (DCGANGenerator((1, 32, 32), 5, 4), nn.ReLU),
        (DCGANDiscriminator((1, 32, 32), 4), nn.LeakyReLU),
    ):
        order = [m for m in player.modules() if isinstance(m, (*LAYERS, BATCH_NORM, nn.ReLU, nn.LeakyReLU))]
        order = [m for m in order if m is not player.output] + [player.output]
        kinds = "".join({BATCH_NORM: "b", activation: "a"}.get(type(module), "l") for module in order)
        assert kinds == {nn.ReLU: "lba" * 3 + "l", nn.LeakyReLU: "la" + "lba" * 2 + "l"}[activation]
        assert all(m.negative_slope == 0.2 for m in order if isinstance(m, nn.LeakyReLU))
        followed = [m for m, kind in zip(order, kinds[1:] + " ", strict=True) if kind == "b"]
        assert all(layer.bias is None for layer in followed), "batch norm has a bias of its own"
    assert DCGANGenerator((1, 8, 8), 5, 4)(100 * torch.randn(9, 5)).abs().max() <= 1


def test_weights_start_as_published():
    torch.manual_seed(0)
    for player in (DCGANGenerator((1, 32, 32), 50, 16, 3), DCGANDiscriminator((1, 32, 32), 16, 3)):
        for module in player.modules():
            if isinstance(module, (*LAYERS, BATCH_NORM)):
                centre = 1.0 if isinstance(module, BATCH_NORM) else 0.0
                assert module.weight.mean().item() == pytest.approx(centre, abs=0.015)
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.3)
                assert module.bias is None or not module.bias.any()


def test_the_recipe_is_the_published_one():
    recipe = RECIPES["dcgan"]
    assert (recipe.generator_lr, recipe.discriminator_lr, recipe.lr_decay) == (2e-4, 2e-4, 1)
    assert (recipe.optimizer.name, recipe.adam_beta1, recipe.updates, recipe.k) == ("adam", 0.5, "alternating", 1)
    assert (recipe.noise, recipe.pixels, recipe.objective.name) == ("unit_uniform", "signed", "non_saturating")
    assert (recipe.batch_size, recipe.noise_size, recipe.channels) == (128, 100, 128)


def test_real_and_generated_images_never_share_a_batch_norm_pass(tmp_path):
    """PyTorch-GAN issue 135. Real images are nearly white, which no tanh of weights near 0 is."""
    seen = []

    def watch(run):
        run.discriminator.register_forward_pre_hook(
            lambda player, inputs: seen.append((player.training, {bool(image.min() > 0.5) for image in inputs[0]}))
        )

    run(tmp_path, 255 - images() // 8, on_epoch=watch)
    passes = [kinds for training, kinds in seen if training]
    assert passes == [{True}, {False}, {False}] * 4, "real, then generated, for D; generated for G: 4 updates"


@pytest.mark.parametrize("conditional", [False, True])
def test_the_average_has_the_batch_norm_statistics_of_its_own_weights(tmp_path, conditional):
    data = (images(), torch.arange(60) % 3) if conditional else images()
    gan = run(tmp_path, data, averaging=0.9, generator_lr=0.01, conditional=conditional)
    again = copy.deepcopy(gan.generator)
    norms = [module for module in again.modules() if isinstance(module, BATCH_NORM)]
    assert norms
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    again.train()
    noise = gan.noise(6000, seed=1).split(12)
    with torch.no_grad():
        for some in noise:
            again(some, torch.arange(12) % 3) if conditional else again(some)
    for norm, exact in zip((m for m in gan.generator.modules() if isinstance(m, BATCH_NORM)), norms, strict=True):
        torch.testing.assert_close(norm.running_var, exact.running_var, rtol=0.05, atol=0)
        error = (norm.running_mean - exact.running_mean) / exact.running_var.sqrt()
        assert error.abs().max() < 0.05


def test_samples_do_not_depend_on_the_batch_that_they_are_made_in(tmp_path):
    gan = run(tmp_path)
    torch.testing.assert_close(gan.sample(50, seed=1)[:3], gan.sample(3, seed=1))
    assert not gan.generator.training
    assert any(module.running_mean.any() for module in gan.generator.modules() if isinstance(module, BATCH_NORM))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_a_resumed_run_has_the_same_bits_and_loads_without_code(tmp_path, averaging):
    run(tmp_path / "whole", epochs=2, averaging=averaging)
    run(tmp_path / "halves", epochs=1, averaging=averaging)
    resumed = run(tmp_path / "halves", epochs=2, averaging=averaging, resume=True)
    (whole, _), (halves, _) = (RunFolder(tmp_path / name).read_checkpoint("last") for name in ("whole", "halves"))
    assert [name for name in whole if not torch.equal(whole[name], halves[name])] == []
    assert torch.equal(load(tmp_path / "whole").sample(5, seed=1), resumed.sample(5, seed=1))


def test_a_folder_of_colour_images_of_mixed_sizes(tmp_path):
    from PIL import Image

    for i in range(20):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        noise = torch.randint(256, (20 + i, 40 - i, 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(tmp_path / "pictures" / f"{i}.png")
    gan = run(tmp_path / "run", tmp_path / "pictures", image_size=16, epochs=1)
    assert gan.sample(2).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_labels_change_what_each_player_does(player):
    shape, labels = (1, 8, 8), torch.tensor([0, 1, 2, 2])
    made = DCGANGenerator(shape, 5, 4, 3) if player == "generator" else DCGANDiscriminator(shape, 4, 3)
    one = torch.rand(1, 5) if player == "generator" else torch.rand(1, *shape)
    with evaluating(made):
        first, second, third, fourth = made(one.expand(4, *one.shape[1:]), labels)
    assert torch.equal(third, fourth)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_on_a_cpu_channels_are_last_in_memory_but_not_in_what_users_get(tmp_path):
    gan = run(tmp_path / "run", torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8), epochs=1)
    tensors, _ = RunFolder(tmp_path / "run").read_checkpoint("last")
    for each in (gan, load(tmp_path / "run")):
        weights = each.generator.hidden[0][0].weight, each.discriminator.hidden[1][0].weight
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
        assert not any(weight.is_contiguous() for weight in weights)
        assert each.sample(2).is_contiguous()
        assert each.generate(each.noise(2)).is_contiguous()
    exported = load_generator(tmp_path / "run" / "generator.safetensors")(gan.noise(4, seed=0))
    assert exported.is_contiguous()
    assert torch.equal(exported, gan.sample(4, seed=0))
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert torch.equal(gan.sample(4, seed=0), load(tmp_path / "run").sample(4, seed=0))


class Viewing(nn.Sequential):
    """A user's discriminator that relies on the usual order in memory."""

    def __init__(self):
        super().__init__(nn.Linear(3 * 16 * 16, 1))

    def forward(self, x):
        return super().forward(x.view(len(x), -1)).squeeze(1)


def test_the_players_of_users_get_images_in_the_usual_order(tmp_path):
    data = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    gan = run(tmp_path / "run", data, epochs=1, discriminator=Viewing())
    loaded = load(tmp_path / "run", discriminator=Viewing())
    assert loaded.generator.hidden[0][0].weight.is_contiguous()
    assert torch.equal(gan.sample(4, seed=0), loaded.sample(4, seed=0))
