"""Runs for the tests of several processes: what each process does, and how processes are started."""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tiny
import torch
import torch.distributed as dist
from torch import Tensor, nn

import pygan
from pygan.data import NAMED, Batch, Source
from pygan.distributed import apart, join
from pygan.health import HealthWarning

SHORT: dict[str, Any] = {"progress": False, "evaluation_samples": 50, "evaluate_every": 100, "samples_every": 100}
PICTURES = torch.randint(256, (64, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 3


class Mixed(nn.Sequential):
    """A generator with everything that depends on more than one row or draws numbers: torch's own layers."""

    def __init__(self) -> None:
        # A bias before batch norm has the gradient 0, and Adam makes steps of what rounding leaves of it.
        first = (nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU())
        super().__init__(*first, nn.Linear(8, 256), nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        return super().forward(noise + 0.1 * torch.randn_like(noise) + torch.rand(len(noise), 1))


class Some(Mixed):
    """Batch norm sees a part of the rows."""

    def forward(self, noise: Tensor) -> Tensor:
        hidden = self[0](noise)
        hidden = torch.cat([self[1](hidden[:3]), hidden[3:]])
        return self[5](self[4](hidden))


def transposed(module: nn.Sequential, really: bool) -> nn.Sequential:
    """The module, its first weight column by column in memory if `really`."""
    if really:
        module[0].weight = nn.Parameter(module[0].weight.detach().t().contiguous().t())
    return module


def train(name: str, out: Path, **changes: Any) -> pygan.Run:
    """One of the runs that are compared; each makes 52 updates or more."""
    recipe: dict[str, Any] = {**tiny.SETTINGS, **SHORT, "recipe": name, "epochs": 13}
    data: Any = tiny.images()
    if name == "paper2014":  # the hand-written step with its penalty
        recipe |= {"gradient_penalty": 0.5, "k": 2, "epochs": 26}
    if name == "code2014":
        recipe |= {"instance_noise": 0.1, "averaging": 0.9}
    if name in ("dcgan", "conditional"):
        recipe = {**SHORT, "recipe": "dcgan", "channels": 2, "noise_size": 4, "epochs": 17, "batch_size": 16}
        recipe |= {"averaging": 0.9, "flip": True, "conditional": name == "conditional"}
        data = (PICTURES, LABELS)
    if name == "conditional":
        recipe |= {"updates": "simultaneous"}
    if name == "wgan_gp":
        sizes = {"generator_hidden": (32, 32), "discriminator_hidden": (32, 32)}
        recipe = {**SHORT, "recipe": "wgan_gp", "noise_size": 4, "epochs": 52, "k": 2, "batch_size": 16, **sizes}
    if name == "own":
        torch.manual_seed(1 + (dist.get_rank() if dist.is_initialized() else 0))  # processes start differently
        discriminator = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Dropout(0.2), nn.LeakyReLU(), nn.Linear(8, 1))
        torch.manual_seed(1)
        recipe = {**SHORT, "recipe": "dcgan", "pixels": "unit", "noise_size": 4, "epochs": 17, "batch_size": 16}
        recipe |= {"generator": Mixed(), "discriminator": discriminator}
        data = PICTURES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)  # such short runs are no good ones
        return pygan.train(data, out=out, **{**recipe, **changes})


def start(rank: int, work: Callable[..., None], folder: Path, worlds: tuple[int, ...], *arguments: Any) -> None:
    """One process: `work(folder, ...)` in a group of each of these numbers of processes, one after the other."""
    torch.set_num_threads(1)
    for count in worlds:
        if rank < count:
            where = f"file://{folder}/store-{count}"
            dist.init_process_group("gloo", init_method=where, rank=rank, world_size=count)
            work(folder / str(count), *arguments)
            dist.destroy_process_group()


def processes(work: Callable[..., None], folder: Path, worlds: tuple[int, ...], *arguments: Any) -> None:
    """Start as many processes as the largest of `worlds`, and wait for them; raises what one of them raises."""
    torch.multiprocessing.set_forkserver_preload(["torch", "pygan"])
    torch.multiprocessing.start_processes(
        start, (work, folder, worlds, *arguments), max(worlds), start_method="forkserver"
    )


def everything(folder: Path, runs: Sequence[tuple[str, int]]) -> None:
    """All that the tests look at: those of the named runs that are for this number of processes, and special ones."""
    count = join(torch.device("cpu")).count
    for name, of in runs:
        if of == count:
            train(name, folder / name)
    if count == 4:
        train("code2014", folder / "resumed", resume=True)  # one process began it
    if count == 2:
        train("code2014", folder / "begun", epochs=6)
        refusals(folder)
        followed(folder / "followed")
        counted(folder)
    if count in (1, 2):
        tabulated(folder)


def refusals(folder: Path) -> None:
    """Note what processes are told that cannot train together, and what a training calls and gives."""
    rank, told = dist.get_rank(), {}
    for name, changes in {
        "small batch": {"batch_size": 1},
        "settings": {"batch_size": 10 + rank},
        "seeds": {"seed": rank},
        "data": {"valid": tiny.images(10, seed=rank), "test": tiny.images(10, seed=9)},
        "layout": {"generator": transposed(Mixed(), rank == 1)},
        "rows": {"generator": Some()},
    }.items():
        try:
            train("own" if "generator" in changes else "code2014", folder / name, **changes)
        except ValueError as error:
            told[name] = str(error)
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


def followed(folder: Path) -> None:
    """Train with a function of the user that changes weights and ends the run, and compare the processes."""
    calls = []

    def on_epoch(run: pygan.Run) -> bool:
        calls.append(len(run.history))
        with torch.no_grad():
            next(run.generator.parameters()).add_(1)
        return len(run.history) < 3

    run = train("dcgan", folder, on_epoch=on_epoch, batch_norm="local", averaging=0.0)
    seen = {
        "calls": calls,
        "history": run.history,
        "weights": [float(p.detach().sum()) for p in run.generator.parameters()],
    }
    (folder.parent / f"followed-{dist.get_rank()}.json").write_text(json.dumps(seen))


def counted(folder: Path) -> None:
    """Note the bytes that one epoch gives to each collective of torch, and what they should depend on."""
    given: dict[str, int] = {}

    def counting(name: str, argument: int) -> Callable[[], None]:
        collective = getattr(dist, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            kind = f"{name} {args[argument].dtype}"
            given[kind] = given.get(kind, 0) + args[argument].nbytes
            return collective(*args, **kwargs)

        setattr(dist, name, count)
        return lambda: setattr(dist, name, collective)

    restore = counting("all_reduce", 0), counting("all_gather", 1)
    for name, changes in (("paper2014", {}), ("dcgan", {}), ("dcgan", {"batch_norm": "local"})):
        given.clear()
        out = folder / "-".join(["counted", name, *changes])
        run = train(name, out, epochs=1, **changes)
        players = {"G": run.generator, "D": run.discriminator}
        norms = {role: [m for m in p.modules() if isinstance(m, nn.BatchNorm2d)] for role, p in players.items()}
        seen = {
            "given": given,
            "updates": run.history[-1]["update"],
            "parameters": {role: sum(p.numel() for p in player.parameters()) for role, player in players.items()},
            "channels": {role: sum(norm.num_features for norm in of) for role, of in norms.items()},
        }
        out.with_suffix(f".{dist.get_rank()}.json").write_text(json.dumps(seen))
    for undo in restore:
        undo()


def tabulated(folder: Path) -> None:
    """Make Table 1 of a tiny "mnist", with three seeds, and again of the finished runs; note what a process returns."""
    ranks, out = join(torch.device("cpu")), folder / "table1"
    pixels = torch.randint(256, (80, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = Source("mnist", Batch(pixels[:40]), "made up", Batch(pixels[40:60]), Batch(pixels[60:]))
    common: dict[str, Any] = {
        "progress": False,
        "generator_hidden": (8, 8),
        "discriminator_hidden": (6, 6),
        "pieces": 2,
    }
    common |= {"epochs": 2, "batch_size": 10, "evaluation_samples": 50, "threads": 1, "report": False}
    seeds = []

    def train(*args: Any, seed: int, **keywords: Any) -> pygan.Run:
        seeds.append(seed)
        return pygan.train(*args, seed=seed, **keywords)

    def begin() -> None:
        with apart():
            pygan.train("mnist", "code2014", out / "mnist-code2014-seed1", seed=1, **{**common, "epochs": 1})

    with (
        warnings.catch_warnings(),
        patch.dict(NAMED, mnist=lambda root: source),
        patch.object(sys.modules["pygan.table1"], "train", train),
    ):
        warnings.simplefilter("ignore", HealthWarning)
        if ranks.count > 1:
            ranks.from_main(begin)
        trained = pygan.table1(out, ["mnist"], seeds=(0, 1, 2), **common)
        given = pygan.table1(out, runs=sorted(out.glob("mnist-*")), progress=False)
        told = []
        changed = [{"seeds": (ranks.rank,)}, {"seeds": (0,), "batch_size": 10 + ranks.rank}]
        for changes in changed[: ranks.count]:  # one process has nothing to compare its settings with
            try:
                pygan.table1(out, ["mnist"], **{**common, **changes})
            except ValueError as error:
                told.append(str(error))
    seen = {"seeds": seeds, "trained": json.loads(trained.json()), "given": json.loads(given.json()), "told": told}
    (folder / f"table1-{ranks.rank}.json").write_text(json.dumps(seen))
