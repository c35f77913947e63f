import copy
import gc
import os
import platform
import subprocess
import sys
import tomllib
from collections import Counter
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import tiny
import torch
from torch import nn

from pygan import _core, build_info, fast
from pygan.algorithm import ALGORITHMS
from pygan.batches import Batches
from pygan.data import Batch
from pygan.data.scaling import Unit
from pygan.fast import choose_products, fused, graph, make_step, products
from pygan.fast.fused import FusedStep
from pygan.fast.sparse_products import SparseProducts
from pygan.models import Generator
from pygan.nn import Maxout
from pygan.optim import OPTIMIZERS, MovingAverage, Rates
from pygan.recipes import Recipe
from pygan.step import PlainStep

pytestmark = pytest.mark.filterwarnings("ignore:precision='bf16'")

CPU = torch.device("cpu")
LIBRARIES = get_args(products.Library)
SHAPE = (1, 7, 9)
RATES = [Rates(0.1, 0.05, 0.5), Rates(0.09, 0.04, 0.6), Rates(0.08, 0.03, 0.7)]


def recipe(**settings):
    """Small players; a generator of two ReLU layers, unless the settings name another model."""
    small = {"batch_size": 10, "noise_size": 12, "discriminator_hidden": (16, 12), "pieces": 3}
    ranges = {"generator_range": 0.3, "discriminator_range": 0.3}
    hidden = {} if "model" in settings else {"generator_hidden": (20, 24)}
    return Recipe().with_settings(**{**small, **ranges, **hidden, "updates": "alternating", **settings})


def new_game(recipe, bias=None):
    """The same players each time; `bias` is that of the generator's hidden units."""
    torch.manual_seed(1)
    game = tiny.game(recipe, SHAPE)
    if bias is not None:
        for layer in game.generator.hidden:
            nn.init.constant_(layer.bias, bias)
    return game


def weights(game):
    return {**game.generator.state_dict(prefix="g."), **game.discriminator.state_dict(prefix="d.")}


def batches(recipe):
    generator = torch.Generator().manual_seed(2)

    def real():
        return Batch(torch.rand(recipe.batch_size, *SHAPE, generator=generator))

    real.generator = generator
    return real


def play(step, recipe, rates=RATES):
    torch.manual_seed(3)
    real = batches(recipe)
    for now in rates:
        step(real, now)
    return step


def both(recipe, bias=None):
    """The same iterations by the plain and the fused step."""
    steps = []
    for choice in ("plain", "auto"):
        chosen, game = recipe.with_settings(step=choice), new_game(recipe, bias)
        steps.append(play(make_step(game, chosen, CPU), chosen))
        steps[-1].weights = weights(game)
    assert [type(step) for step in steps] == [PlainStep, FusedStep]
    return steps


