"""Milliseconds of one training iteration on the paper's MNIST nets: torch as users write it against pygan's steps.

    python benchmarks/train_step.py                     # all cases side by side, and where our milliseconds go
    python benchmarks/train_step.py --no-compile        # without the minute that torch.compile takes
    python benchmarks/train_step.py --device cuda       # on a GPU; ours as one CUDA graph
    python benchmarks/train_step.py --time-to 100       # seconds until the validation log-likelihood is 100 nats

A generator's last hidden layer falls silent as it learns, and pygan's products leave out what is zero. Torch's time
does not depend on it; ours are given with the layer as it is made, and with as few active units as after training.

All cases run in turn, round after round, so that whatever else the machine does hits them alike; a time is the median
over the rounds of the mean over a round's calls. Simultaneous updates are another algorithm than the alternating ones
of the other cases: the one the 2014 authors ran.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args
from unittest import mock

import torch
from harness import conditions, timed
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import pygan
from pygan import optim
from pygan._session import keep_freed_memory
from pygan.batches import Batches
from pygan.data import Batch
from pygan.data.scaling import Unit
from pygan.fast import fused, make_step
from pygan.fast.products import Library, Products
from pygan.fast.sparse_products import SparseProducts
from pygan.game import Game
from pygan.recipes import RECIPES, Recipe

SHAPE, PIXELS, NOISE, EPOCH_IMAGES = (1, 28, 28), 784, 100, 50_000
MOST = 20  # epochs that --time-to waits
ACTIVE = 0.07  # of the last hidden layer: 5 to 10 % in three generators trained for 77 to 1,090 epochs


# ---- the contestants: what people write in torch --------------------------------------------------------------------


class MaxoutLayer(nn.Module):
    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(inputs, units * pieces), (units, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, self.shape).max(dim=2).values


def torch_players() -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(
        nn.Linear(NOISE, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, PIXELS), nn.Sigmoid()
    )
    discriminator = nn.Sequential(
        nn.Dropout(0.2),
        MaxoutLayer(PIXELS, 240, 5),
        nn.Dropout(0.5),
        MaxoutLayer(240, 240, 5),
        nn.Dropout(0.5),
        nn.Linear(240, 1),
    )
    return generator, discriminator


def noise(batch: int, device: torch.device) -> Tensor:
    return torch.empty(batch, NOISE, device=device).uniform_(-(3**0.5), 3**0.5)


def eager_step(images: Tensor, batch: int, mode: str | None = None) -> Callable[[], object]:
    """The loop of every tutorial: separate passes over real and generated images, losses read after each update."""
    device = images.device
    generator, discriminator = (player.to(device) for player in torch_players())
    g_optimizer = torch.optim.SGD(generator.parameters(), lr=0.1, momentum=0.5)
    d_optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1, momentum=0.5)
    if mode is not None:
        generator, discriminator = torch.compile(generator, mode=mode), torch.compile(discriminator, mode=mode)
    bce = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(batch, 1, device=device), torch.zeros(batch, 1, device=device)

    def step() -> tuple[float, float]:
        real = images[torch.randint(len(images), (batch,), device=device)]
        d_optimizer.zero_grad()
        fakes = generator(noise(batch, device)).detach()
        d_loss = (bce(discriminator(real), ones) + bce(discriminator(fakes), zeros)) / 2
        d_loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        g_loss = bce(discriminator(generator(noise(batch, device))), ones)
        g_loss.backward()
        g_optimizer.step()
        return d_loss.item(), g_loss.item()

    return step


def tuned_step(images: Tensor, batch: int) -> Callable[[], object]:
    """The same with one discriminator pass, fused optimisers, no graph through G or into D where none is needed."""
    device = images.device
    generator, discriminator = (player.to(device) for player in torch_players())
    g_optimizer = torch.optim.SGD(generator.parameters(), lr=0.1, momentum=0.5, fused=True)
    d_optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1, momentum=0.5, fused=True)
    bce, ones = nn.BCEWithLogitsLoss(), torch.ones(batch, 1, device=device)
    labels = torch.cat([ones, torch.zeros_like(ones)])

    def step() -> None:
        real = images[torch.randint(len(images), (batch,), device=device)]
        d_optimizer.zero_grad()
        with torch.no_grad():
            fakes = generator(noise(batch, device))
        bce(discriminator(torch.cat([real, fakes])), labels).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        discriminator.requires_grad_(False)
        bce(discriminator(generator(noise(batch, device))), ones).backward()
        discriminator.requires_grad_(True)
        g_optimizer.step()

    return step


def pygan_step(images: Tensor, batch: int, active: float | None = None, **settings: object) -> Callable[[], None]:
    """A step of pygan; with `active`, of a generator of whose last hidden units such a share is not zero."""
    device = images.device
    recipe: Recipe = RECIPES["code2014"].with_settings(batch_size=batch, **settings)
    generator = recipe.model.make_generator(SHAPE, NOISE, mean_image=torch.full(SHAPE, 0.1)).to(device)
    discriminator = recipe.model.make_discriminator(SHAPE).to(device)
    rate = 0.1
    if active is not None:
        silence(generator, active)
        rate = 1e-6  # so that it stays as it is; time does not depend on the rate
    game = Game(generator, discriminator, SHAPE, recipe.objective, recipe.noise, NOISE, Unit())
    step, rates = make_step(game, recipe, device), optim.Rates(rate, rate, 0.5)
    batches = Batches(Batch(images.view(-1, *SHAPE)), batch, 0, device, Unit())
    return lambda: step(batches, rates)


@torch.no_grad()
def silence(generator: nn.Module, active: float) -> None:
    """Moves the biases of the last hidden layer so that each unit is active for this share of the noise."""
    *front, last = generator.hidden
    x = noise(4096, last.weight.device)
    for layer in front:
        x = layer(x).relu()
    last.bias -= last(x).quantile(1 - active, dim=0)


# ---- timing ---------------------------------------------------------------------------------------------------------


def interleaved(cases: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Milliseconds of a call of each case, one number a round."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        for _ in range(6):
            call()
    for _ in range(rounds):
        for name, call in cases.items():
            times[name].append(1e3 * timed(lambda call=call: [call() for _ in range(calls)], device) / calls)
    return times


@dataclass(frozen=True)
class Part:
    """One operator of a step, to be run again alone, and the work that no implementation of it is spared."""

    name: str
    call: Callable[[], object]
    bytes: int  # operands read once, results written once
    operations: int  # multiplications and additions


class Recorder(TorchDispatchMode):
    """Notes every operator that runs, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        moved = (args, result)
        if any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns):
            moved = ()  # a view
        elif function is torch.ops.aten.index.Tensor:
            moved = (result, result)  # of all images, these
        self.note(str(function), function, args, kwargs or {}, moved)
        return result

    def note(self, name, function, args, kwargs, moved) -> None:
        size = sum(leaf.nbytes for leaf in tree_leaves(moved) if isinstance(leaf, Tensor))
        self.parts.append(Part(name, lambda: function(*args, **kwargs), size, operations(name, args)))

    def noting(self, name, function, moved):
        """The function, noted under this name; `moved` returns the tensors that it reads, or writes in place."""

        def noted(*args, **kwargs):
            with _disable_current_modes():  # under a mode it would be another implementation
                result = function(*args, **kwargs)
                self.note(name, function, args, kwargs, (moved(*args), result))
            return result

        return noted


