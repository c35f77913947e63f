"""Training end to end: reproducible, isolated, watchful; users' own modules and data."""

import contextlib
import copy
import json
import random
import re
import signal
import sys
import threading
import types

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import pygan
from pygan._session import own_defaults
from pygan.batches import Batches
from pygan.data import Batch, as_float
from pygan.data.scaling import Signed, Unit
from pygan.evaluate import ParzenWindow
from pygan.health import HealthWarning, NonFiniteError, diagnose, rank
from pygan.objectives import NonSaturating, Objective
from pygan.recipes import known_settings
from pygan.train import train

STATISTICS = Objective.statistics

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(run):
    return [*run.generator.state_dict().values(), *run.discriminator.state_dict().values()]


def same(one, other):
    return all(map(torch.equal, weights(one), weights(other))) and one.history == other.history


def test_the_seed_decides_everything(tmp_path):
    first, again, other = (tiny.run(tmp_path / str(i), seed=seed) for i, seed in enumerate((3, 3, 4)))
    assert same(first, again)
    assert not same(first, other)


def test_the_callers_random_state_neither_matters_nor_changes(tmp_path):
    first = tiny.run(tmp_path / "first")
    torch.manual_seed(99)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert same(first, tiny.run(tmp_path / "again"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002
    deterministic = torch.are_deterministic_algorithms_enabled()
    assert same(first, tiny.run(tmp_path / "deterministic", deterministic=True))
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_looking_at_a_run_does_not_change_it(tmp_path):
    seen = []

    def look(run):
        seen.append((run.history[-1]["epoch"], run.sample(3).shape))
        torch.randn(10)

    looked = tiny.run(tmp_path / "looked", epochs=4, on_epoch=look, evaluate_every=1, samples_every=1)
    plain = tiny.run(tmp_path / "plain", epochs=4, evaluate_every=4)
    assert seen == [(epoch, (3, 1, 4, 4)) for epoch in (1, 2, 3, 4)]
    assert [entry["d_loss"] for entry in looked.history] == [entry["d_loss"] for entry in plain.history]


def test_history_holds_the_means_of_each_epoch(tmp_path):
    run = tiny.run(tmp_path / "run", epochs=3, evaluate_every=2)
    assert [entry["epoch"] for entry in run.history] == [1, 2, 3]
    assert [entry["update"] for entry in run.history] == [4, 8, 12]
    assert [entry["log_likelihood"] is None for entry in run.history] == [True, False, False]
    first = run.history[0]
    assert set(STATISTICS) <= set(first)
    assert first["d_loss"] == pytest.approx(np.log(2), abs=0.01)
    assert first["d_real"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "setting",
    [
        {"objective": "saturating"},
        {"noise": "normal"},
        {"updates": "alternating"},
        {"updates": "alternating", "k": 2},
        {"optimizer": "adam"},
        {"generator_lr": 0.2},
        {"discriminator_lr": 0.2},
        {"lr_decay": 1.1},
        {"lr_anneal": "linear"},
        {"momentum": 0.2},
        {"momentum_epochs": 2},
        {"averaging": 0.9},
        {"precision": "bf16"},
        {"keep_input": 0.7},
        {"keep_hidden": 0.7},
        {"generator_range": 0.1},
        {"discriminator_range": 0.1},
        {"batch_size": 12},
        {"instance_noise": 0.1},
        {"gradient_penalty": 1.0},
    ],
    ids=str,
)
def test_every_setting_changes_the_run(tmp_path, setting):
    """A setting that is read but not used would give the same weights."""
    base = tiny.run(tmp_path / "base", discriminator_range=0.2)
    changed = tiny.run(tmp_path / "changed", **{"discriminator_range": 0.2, **setting})
    assert not all(map(torch.equal, weights(base), weights(changed)))


def test_a_gan_learns(tmp_path):
    """Stripes, bright or dark first, half the images each: the generator finds both, and how bright they are."""
    stripes = torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(1, 4, 4)
    sign = torch.where(torch.rand(600, 1, 1, 1) < 0.5, 1.0, -1.0)
    data = (0.5 + 0.25 * sign * stripes + 0.1 * torch.randn(600, 1, 4, 4)).clamp(0, 1)
    sizes = {"generator_hidden": (32,), "discriminator_hidden": (16,), "evaluation_samples": 500, "batch_size": 50}
    rates = {"optimizer": "adam", "generator_lr": 0.005, "discriminator_lr": 0.005, "discriminator_range": 0.1}
    run = tiny.run(tmp_path / "run", data, epochs=60, evaluate_every=10, seed=1, **sizes, **rates)
    found = (run.sample(500, seed=0) * stripes).mean((1, 2, 3))
    assert 0.3 < (found > 0).float().mean() < 0.7
    assert found.abs().mean().item() == pytest.approx(0.25, abs=0.08)
    assert run.log_likelihood().mean > 4  # The data themselves, as samples, give 12.


@pytest.mark.parametrize("flat", [True, False])
def test_modules_of_ones_own(tmp_path, flat):
    generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Sigmoid())
    if not flat:
        generator.append(nn.Unflatten(1, (1, 4, 4)))
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    before = generator[0].weight.detach().clone()
    settings = {"generator": generator, "discriminator": discriminator, "averaging": 0.9}
    run = tiny.run(tmp_path / "run", **settings)
    assert run.generator is generator
    assert run.discriminator is discriminator
    assert run.sample(3).shape == (3, 1, 4, 4)
    assert not torch.equal(generator[0].weight, before)
    with pytest.raises(ValueError, match="Sequential; pass one as generator="):
        pygan.load(run.path)
    fresh = {role: copy.deepcopy(settings[role]) for role in ("generator", "discriminator")}
    for player in fresh.values():
        for parameter in player.parameters():
            nn.init.zeros_(parameter)
    assert torch.equal(pygan.load(run.path, **fresh).sample(3, seed=0), run.sample(3, seed=0))


@pytest.mark.filterwarnings("ignore:the best bandwidth")
def test_validation_images_that_are_all_alike(tmp_path):
    alike = torch.full((8, 1, 4, 4), 128, dtype=torch.uint8)
    run = tiny.run(tmp_path / "run", valid=alike, test=tiny.images(8, seed=1), epochs=1, evaluate_every=1)
    assert run.history[-1]["log_likelihood"] is not None
    assert run.history[-1]["spread"] is None


def test_modules_that_do_not_fit_are_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"generator must map noise \[64, 4\] to images \[64, 1, 4, 4\] or \[64, 16\]"):
        tiny.run(tmp_path / "run", generator=nn.Linear(4, 15))