def assert_same(plain, fused, **tolerance):
    for ours, reference in ((fused.weights, plain.weights), (fused.state_dict(), plain.state_dict())):
        assert ours.keys() == reference.keys()
        for name, tensor in reference.items():
            torch.testing.assert_close(ours[name], tensor, **tolerance, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(fused.statistics(), plain.statistics(), **tolerance)


RELU_SIGMOID = {"model": "relu_sigmoid_mlp", "relu_units": 20, "sigmoid_units": 24}

CASES = {
    "alternating": {},
    "three discriminator updates": {"k": 3},
    "simultaneous": {"updates": "simultaneous"},
    "saturating": {"objective": "saturating"},
    "saturating simultaneous": {"objective": "saturating", "updates": "simultaneous"},
    "normal noise": {"noise": "normal"},
    "one layer": {"generator_hidden": (20,), "discriminator_hidden": (16,), "updates": "simultaneous"},
    "three layers": {"generator_hidden": (20, 9, 8), "discriminator_hidden": (16, 5, 4), "updates": "simultaneous"},
    "no dropout": {"keep_input": 1.0, "keep_hidden": 1.0, "updates": "simultaneous"},
    "dropout of hidden layers only": {"keep_input": 1.0},
    "adam": {"optimizer": "adam"},
    "instance noise": {"instance_noise": 0.2},
    "penalty": {"gradient_penalty": 2.0},
    "penalty, simultaneous": {"gradient_penalty": 0.3, "instance_noise": 0.2, "updates": "simultaneous"},
    "penalty, three layers": {"gradient_penalty": 2.0, "discriminator_hidden": (16, 5, 4), "k": 2},
    "penalty, no dropout": {"gradient_penalty": 2.0, "keep_input": 1.0, "keep_hidden": 1.0},
    "linear output": RELU_SIGMOID,
    "linear output, simultaneous": {**RELU_SIGMOID, "updates": "simultaneous"},
    "sigmoid output": {**RELU_SIGMOID, "generator_output": "sigmoid", "output_sparse": 5, "updates": "simultaneous"},
    "bound on column norms": {**RELU_SIGMOID, "max_column_norm": 0.5, "updates": "simultaneous"},
    "phase 2": {**RELU_SIGMOID, "front_units": 18, "generator_output": "sigmoid", "updates": "simultaneous"},
    "one image": {"batch_size": 1, "updates": "simultaneous"},
    "large": {"batch_size": 100, "discriminator_hidden": (48, 48), "pieces": 5, "updates": "simultaneous"},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_same_numbers_as_the_plain_step(settings):
    loose = {"rtol": 1e-2, "atol": 1e-3} if "adam" in settings.values() else {"rtol": 1e-4, "atol": 1e-5}
    assert_same(*both(recipe(**settings)), **loose)


# Hidden layers, and a bias that silences most of their units; a layer of 20 units is too small for other products.
SILENT = {"last layer": ((20, 180), -0.3), "both layers": ((200, 180), -0.5)}


@pytest.mark.parametrize(("hidden", "bias"), SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_same_numbers_where_most_units_are_silent(updates, hidden, bias, monkeypatch):
    """The products of sparse activations: forward behind each such layer; backward two at each, one at the first."""
    used = Counter()
    for name in ("affine", "times", "outer"):
        product = getattr(SparseProducts, name)
        monkeypatch.setattr(SparseProducts, name, lambda *args, n=name, f=product: (used.update([n]), f(*args))[1])
    chosen = recipe(updates=updates, batch_size=100, generator_hidden=hidden)
    plain, fused = both(chosen, bias)
    assert_same(plain, fused, rtol=1e-4, atol=1e-5)
    for name, before in new_game(chosen, bias).generator.state_dict(prefix="g.").items():
        assert not torch.equal(plain.weights[name], before), f"{name} has no gradient here"
    silent, done = 1 + (hidden[0] == 200), len(RATES)
    assert used == {"affine": done * silent, "times": done, "outer": done * silent}


@pytest.mark.parametrize("k", [1, 3])
def test_no_pass_of_the_generator_is_larger_than_two_batches(k, monkeypatch):
    """The memory of a step would otherwise grow with k, unlike the estimate of `pygan.memory`."""
    rows: list[int] = []
    forward = fused._Painter.forward
    monkeypatch.setattr(fused._Painter, "forward", lambda self, z: (rows.append(len(z)), forward(self, z))[1])
    chosen = recipe(k=k)
    play(make_step(new_game(chosen), chosen, CPU), chosen, RATES[:1])
    n = chosen.batch_size
    assert rows == [n] * (k - 1) + [2 * n]


FREES = """
import ctypes, resource, sys
import torch
sys.path.insert(0, sys.argv[1])
import test_fast as t

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.ones(1 << 20) for _ in range(6)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
chosen = t.recipe()
t.make_step(t.new_game(chosen), chosen, t.CPU)
faults()
again = faults()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
size = ctypes.c_size_t.from_address(libc.malloc(31 << 20) - ctypes.sizeof(ctypes.c_size_t)).value  # before the block
print(again, int(size & 2 == 0))  # 2 marks a block of its own, which goes back to the system when it is freed
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, whose rules are others")
def test_the_memory_that_a_step_frees_stays_in_the_process():
    """Six blocks of 4 MB, twenty times: glibc alone may return them each time and fetch all 6,144 pages again.

    It does so in two processes of three, as their heaps happen to lie. A block of 31 MB would in all be one of its own.
    """
    command = [sys.executable, "-W", "ignore", "-c", FREES, str(Path(__file__).parent)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    faults, from_heap = map(int, done.stdout.split())
    assert faults < 1000
    assert from_heap


@pytest.mark.parametrize("bias", [-1e4, -90.0, 90.0, 1e4])
@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_same_numbers_at_extreme_logits(updates, bias):
    """One player's derivative by a logit is then 0 or denormal, the other's 1: their ratio would be no number."""
    chosen = recipe(updates=updates)
    results = []
    for step in ("plain", "auto"):
        game = new_game(chosen)
        with torch.no_grad():
            game.discriminator.output.bias.fill_(bias)
        play(make_step(game, chosen.with_settings(step=step), CPU), chosen, RATES[:1])
        results.append(weights(game).values())
    for plain, fast_one in zip(*results, strict=True):
        assert fast_one.isfinite().all()
        torch.testing.assert_close(fast_one, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
# With one piece, no winner depends on rounding, which would move all parameters behind it by several times as much.
@pytest.mark.parametrize(
    ("settings", "bias"),
    [({}, None), ({**RELU_SIGMOID, "pieces": 1}, None), ({"generator_hidden": (20, 180), "batch_size": 100}, -0.3)],
    ids=["ReLU", "ReLU and sigmoid", "mostly silent"],
)
def test_bf16_is_as_close_to_float32_as_autocast(updates, library, settings, bias):
    settings = {"batch_size": 50, **settings, "updates": updates}
    exact, _ = both(recipe(**settings), bias)
    autocast, fused = both(recipe(**settings, precision="bf16", products=library), bias)
    for name, expected in exact.weights.items():
        error = (fused.weights[name] - expected).norm()
        luck = 0.01 if expected.numel() == 1 else 1e-6  # by which autocast may happen to be right
        assert error <= 2 * (autocast.weights[name] - expected).norm() + luck * expected.norm(), name
        assert fused.weights[name].dtype == torch.float32
    torch.testing.assert_close(fused.statistics(), exact.statistics(), rtol=0.05, atol=0.05)


# By how much the two may be apart after 200 updates, as a part of the way that the plain one has gone. Rounding alone
# gives up to .2 with bfloat16; a step that multiplies by old weights is off by more than the whole way.
APART = {"float32": 1e-4, "bf16": 0.4}


@pytest.mark.parametrize("updates", ALGORITHMS)
def test_bf16_blurs_with_the_noise_of_the_plain_step(updates):
    """Instance noise has the dtype of the images. Other noise moves the weights another way altogether."""
    chosen = recipe(updates=updates, precision="bf16", instance_noise=1.0, batch_size=50)
    start = weights(new_game(chosen))
    plain, fused = both(chosen)
    for name, expected in plain.weights.items():
        if expected.numel() > 1:
            way = (expected - start[name]).norm()
            assert (fused.weights[name] - expected).norm() <= APART["bf16"] * way, name
    torch.testing.assert_close(fused.statistics(), plain.statistics(), rtol=0, atol=0.01)


class Playing:
    """A game, its step, its batches and the generator's average, from the same start each time."""

    def __init__(self, recipe, bias=None):
        self.recipe, self.game = recipe, new_game(recipe, bias)
        self.step, self.real = make_step(self.game, recipe, CPU), image_batches(recipe)
        self.averaged, self.done = MovingAverage(self.game.generator, 0.99), 0
        self.random = torch.Generator().manual_seed(5).get_state()

    def on(self, updates):
        """So many updates, and the statistics of them."""
        torch.set_rng_state(self.random)
        for _ in range(updates):
            self.step(self.real, self.recipe.rates(self.done, 9))
            self.averaged.update(self.game.generator)
            self.done += 1
        self.random = torch.get_rng_state()
        return self.step.statistics()

    def modules(self):
        return self.game.generator, self.game.discriminator, self.step, self.averaged

    def tensors(self):
        return {
            f"{place}.{name}": tensor.detach().clone()
            for place, module in enumerate(self.modules())
            for name, tensor in module.state_dict().items()
        }

    def kill(self):
        """Another one, which has nothing of this one but what a checkpoint holds."""
        saved = copy.deepcopy([module.state_dict() for module in self.modules()])
        resumed = Playing(self.recipe)
        for module, state in zip(resumed.modules(), saved, strict=True):
            module.load_state_dict(state)
        resumed.step.reload()
        resumed.done, resumed.real.position, resumed.random = self.done, self.real.position, self.random
        return resumed


@pytest.mark.parametrize("precision", APART)
@pytest.mark.parametrize("updates", ALGORITHMS)
def test_silent_units_after_a_kill(updates, precision):
    """Which products are sparse is counted anew in each update, and a resumed step counts as the other does."""
    chosen = recipe(updates=updates, precision=precision, batch_size=95, generator_hidden=(20, 180))
    playing = Playing(chosen, bias=-0.3)
    playing.on(3)
    resumed = playing.kill()
    assert torch.equal(resumed.on(5), playing.on(5))
    ours = playing.tensors()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in resumed.tensors().items())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("gradient_penalty", [0.0, 0.5])
@pytest.mark.parametrize("updates", ALGORITHMS)
@pytest.mark.parametrize("precision", APART)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_many_updates_are_those_of_the_plain_step_and_go_on_after_a_kill(
    optimizer, precision, updates, gradient_penalty
):
    """200 updates; the generator's average, which takes no part in them, is followed beside each."""
    rate = {"momentum": 0.02, "adam": 0.001, "rmsprop": 0.001}[optimizer]
    chosen = recipe(
        optimizer=optimizer,
        precision=precision,
        updates=updates,
        gradient_penalty=gradient_penalty,
        generator_lr=rate,
        discriminator_lr=rate,
    )
    plain, fused = Playing(chosen.with_settings(step="plain")), Playing(chosen)
    assert [type(playing.step) for playing in (plain, fused)] == [PlainStep, FusedStep]
    start = plain.tensors()
    expected = plain.on(200)
    first = fused.on(100)
    resumed = fused.kill()
    last = fused.on(100)
    assert torch.equal(resumed.on(100), last)
    ours, theirs = fused.tensors(), plain.tensors()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in resumed.tensors().items())

    def way(one, other):
        return torch.cat([(one[n] - other[n]).flatten().double() for n in start if start[n].is_floating_point()]).norm()

    assert way(ours, theirs) <= APART[precision] * way(theirs, start)
    torch.testing.assert_close(torch.cat([first, last])[-50:].mean(0), expected[-50:].mean(0), rtol=0, atol=0.02)


@pytest.mark.parametrize("step", ["auto", "plain"])
def test_bf16_sees_parameters_that_somebody_changed(step):
    """With `reload`, and for both steps alike: the same numbers as a step that is made from the changed players."""
    chosen, results = recipe(precision="bf16", step=step), []
    for changed_before in (True, False):
        game = new_game(chosen)
        tested = make_step(game, chosen, CPU) if not changed_before else None
        with torch.no_grad():
            for parameter in [*game.generator.parameters(), *game.discriminator.parameters()]:
                parameter.mul_(0.5)
        if tested is None:
            tested = make_step(game, chosen, CPU)
        else:
            tested.reload()
        results.append([*play(tested, chosen).state_dict().values(), *weights(game).values()])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_products_of_each_library_give_the_same_numbers(precision):
    _, ours = both(recipe(products="torch", precision=precision))
    _, other = both(recipe(products="onednn", precision=precision))
    loose = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.05, "atol": 0.02}
    assert_same(other, ours, **loose)


