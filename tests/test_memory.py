"""How much memory a run needs: the estimate, and the refusal before anything is allocated."""

from pathlib import Path

import pytest
import tiny
import torch

from pygan import memory
from pygan.data import Batch, Splits
from pygan.memory import WINDOW_BYTES, estimate
from pygan.models import MODELS
from pygan.optim import OPTIMIZERS
from pygan.recipes import RECIPES, Recipe

CPU = torch.device("cpu")
OURS = {"generator": None, "discriminator": None}


def splits(*shape: int) -> Splits:
    images = Batch(torch.empty(0, *shape, dtype=torch.uint8))
    return Splits("images", images, images, images, "")


def test_the_estimate_counts_what_the_players_hold():
    recipe = RECIPES["averaged"]
    need = estimate(recipe, splits(1, 28, 28), (1, 28, 28), 0, OURS, CPU)
    generator = 100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    discriminator = 784 * 1200 + 1200 + 240 * 1200 + 1200 + 240 + 1
    both = 4 * (generator + discriminator)
    assert need.on_device["weights"] == both + 4 * generator
    assert need.on_device["gradients"] == both
    assert need.on_device["optimiser"] == 2 * both
    assert need.on_host["checkpoint"] == 2 * (3 * both + 4 * generator)
    hidden = 100 * 4 * 1200 * 2  # two ReLU layers of one batch
    assert need.on_device["activations"] > hidden


def test_samples_are_counted_up_to_what_an_evaluation_keeps():
    few = estimate(RECIPES["digits"], splits(3, 32, 32), (3, 32, 32), 0, OURS, CPU).on_device["evaluation"]
    many = estimate(RECIPES["digits"], splits(3, 320, 320), (3, 320, 320), 0, OURS, CPU).on_device["evaluation"]
    assert (few, many) == (10_000 * 3072 * 4, WINDOW_BYTES)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_measured(name):
    recipe = Recipe().with_settings(model=name)
    classes = 10 if name == "conditional_mlp" else 0
    assert estimate(recipe, splits(1, 32, 32), (1, 32, 32), classes, OURS, CPU).on_device["activations"] > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimiser_keeps_more_than_is_counted(name):
    player = torch.nn.Linear(100, 100)
    state = Recipe().with_settings(optimizer=name).optimizer.make(player).state_dict()
    weights = sum(parameter.numel() for parameter in player.parameters())
    assert sum(tensor.numel() for tensor in state.values()) <= memory._OPTIMISER * weights + 10


def test_the_estimate_draws_nothing_from_torch_and_allocates_nothing():
    before = torch.get_rng_state()
    estimate(RECIPES["code2014"], splits(3, 4096, 4096), (3, 4096, 4096), 0, OURS, CPU)  # 700 GiB
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_that_cannot_fit_is_refused_with_a_size_that_would(tmp_path, monkeypatch):
    images = torch.rand(60, 1, 64, 64)
    settings = {"generator_hidden": (2000,), "discriminator_hidden": (8,), "evaluation_samples": 1}
    need = estimate(
        Recipe().with_settings(**settings, noise_size=4, batch_size=10, pieces=2),
        splits(1, 32, 32),
        (1, 32, 32),
        0,
        OURS,
        CPU,
    )
    enough_for_32 = sum(need.on_device.values()) + sum(need.on_host.values()) + memory._SLACK + 2**20
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(enough_for_32 / memory._SHARE))
    refused = r"images of 1x64x64 need about \d+ MiB of memory on cpu, and \d+ MiB is free \(checkpoint .*image_size=32"
    with pytest.raises(RuntimeError, match=refused):
        tiny.run(tmp_path / "run", images, **settings)
    assert not (tmp_path / "run").exists()
    tiny.run(tmp_path / "run", images, **settings, image_size=32, epochs=1)


def test_the_limit_of_a_control_group_counts(tmp_path):
    group, own = tmp_path / "user" / "job", tmp_path / "cgroup"
    group.mkdir(parents=True)
    own.write_text("0::/user/job\n")
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("700\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    (tmp_path / "user" / "memory.max").write_text("max\n")
    assert memory._cgroup_free(tmp_path, own) == [450]
    assert memory.free_bytes(CPU) is None or memory.free_bytes(CPU) > 0
    own.write_text("")
    assert memory._cgroup_free(tmp_path / "user", own) == [], "a process in no group"


def test_what_is_available_is_read(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:  60 kB\n")
    assert memory._available(tmp_path / "meminfo") == 60 << 10
    assert memory._available(tmp_path / "none") is None