@pytest.mark.parametrize("part", ["generator.output.weight", "discriminator.hidden.0.bias"])
def test_a_nan_stops_the_run_and_is_named(tmp_path, part):
    def poison(run):
        if len(run.history) == 2:
            with torch.no_grad():
                dict(
                    nn.ModuleDict({"generator": run.generator, "discriminator": run.discriminator}).named_parameters()
                )[part].view(-1)[0] = float("nan")

    with pytest.raises(NonFiniteError, match="after update 8") as error:
        tiny.run(tmp_path / "run", epochs=9, on_epoch=poison)
    assert part in str(error.value)


def test_a_nan_between_looks_names_its_update(tmp_path):
    class Poisoned(nn.Sequential):
        passes = 0

        def forward(self, images):
            self.passes += self.training
            logits = super().forward(images)
            return logits * float("inf") if self.passes == 13 else logits  # the first pass of update 7

    with pytest.raises(NonFiniteError) as error:
        tiny.run(tmp_path / "run", epochs=9, discriminator=Poisoned(nn.Flatten(), nn.Linear(16, 1)))
    assert "update 7" in str(error.value)
    assert not (tmp_path / "run" / "checkpoints" / "best.safetensors").exists()


def entry(**values):
    healthy = {"epoch": 5, "update": 100, "d_loss": 0.6, "g_loss": 0.8, "d_real": 0.6, "d_fake": 0.4, "spread": None}
    return {**healthy, **values}