@pytest.fixture
def measured(monkeypatch):
    """Sets what each library takes, in place of the clock."""

    def take(by_torch, by_onednn):
        products._measured.cache_clear()
        least = {"torch": by_torch, "onednn": by_onednn}
        monkeypatch.setattr(products, "_least_seconds", lambda layers, dtype: least)

    yield take
    products._measured.cache_clear()


@pytest.mark.parametrize(("by_onednn", "chosen"), [(0.5, "onednn"), (0.95, "torch"), (1.0, "torch"), (2.0, "torch")])
def test_the_faster_library_is_chosen_and_torch_between_equals(measured, monkeypatch, by_onednn, chosen):
    measured(1.0, by_onednn)
    layers = (products.Layer(2, 3, 4, backward=2),)
    assert products.faster_library("auto", layers, torch.float32) == chosen
    assert products.faster_library("onednn", layers, torch.float32) == "onednn"
    monkeypatch.setattr(products, "HAS_ONEDNN", False)
    assert {products.faster_library(asked, layers, torch.float32) for asked in ("auto", "onednn")} == {"torch"}


def test_every_product_is_measured(monkeypatch):
    called = []
    for product in ("affine", "times", "outer"):
        monkeypatch.setattr(products.Products, product, lambda self, *operands, name=product: called.append(name))
    layers = [products.Layer(4, 3, 4, backward=2), products.Layer(2, 4, 5, backward=0)]
    assert products._least_seconds(layers, torch.float32).keys() == set(LIBRARIES)
    assert called == ["affine", "times", "outer", "affine"] * len(LIBRARIES) * products._ROUNDS
    called.clear()
    monkeypatch.setattr(products, "_ENOUGH", 0)
    products._least_seconds(layers, torch.float32)
    assert called == ["affine", "times", "outer", "affine"] * len(LIBRARIES) * products._FEWEST