def operations(name: str, args: tuple) -> int:
    if name.startswith("pygan.maxout_grad"):  # of the winning pieces
        grad, other = args[:2]
        return 2 * int(grad.count_nonzero()) * other.shape[-1]
    if name.startswith("sparse"):
        sparse, other = args[1:3]
        return 2 * int(sparse.count_nonzero()) * (len(other) if name == "sparse affine" else other.shape[-1])
    if name.startswith(KINDS["matrix products"]):
        left, right = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim == 2][:2]
        return 2 * left.shape[0] * right.numel()
    return 0


KINDS = {
    "matrix products": ("mkldnn", "aten.mm", "aten.addmm"),
    "products of sparse activations": ("sparse",),
    "maxout gradients, winning pieces only": ("pygan.maxout_grad",),
    "maximum over pieces": ("pygan.maxout_pool",),
    "dropout": ("dropout",),
    "update of parameters and momenta": ("momentum",),
    "sums for bias gradients": ("aten.sum",),
    "batch of images": ("aten.index",),
}
REST = "ReLU, sigmoid, losses, noise, statistics"


def parts_of(step: Callable[[], object]) -> dict[str, list[Part]]:
    """What one call of the step runs, by kind."""
    recorder = Recorder()
    drop_into = recorder.noting("dropout", fused.drop_into, lambda y, x, *_: (y, x))
    products = {
        name: recorder.noting(f"sparse {name}", getattr(SparseProducts, name), lambda _, *operands: operands)
        for name in ("affine", "times", "outer")
    }
    momentum = recorder.noting("momentum", optim.momentum_update, lambda p, v, g, _, copies=(): (p, p, v, v, g, copies))
    with (
        recorder,
        mock.patch.object(fused, "drop_into", drop_into),
        mock.patch.object(optim, "momentum_update", momentum),
        mock.patch.multiple(SparseProducts, **products),
    ):
        step()
    parts: dict[str, list[Part]] = {}
    for part in recorder.parts:
        kind = next((kind for kind, starts in KINDS.items() if part.name.startswith(starts)), REST)
        parts.setdefault(kind, []).append(part)
    return parts