@pytest.mark.parametrize(
    ("history", "names"),
    [
        ([entry()] * 9, []),
        ([entry(d_real=0.999, d_fake=0.001)] * 2, []),
        ([entry(d_real=0.999, d_fake=0.001)] * 3, ["discriminator wins"]),
        ([entry(d_real=0.999, d_fake=0.001), entry(), entry(d_real=0.999, d_fake=0.001)], []),
        ([entry(g_loss=80.0)], ["divergence"]),
        ([entry(g_loss=-80.0)], ["divergence"]),
        ([entry(spread=0.01), entry(spread=0.02)], []),  # A young generator varies little.
        ([entry(spread=0.8), entry(), entry(spread=0.05)], ["collapse"]),
        ([entry(spread=0.8), entry(spread=0.7)], []),
    ],
)
def test_what_is_diagnosed(history, names):
    assert list(diagnose(history) | NonSaturating().diagnose(history)) == names


def test_the_advice_where_the_discriminator_wins_names_settings_that_there_are():
    _, sentence = NonSaturating().diagnose([entry(d_real=0.999, d_fake=0.001)] * 3)["discriminator wins"]
    named = set(re.findall(r"[a-z]+_[a-z]+", sentence))
    assert {"gradient_penalty", "keep_input", "keep_hidden"} <= named <= set(known_settings())


def test_a_warning_comes_once_with_advice_and_not_again_after_a_resume(tmp_path):
    loud = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    nn.init.constant_(loud[1].weight, 100.0)
    settings = {"discriminator": loud, "discriminator_lr": 1e-6, "generator_lr": 1e-6}
    with pytest.warns(HealthWarning, match="losses diverge.*Lower both learning rates") as record:
        tiny.run(tmp_path / "run", epochs=3, **settings)
    assert len([w for w in record if "diverge" in str(w.message)]) == 1
    tiny.run(tmp_path / "run", epochs=4, resume=True, **settings)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batches_are_a_permutation_of_the_data_in_each_epoch(dtype):
    images = tiny.images(25)
    images = images if dtype == torch.uint8 else as_float(images)
    data, cpu = Batch(images, torch.arange(25)), torch.device("cpu")
    batches = Batches(data, 10, 3, cpu, Signed())
    assert batches.per_epoch == 2
    epochs = [[batches.indices() for _ in range(2)] for _ in range(3)]
    for epoch in epochs:
        assert len(set(torch.cat(epoch).tolist())) == 20
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    batches.position = 3
    batch = batches()
    assert torch.equal(batch.images, 2 * as_float(images[epochs[1][1]]) - 1)
    assert torch.equal(batch.labels, epochs[1][1])
    assert not torch.equal(Batches(data, 10, 4, cpu, Unit()).indices(), epochs[0][0])


def test_k_batches_make_one_update(tmp_path):
    run = tiny.run(tmp_path / "run", updates="alternating", k=2)
    assert [entry["update"] for entry in run.history] == [2, 4]


def test_the_test_split_is_read_once_at_the_end(tmp_path, monkeypatch):
    reads = []

    class Watched(ParzenWindow):
        def score(self, test):
            reads.append((len(test), (tmp_path / "run" / "log.jsonl").read_text().count("\n")))
            return super().score(test)

    monkeypatch.setattr("pygan.run.ParzenWindow", Watched)
    tiny.run(tmp_path / "run", epochs=4, evaluate_every=1)
    assert reads == [(6, 4)]


def test_the_line_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tiny.run(tmp_path / "run", progress=True)
    said = capsys.readouterr().err
    assert "epoch 2/2" in said
    assert "D(x) 0.50" in said
    assert "nats on the test split" in said


def test_small_data_train_by_default(tmp_path):
    run = train(tiny.images(30), out=tmp_path / "run", epochs=1, progress=False, evaluation_samples=20)
    assert run.recipe.batch_size == 24
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert np.isfinite(result["log_likelihood"])


@pytest.mark.parametrize("bad", [-1, 1.5, "0"])
def test_a_seed_is_a_number_from_0_on(tmp_path, bad):
    with pytest.raises((TypeError, ValueError), match="seed"):
        tiny.run(tmp_path / "run", seed=bad)


def test_an_unknown_setting_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="unknown setting 'nois'; did you mean 'noise'"):
        tiny.run(tmp_path / "run", nois="normal")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_tensorboard_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match=r"tensorboard=True needs .*\[tensorboard\]"):
        tiny.run(tmp_path / "run", tensorboard=True)