def test_a_resumed_run_keeps_its_library_whatever_is_measured_now(tmp_path, measured):
    """Otherwise its bits would depend on the clock: the libraries add in different orders."""
    wide = {"generator_hidden": (96, 96), "discriminator_hidden": (96,), "batch_size": 8}
    measured(2.0, 1.0)
    whole = tiny.run(tmp_path / "whole", **wide)
    tiny.run(tmp_path / "resumed", **wide, epochs=1)
    measured(1.0, 2.0)
    resumed = tiny.run(tmp_path / "resumed", **wide, resume=True)
    other = tiny.run(tmp_path / "other", **wide)
    stored = [tomllib.loads((run.path / "config.toml").read_text())["products"] for run in (whole, resumed, other)]
    assert stored == ["onednn", "onednn", "torch"]
    numbers = [[p.detach() for p in run.generator.parameters()] for run in (whole, resumed, other)]
    assert all(map(torch.equal, numbers[0], numbers[1]))
    assert not all(map(torch.equal, numbers[0], numbers[2])), "the libraries give the same bits, so this shows nothing"


@pytest.mark.parametrize(
    ("family", "precision", "library"),
    [(25, "float32", "onednn"), (0, "float32", "torch"), (0, "bf16", "onednn")],
)
def test_a_run_of_version_0_1_keeps_the_library_of_that_version(monkeypatch, family, precision, library):
    monkeypatch.setattr(_core, "amd_family", lambda: family)
    chosen = recipe(precision=precision)
    assert choose_products(new_game(chosen), chosen, CPU, before={}) == library