@dataclass(frozen=True)
class Machine:
    """What it can do at best, measured now: bytes a millisecond, and operations of large products a millisecond."""

    bandwidth: float
    products: dict[torch.dtype, float]

    def floor(self, parts: list[Part], dtype: torch.dtype) -> float:
        """Milliseconds below which these parts cannot come; products that leave out zeros sum in float32."""
        peaks = {True: self.products[torch.float32], False: self.products[dtype]}
        return sum(
            max(part.bytes / self.bandwidth, part.operations / peaks[part.name.startswith(("pygan.maxout", "sparse"))])
            for part in parts
        )


def measure_machine() -> Machine:
    source = torch.zeros(16 << 20)
    target = torch.empty_like(source)
    copy = least_ms(lambda: target.copy_(source))
    products = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.full((2048, 2048), 0.5, dtype=dtype)
        libraries = [Products(library) for library in get_args(Library)]
        products[dtype] = 2 * 2048**3 / min(least_ms(partial(by.affine, a, a, None)) for by in libraries)
    return Machine(2 * source.nbytes / copy, products)


def least_ms(call: Callable[[], object]) -> float:
    return 1e3 * min(timed(call, "cpu") for _ in range(7))


def run_all(calls: list[Callable[[], object]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


# ---- reports --------------------------------------------------------------------------------------------------------


def report_steps(cases: dict[str, Callable[[], object]], baselines: list[str], tuned: str, args) -> None:
    times = interleaved(cases, args.rounds, args.calls)
    medians = {name: statistics.median(ms) for name, ms in times.items()}
    base = min(medians[name] for name in baselines)
    print("| step | ms, median | 20 % | 80 % | steps/s | s per epoch | x eager or compiled | x tuned |")
    print("|---|---|---|---|---|---|---|---|")
    for name, ms in medians.items():
        low, *_, high = statistics.quantiles(times[name], n=5)
        epoch = ms / 1e3 * EPOCH_IMAGES / args.batch
        print(
            f"| {name} | {ms:.2f} | {low:.2f} | {high:.2f} | {1e3 / ms:.0f} | {epoch:.1f} "
            f"| {base / ms:.2f} | {medians[tuned] / ms:.2f} |"
        )


def report_parts(cases: dict[str, Callable[[], object]], args) -> None:
    machine = measure_machine()
    peaks = {dtype: f"{peak / 1e6:.0f}" for dtype, peak in machine.products.items()}
    print(
        f"\nFloors: operands read once and results written once at {machine.bandwidth / 1e6:.0f} GB/s (a copy), or\n"
        f"products at {peaks[torch.float32]} GFLOP/s in float32, {peaks[torch.bfloat16]} in bf16 (2048 x 2048 x 2048, "
        "the faster library)."
    )
    for name, step in cases.items():
        with torch.no_grad():
            parts = parts_of(step)
            calls = {kind: run_all([part.call for part in of]) for kind, of in parts.items()}
            times = interleaved({"step": step} | calls, args.rounds, args.calls)
        medians = {kind: statistics.median(ms) for kind, ms in times.items()}
        whole = medians.pop("step")
        dtype = torch.bfloat16 if "bf16" in name else torch.float32
        print(f"\n| {name}: {whole:.2f} ms | calls | ms alone | floor, ms | share |\n|---|---|---|---|---|")
        for kind in [*KINDS, REST]:
            if kind in medians:
                floor, ms = machine.floor(parts[kind], dtype), medians[kind]
                print(f"| {kind} | {len(parts[kind])} | {ms:.2f} | {floor:.2f} | {ms / whole:.0%} |")
        rest = whole - sum(medians.values())
        print(f"| the rest: Python, cold caches | | {rest:.2f} | | {rest / whole:.0%} |")


class Reached(Exception):
    """The log-likelihood that was asked for."""


def report_time_to(nats: float, args) -> None:
    print(f"\nSeconds of training until the validation log-likelihood is {nats} nats (MNIST, one seed):")
    for recipe in ("paper2014", "code2014"):
        for step in ("plain", "auto"):
            seconds, start = [], time.perf_counter()

            def stop(run, seconds=seconds, start=start):
                value = run.history[-1]["log_likelihood"]
                if value is not None and value >= nats:
                    seconds.append((time.perf_counter() - start, run.history[-1]["epoch"]))
                    raise Reached

            settings = {
                "step": step,
                "averaging": 0.999,
                "evaluate_every": 1,
                "device": args.device,
            }
            name = f"{RECIPES[recipe].updates} ({recipe}), step={step!r}"
            try:
                with tempfile.TemporaryDirectory() as folder:
                    pygan.train("mnist", recipe, epochs=MOST, out=f"{folder}/run", on_epoch=stop, **settings)
                print(f"  {name}: not reached in {MOST} epochs")
            except Reached:
                print(f"  {name}: {seconds[0][0]:.0f} s, epoch {seconds[0][1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5, help="steps of one case in one round")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--quick", action="store_true", help="three rounds, and no torch.compile")
    parser.add_argument("--time-to", type=float, metavar="NATS")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.no_compile = 3, True

    on_cpu = args.device.type == "cpu"
    keep_freed_memory()  # for torch's cases too; pygan's steps see to it themselves
    torch.manual_seed(0)
    images = torch.rand(EPOCH_IMAGES, PIXELS).to(args.device)
    for name, value in {**conditions(), "device": args.device, "batch": args.batch}.items():
        print(f"{name}: {value}")
    print()

    kinds = {
        "pygan, alternating, float32": {"updates": "alternating"},
        "pygan, alternating, bf16": {"updates": "alternating", "precision": "bf16"},
        "pygan, simultaneous, float32": {},
        "pygan, simultaneous, bf16": {"precision": "bf16"},
    }
    ours = {name: pygan_step(images, args.batch, **settings) for name, settings in kinds.items()}
    trained = {
        f"{name}, {ACTIVE:.0%} active": pygan_step(images, args.batch, ACTIVE, **settings)
        for name, settings in kinds.items()
    }
    theirs = {"torch, eager": eager_step(images, args.batch)}
    if not args.no_compile:
        theirs["torch.compile"] = eager_step(images, args.batch, "default")
        if on_cpu:  # on CUDA, the backward pass of the second player ends in an error of torch 2.11's cudagraph_trees
            theirs["torch.compile, reduce-overhead"] = eager_step(images, args.batch, "reduce-overhead")
    baselines = list(theirs)
    theirs["torch, eager, tuned"] = tuned_step(images, args.batch)
    theirs["pygan's plain step, alternating"] = pygan_step(images, args.batch, updates="alternating", step="plain")
    others = {
        f"pygan, {updates}, float32, products of {library}": pygan_step(
            images, args.batch, updates=updates, products=library
        )
        for updates in ("alternating", "simultaneous")
        for library in ("torch", "onednn")
    }
    report_steps(theirs | ours | (trained | others if on_cpu else {}), baselines, "torch, eager, tuned", args)
    if on_cpu:
        report_parts(ours | trained, args)
    if args.time_to is not None:
        report_time_to(args.time_to, args)


if __name__ == "__main__":
    main()