@pytest.fixture
def told(monkeypatch):
    """What TensorBoard is told, by a stand-in, for it may not be installed.

    (folder, first epoch), then (number, epoch), and (folder, "closed").
    """
    said = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.folder = folder.name
            said.append((self.folder, purge_step))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            said.append((self.folder, "closed"))

        def add_scalar(self, name, value, epoch):
            said.append((name, epoch))

        def flush(self): ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    return said


def test_tensorboard_gets_what_the_log_says(tmp_path, told):
    """A resumed run goes on after the epochs that it kept."""
    tiny.run(tmp_path / "run", tensorboard=True)
    tiny.run(tmp_path / "run", tensorboard=True, epochs=3, resume=True)
    said = [(name, epoch) for name, epoch in told if name in ("tensorboard", "d_loss")]
    closed = ("tensorboard", "closed")
    assert said == [
        *[("tensorboard", 1), ("d_loss", 1), ("d_loss", 2), closed],
        *[("tensorboard", 3), ("d_loss", 3), closed],
    ]


def _fail(run):
    raise ArithmeticError


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda run: False, None),
        (_fail, ArithmeticError),
        (lambda run: signal.raise_signal(signal.SIGINT), KeyboardInterrupt),
    ],
    ids=["stopped", "an error", "Ctrl-C"],
)
def test_tensorboard_is_opened_and_closed_once_however_a_run_ends(tmp_path, told, end, error):
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        tiny.run(tmp_path / "run", tensorboard=True, epochs=9, evaluate_every=5, on_epoch=end)
    assert [said for said in told if said[0] == "tensorboard"] == [("tensorboard", 1), ("tensorboard", "closed")]
    assert told[-1] == ("tensorboard", "closed")


# ---- how a run ends -------------------------------------------------------------------------------------------------


def test_on_epoch_ends_a_run_properly(tmp_path):
    ways = {
        "false": lambda run: len(run.history) < 3,
        "stop": lambda run: run.stop() if len(run.history) == 3 else None,
    }
    for name, way in ways.items():
        run = tiny.run(tmp_path / name, epochs=9, evaluate_every=3, on_epoch=way)
        assert [entry["epoch"] for entry in run.history] == [1, 2, 3]
        result = json.loads((run.path / "result.json").read_text())
        assert (result["epochs"], result["stopped"]) == (3, "on_epoch ended it")
        assert len(tiny.run(tmp_path / name, epochs=9, evaluate_every=3, resume=True).history) == 3
    longer = tiny.run(tmp_path / "stop", epochs=12, evaluate_every=3, resume=True)
    straight = tiny.run(tmp_path / "straight", epochs=12, evaluate_every=3)
    assert same(longer, straight)


def test_a_run_that_is_stopped_before_its_first_evaluation_tells_tensorboard_its_score(tmp_path, told):
    settings = {"epochs": 9, "evaluate_every": 5, "on_epoch": lambda run: False}
    run = tiny.run(tmp_path / "run", tensorboard=True, **settings)
    said = [(name, epoch) for name, epoch in told if name != "tensorboard"]
    assert sorted(said) == sorted((name, 1) for name, value in run.history[0].items() if name != "epoch"), "each once"


def test_a_player_without_anything_to_train_is_refused(tmp_path):
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).requires_grad_(False)
    for optimizer in ("momentum", "adam"):
        with pytest.raises(ValueError, match="discriminator must have a parameter that requires a gradient"):
            tiny.run(tmp_path / "run", discriminator=frozen, optimizer=optimizer)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_stopped_before_its_first_evaluation_has_a_result(tmp_path):
    run = tiny.run(tmp_path / "run", epochs=9, evaluate_every=5, on_epoch=lambda run: False)
    assert len(run.history) == 1
    assert run.history[0]["log_likelihood"] is not None


def test_an_error_in_on_epoch_loses_nothing(tmp_path):
    def fail(run):
        if len(run.history) == 3:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        tiny.run(tmp_path / "run", epochs=5, checkpoint_every=100, keep_every=3, on_epoch=fail)
    assert len(pygan.load(tmp_path / "run", "0003").history) == 3
    assert len(pygan.load(tmp_path / "run", "last").history) == 3
    resumed = tiny.run(tmp_path / "run", epochs=5, checkpoint_every=100, keep_every=3, resume=True)
    assert same(resumed, tiny.run(tmp_path / "straight", epochs=5, checkpoint_every=100))