@pytest.mark.parametrize(("settings", "painted"), [({"updates": "simultaneous"}, 10), ({}, 20), ({"k": 3}, 20)])
def test_what_is_measured_are_the_products_of_a_step(settings, painted, monkeypatch):
    """Real and generated images pass the discriminator together, and its gradients are kernels, not products.

    Alternating updates make all their images at once; only the last batch of them has gradients.
    """
    measured = []
    monkeypatch.setattr(fused, "faster_library", lambda *asked: measured.append(asked) or "torch")
    chosen = recipe(precision="bf16", **settings)
    choose_products(new_game(chosen), chosen, CPU)
    ((asked, layers, dtype),) = measured
    generator = [(painted, 12, 20, 10), (painted, 20, 24, 10), (painted, 24, 63, 10)]
    discriminator = [(20, 63, 3 * 16, 0), (20, 16, 3 * 12, 0)]
    assert [tuple(layer) for layer in layers] == generator + discriminator
    assert (asked, dtype) == ("auto", torch.bfloat16)


def test_the_family_of_the_processor_is_the_systems():
    info = Path("/proc/cpuinfo")
    if not info.exists() or build_info()["simd_built"] == ["baseline"]:
        pytest.skip("needs Linux on x86")
    fields = dict(reversed([line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]))
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    expected = int(fields["cpu family"]) if fields["vendor_id"] == "AuthenticAMD" else 0
    assert _core.amd_family() == expected


@pytest.mark.parametrize("settings", [{"step": "plain"}, {"updates": "simultaneous", "precision": "float32"}])
def test_only_the_fused_step_on_the_cpu_has_a_choice(settings):
    chosen = recipe(products="onednn", **settings)
    game, fusible = new_game(chosen), settings.get("step") != "plain"
    assert choose_products(game, chosen, CPU) == ("onednn" if fusible else "torch")
    assert choose_products(game, chosen, torch.device("cuda")) == "torch"


def test_keeps_no_more_memory_from_step_to_step():
    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    chosen = recipe(updates="simultaneous")
    step = play(make_step(new_game(chosen), chosen, CPU), chosen)
    step.statistics()
    before = tensors()
    play(step, chosen)
    step.statistics()
    assert tensors() == before


# ---- CUDA graphs, as far as they can be tested without a GPU --------------------------------------------------------


@pytest.fixture
def captures(monkeypatch):
    """A stand-in for CUDA's capture: it runs nothing at first, and the same Python code again at each replay."""
    functions = []

    def capture(function, device):
        functions.append(function)
        return function

    monkeypatch.setattr(graph, "capture", capture)
    return functions


def graph_step(game, recipe, device):
    return graph.GraphStep(make_step(game, recipe, device), recipe.k, device)