def test_patience_ends_a_run_that_no_longer_improves(tmp_path):
    still = {"generator_lr": 1e-9, "discriminator_lr": 1e-9, "lr_floor": 0.0, "evaluate_every": 1}
    run = tiny.run(tmp_path / "run", epochs=50, patience=4, **still)
    ranks = [rank(entry) for entry in run.history]
    levels = [ranked[:2] for ranked in ranks]
    assert len(levels) == levels.index(max(levels)) + 1 + 4
    result = json.loads((run.path / "result.json").read_text())
    assert result["stopped"] == "no better log-likelihood for 4 epochs"
    assert result["best_epoch"] == ranks.index(max(ranks)) + 1


# ---- refused before the first update --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 1500])
def test_a_test_split_that_only_repeats_the_validation_split_is_refused(tmp_path, n):
    images = tiny.images(8, seed=1)
    splits = {"valid": images.repeat(-(-n // 8), 1, 1, 1)[:n], "test": images}
    with pytest.raises(ValueError, match="test must hold images that valid does not hold; all 8"):
        tiny.run(tmp_path / "run", **splits)
    with pytest.raises(ValueError, match="test must hold images that valid does not hold"):
        tiny.run(tmp_path / "run", torch.full((60, 1, 4, 4), 7, dtype=torch.uint8))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("floats", ["valid", "test"])
def test_it_is_refused_too_if_one_split_holds_bytes_and_the_other_floats(tmp_path, floats):
    images = torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4)
    splits = {"valid": images, "test": images, floats: images.numpy() / 255}
    with pytest.raises(ValueError, match="test must hold images that valid does not hold; all 16"):
        tiny.run(tmp_path / "run", **splits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": torch.zeros(3)}, r"recipe must be a name \(.*got Tensor; labels go with their images: train\(\("),
        ({"recipe": {"k": 2}}, "recipe must be a name .*got dict"),
        ({"recipe": 5}, "recipe must be a name .*got int"),
        ({"generator": 5}, "generator must be a torch.nn.Module or None, got int"),
        ({"discriminator": "mine"}, "discriminator must be a torch.nn.Module or None, got str"),
        ({"generator_lr": 10**400}, "generator_lr must be finite, got 1000"),
        ({"k": True}, "k must be int, got True"),
        ({"seed": 1.5}, "seed must be int, got 1.5"),
        ({"adam_beta1": 0.5}, "'adam_beta1' goes with optimizer='adam', which this recipe does not use"),
        ({"conditional": True}, "conditional=True needs labels, and 'tensor' has none"),
    ],
)
def test_arguments_of_another_kind_are_named(tmp_path, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tiny.run(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_are_numbers(tmp_path):
    ours = tiny.run(tmp_path / "ours", seed=3, generator_lr=0.1, batch_size=10, generator_hidden=[8, 8])
    numpys = {"seed": np.int64(3), "generator_lr": np.float64(0.1), "batch_size": np.int32(10)}
    theirs = tiny.run(tmp_path / "theirs", **numpys, generator_hidden=[np.int64(8), np.int64(8)])
    assert same(ours, theirs)
    assert pygan.load(theirs.path).recipe.batch_size == 10


class Reshaped(nn.Module):
    """A player that ends as the function says."""

    def __init__(self, inputs, outputs, end):
        super().__init__()
        self.layer, self.end = nn.Linear(inputs, outputs, bias=False), end

    def forward(self, x):
        return self.end(self.layer(x.flatten(1)))


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ({"generator": Reshaped(4, 16, torch.tanh)}, r"images in \[0, 1\].*tanh and pass pixels='signed'"),
        ({"generator": Reshaped(4, 16, torch.nn.Identity())}, r"images in \[0, 1\], the pixel scale 'unit', got \[-"),
        ({"generator": Reshaped(4, 16, lambda x: x.sigmoid() / 0)}, "generator must .* NaN or infinite"),
        ({"discriminator": Reshaped(16, 1, torch.sigmoid)}, "seems to end in a sigmoid.*remove its last layer"),
        ({"discriminator": Reshaped(16, 1, lambda x: (x, x))}, "discriminator must map images .*got tuple"),
        ({"discriminator": Reshaped(16, 2, nn.Identity())}, r"discriminator must map images .*got \[64, 2\]"),
        ({"discriminator": Reshaped(16, 1, lambda x: x.long())}, "in floating point, got torch.int64"),
    ],
)
def test_players_as_tutorials_write_them_are_refused_with_advice(tmp_path, players, message):
    with pytest.raises(ValueError, match=message):
        tiny.run(tmp_path / "run", **players)
    assert not (tmp_path / "run").exists()


def test_a_generator_that_ends_in_tanh_plays_on_the_signed_scale(tmp_path):
    run = tiny.run(tmp_path / "run", generator=Reshaped(4, 16, torch.tanh), pixels="signed")
    samples = run.sample(50, seed=0)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert samples.mean().item() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(run.generate(run.noise(50, seed=0)), samples)
    fresh = Reshaped(4, 16, torch.tanh)
    assert torch.equal(pygan.load(run.path, generator=fresh).sample(50, seed=0), samples)


# ---- where it is called from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.filterwarnings("ignore:precision='bf16'")
def test_the_callers_modes_do_not_matter(tmp_path, precision):
    def default_dtype():
        torch.set_default_dtype(torch.bfloat16)
        return contextlib.nullcontext()

    modes = {
        "none": contextlib.nullcontext,
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "dtype": default_dtype,
        "device": lambda: torch.device("meta"),
    }
    runs, images = [], tiny.images()
    for name, mode in modes.items():
        try:
            with mode():
                runs.append(tiny.run(tmp_path / name, images, step="plain", precision=precision))
        finally:
            torch.set_default_dtype(torch.float32)
    assert all(same(run, runs[0]) for run in runs)


def test_a_run_is_used_under_other_defaults(tmp_path):
    """ "meta" stands for any default device but the CPU's: a tensor made there by mistake has no numbers."""
    np.save(tmp_path / "images.npy", tiny.images().numpy())
    trained = tiny.run(tmp_path / "run", str(tmp_path / "images.npy"))

    def used():
        run = pygan.load(trained.path)
        found = [run.sample(3, seed=1), run.generate(run.noise(2, seed=0)), run.judge(run.sample(2, seed=0))]
        found += [run.nearest_training_images(found[0]), run.features(found[0])]
        report = pygan.report.write(run, tmp_path / "page.html").read_text()
        numbers = run.validation(), run.log_likelihood().mean, run.reference_log_likelihood()
        pictures = run.picture(), run._repr_html_(), pygan.pictures.grid(found[0]).tolist(), report.count("data:image")
        return [tensor.tolist() for tensor in found], numbers, pictures

    expected = used()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert used() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_default_dtype_is_restored_when_the_last_context_ends():
    one, other = own_defaults(torch.device("cpu")), own_defaults(torch.device("cpu"))
    torch.set_default_dtype(torch.float64)
    try:
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        other.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_threads_do_not_train_at_once(tmp_path):
    """Both would draw from torch's default generators, and neither would get the bits of its seed."""
    began, go_on = threading.Event(), threading.Event()

    def wait(run):
        began.set()
        assert go_on.wait(60)

    first = threading.Thread(target=tiny.run, args=(tmp_path / "first",), kwargs={"on_epoch": wait})
    first.start()
    try:
        assert began.wait(60)
        with pytest.raises(RuntimeError, match="another thread of this process is training"):
            tiny.run(tmp_path / "second")
        assert not (tmp_path / "second").exists()
    finally:
        go_on.set()
        first.join()
    assert same(pygan.load(tmp_path / "first"), tiny.run(tmp_path / "alone"))


def test_a_run_within_a_run(tmp_path):
    """As a user's on_epoch may do."""
    outer = tiny.run(tmp_path / "outer", on_epoch=lambda run: tiny.run(tmp_path / f"inner{len(run.history)}"))
    assert same(outer, tiny.run(tmp_path / "alone"))
    assert same(pygan.load(tmp_path / "inner1"), pygan.load(tmp_path / "alone"))