def image_batches(recipe):
    images = torch.randint(256, (95, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    return Batches(Batch(images), recipe.batch_size, 0, CPU, Unit())


@pytest.mark.parametrize("step", ["auto", "plain"])
@pytest.mark.parametrize(
    "settings", [{"updates": "simultaneous"}, {"k": 3}, {"optimizer": "adam"}, {"precision": "bf16"}], ids=str
)
def test_replayed_step_gives_the_same_bits(captures, settings, step):
    chosen = recipe(**settings, step=step)
    results = []
    for make in (graph_step, make_step):
        game = new_game(chosen)
        tested, real = make(game, chosen, CPU), image_batches(chosen)
        torch.manual_seed(5)
        for update in range(12):
            tested(real, Rates(*torch.tensor(chosen.rates(update, 3)).tolist()))  # float32, as the device keeps them
        results.append([*weights(game).values(), tested.statistics()])
    assert len(captures) == 1
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_graph_is_captured_anew_after_reload(captures):
    chosen = recipe(precision="bf16")
    game = new_game(chosen)
    step, real = graph_step(game, chosen, CPU), image_batches(chosen)
    for _ in range(6):
        step(real, RATES[0])
    assert len(captures) == 1
    with torch.no_grad():
        game.generator.output.bias.zero_()
    step.reload()
    for _ in range(5):
        step(real, RATES[0])
    assert len(captures) == 2


def test_graph_is_captured_anew_for_other_images(captures):
    """The numbers are those of the step itself."""
    chosen = recipe()
    results = []
    for make in (graph_step, make_step):
        game = new_game(chosen)
        tested, first = make(game, chosen, CPU), image_batches(chosen)
        second = Batches(Batch(255 - first.data.images), chosen.batch_size, 1, CPU, Unit())
        torch.manual_seed(5)
        for real in [first] * 6 + [second] * 6:
            tested(real, Rates(*torch.tensor(RATES[0]).tolist()))
        results.append([*weights(game).values(), tested.statistics()])
    assert len(captures) == 2
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_each_gpu_captures_on_a_stream_of_its_own(monkeypatch):
    """By stand-ins for torch.cuda: torch's default stream would belong to the first GPU that captured."""
    used, current = [], [0]

    class Graph:
        def replay(self): ...

    @contextmanager
    def device(index):
        current[0], before = index, current[0]
        yield
        current[0] = before

    @contextmanager
    def capturing(graph, stream=None):
        used.append((current[0], stream))
        yield

    for name, stand_in in {
        "CUDAGraph": Graph,
        "device": device,
        "graph": capturing,
        "Stream": lambda index: f"stream of {index}",
        "current_device": lambda: 1,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(graph, "_capture_stream", cache(graph._capture_stream.__wrapped__))
    for name in ("cuda:0", "cuda:2", "cuda", "cuda:0"):
        graph.capture(lambda: None, torch.device(name))
    assert used == [(index, f"stream of {index}") for index in (0, 2, 1, 0)]


def test_graph_that_cannot_be_captured_says_so_once(monkeypatch):
    def capture(function, device):
        raise RuntimeError("operation not permitted when stream is capturing\nlong story")

    monkeypatch.setattr(graph, "capture", capture)
    chosen = recipe()
    step, real = graph_step(new_game(chosen), chosen, CPU), image_batches(chosen)
    play_on = [lambda: step(real, RATES[0])] * 6
    with pytest.warns(
        UserWarning, match="runs uncaptured: operation not permitted when stream is capturing$"
    ) as caught:
        [call() for call in play_on]
    assert len(caught) == 1
    assert step.statistics().shape == (6, 4)


@pytest.mark.gpu
@pytest.mark.parametrize("step", ["auto", "plain"])
@pytest.mark.parametrize("settings", [{"updates": "simultaneous"}, {"k": 3}, {"precision": "bf16"}], ids=str)
def test_captured_on_a_gpu(settings, step):
    """Replayed or not, the same random draws and the same numbers, up to another order of cuBLAS's sums."""
    chosen, device = recipe(**settings, step=step), torch.device("cuda")
    results = []
    for wrapped in (True, False):
        game = new_game(chosen)
        game.generator.to(device), game.discriminator.to(device)
        inner = make_step(game, chosen, device)
        inner = inner._step if isinstance(inner, graph.GraphStep) else inner
        tested = graph.GraphStep(inner, chosen.k, device) if wrapped else inner
        real = Batches(image_batches(chosen).data, chosen.batch_size, 0, device, Unit())
        torch.manual_seed(5)
        for update in range(12):
            tested(real, chosen.rates(update, 3))
        results.append([*weights(game).values(), tested.statistics()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# ---- which step is taken --------------------------------------------------------------------------------------------


class OtherGenerator(Generator):
    """Same layers, but who knows what its forward does."""


def freeze(generator, discriminator):
    generator.output.bias.requires_grad_(False)


def hook(generator, discriminator):
    discriminator.hidden[0].register_forward_hook(lambda *_: None)


def to_double(generator, discriminator):
    generator.double()


def subclass(generator, discriminator):
    generator.__class__ = OtherGenerator


def replace_layer(generator, discriminator):
    generator.hidden[0] = torch.nn.Sequential(generator.hidden[0], torch.nn.LayerNorm(20))


def drop_bias(generator, discriminator):
    generator.output = torch.nn.Linear(24, generator.output.out_features, bias=False)


def drop_two_biases(generator, discriminator):
    """As many parameters as two layers with a bias fewer would have."""
    generator.output = torch.nn.Linear(24, generator.output.out_features, bias=False)
    generator.hidden[1] = torch.nn.Linear(20, 24, bias=False)


def add_layer(generator, discriminator):
    generator.unused = torch.nn.Linear(1, 1)


def pre_hook(generator, discriminator):
    discriminator.output.register_forward_pre_hook(lambda *_: None)


def backward_hook(generator, discriminator):
    generator.hidden[0].register_full_backward_hook(lambda *_: None)


def backward_pre_hook(generator, discriminator):
    generator.register_full_backward_pre_hook(lambda *_: None)


def reference(generator, discriminator):
    discriminator.hidden[1].impl = "reference"


def parameter_hook(generator, discriminator):
    discriminator.output.weight.register_hook(lambda gradient: 2 * gradient)


def nested_layer(generator, discriminator):
    generator.hidden[1] = torch.nn.Sequential(torch.nn.Linear(20, 9, bias=False), torch.nn.Linear(9, 24))


def nested_logit(generator, discriminator):
    discriminator.output = torch.nn.Sequential(discriminator.output)


def maxout_logit(generator, discriminator):
    discriminator.output = Maxout(12, 1, 2)


def no_maxout(generator, discriminator):
    discriminator.hidden = torch.nn.ModuleList()
    discriminator.output = torch.nn.Linear(63, 1)


CHANGES = [nested_layer, nested_logit, maxout_logit, no_maxout]
CHANGES += [freeze, hook, to_double, subclass, replace_layer, drop_bias, drop_two_biases, add_layer]
CHANGES += [pre_hook, backward_hook, backward_pre_hook, parameter_hook, reference]


@pytest.mark.parametrize("change", CHANGES)
def test_players_of_ones_own_take_the_plain_step(change):
    game = new_game(recipe())
    assert type(make_step(game, recipe(), CPU)) is FusedStep
    change(game.generator, game.discriminator)
    assert type(make_step(game, recipe(), CPU)) is PlainStep


def longer(generator):
    generator.hidden.append(torch.nn.Linear(24, 24))


def swapped(generator):
    generator.hidden[1], generator.hidden[2] = generator.hidden[2], generator.hidden[1]


def nested(generator):
    generator.hidden[3] = torch.nn.Sequential(torch.nn.Sigmoid())


@pytest.mark.parametrize("change", [longer, swapped, nested])
def test_another_order_of_relu_and_sigmoid_takes_the_plain_step(change):
    chosen = recipe(**RELU_SIGMOID)
    game = new_game(chosen)
    assert type(make_step(game, chosen, CPU)) is FusedStep
    change(game.generator)
    assert type(make_step(game, chosen, CPU)) is PlainStep


@pytest.mark.parametrize("change", ["rate", "mode"])
def test_dropout_that_somebody_changes(change):
    results = []
    for choice in ("plain", "auto"):
        chosen = recipe(step=choice)
        game = new_game(chosen)
        step = play(make_step(game, chosen, CPU), chosen)
        if change == "mode":
            game.discriminator.eval()
        else:
            for part in game.discriminator.modules():
                part.dropout = 0.1
        play(step, chosen)
        results.append(torch.cat([w.flatten() for w in weights(game).values()]))
    torch.testing.assert_close(*results)


def test_bf16_on_a_cpu_without_avx512():
    """oneDNN has no bfloat16 products there. Its own switch makes this CPU such a one."""
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import test_fast as t\n"
        "for library in ('auto', 'onednn', 'torch'):\n"
        "    chosen = t.recipe(precision='bf16', products=library)\n"
        "    t.play(t.make_step(t.new_game(chosen), chosen, t.CPU), chosen)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(Path(__file__).parent)]
    subprocess.run(command, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)


def test_bf16_without_hardware_warns(monkeypatch):
    monkeypatch.setattr(fast, "_has_bf16", lambda: False)
    with pytest.warns(UserWarning, match="no bfloat16 instructions"):
        make_step(new_game(recipe()), recipe(precision="bf16"), CPU)
