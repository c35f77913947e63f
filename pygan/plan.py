"""Forecast of a training: sizes, parameters, memory, time. It is measured on a few updates; nothing is written."""

import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pygan.data
from pygan._session import find_device, hardware, own_defaults, own_randomness
from pygan._threads import check_threads, choose_threads, own_threads
from pygan.batches import Batches
from pygan.data import Data
from pygan.data.files import no_downloads
from pygan.fast import make_step
from pygan.game import make_game
from pygan.memory import fits_one_core, refuse_too_large
from pygan.recipes import Recipe, find_recipe
from pygan.run import Run
from pygan.settings import check_seed

__all__ = ["Plan", "plan"]

_SECONDS = 2.0  # of updates that are measured


@dataclass(frozen=True)
class Plan:
    """Forecast of a training.

    Attributes:
        protocol: a description of the data and their splits.
        sizes: images for training, validation and test.
        shape: (C, H, W) of the images.
        recipe: every setting.
        parameters: of the generator and of the discriminator.
        epoch_seconds: of one epoch, measured on a few updates.
        updates_per_epoch: of the generator.
        evaluation_seconds: of one evaluation, measured.
        memory: bytes at the peak of this process (on a GPU: of the GPU's memory), measured.
        hardware: the machine on which it was measured.
    """

    protocol: str
    sizes: tuple[int, int, int]
    shape: tuple[int, ...]
    recipe: Recipe
    parameters: tuple[int, int]
    epoch_seconds: float
    updates_per_epoch: int
    evaluation_seconds: float
    memory: int
    hardware: str

    def seconds(self) -> float:
        """Seconds of the whole run, evaluations included."""
        evaluations = -(-self.recipe.epochs // self.recipe.evaluate_every)
        return self.recipe.epochs * self.epoch_seconds + evaluations * self.evaluation_seconds


def plan(
    data: Data,
    recipe: str | Recipe | None = None,
    *,
    device: str | torch.device = "auto",
    seed: int = 0,
    conditional: bool = False,
    valid: Data | None = None,
    test: Data | None = None,
    root: str | Path | None = None,
    image_size: int | None = None,
    threads: int | None = None,
    **settings: Any,
) -> Plan:
    """Return what `pygan.train` with the same arguments would do. Nothing is written and nothing is downloaded.

    Raises:
        TypeError, ValueError: as `pygan.train`.
        FileNotFoundError: the data set is not on this machine yet.
        RuntimeError: the run needs more memory than is free; nothing was allocated.
    """
    device, seed = find_device(device), check_seed("plan: seed", seed)
    with own_defaults(device), no_downloads():
        splits = pygan.data.load(data, root=root, valid=valid, test=test, image_size=image_size, seed=seed)
        used = find_recipe(recipe, settings, splits, conditional=conditional)
        classes = splits.class_count() if conditional else 0
        players = {"generator": None, "discriminator": None}
        refuse_too_large(used, splits, classes, players, device)
        count = choose_threads(check_threads(threads), None, fits_one_core(used, splits, classes, players))
        with own_threads(count), own_randomness(seed, device, used.deterministic), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Untrained generators lie at the edge of the grid of sigmas.
            game = make_game(used, splits, classes, players, device)
            batches = Batches(splits.train, used.batch_size, seed, device, game.scale, used.flip)
            updates = max(1, batches.per_epoch // used.k)
            step = make_step(game, used, device)
            step(batches, used.rates(0, updates))  # the first one is slower
            step.statistics()
            done, start = 0, time.perf_counter()
            while done == 0 or time.perf_counter() - start < _SECONDS:
                done += 1
                batches.position = (done % updates) * used.k
                step(batches, used.rates(0, updates))
            step.statistics()  # waits for the GPU
            update_seconds = (time.perf_counter() - start) / done
            start = time.perf_counter()
            run = Run(game, used, Path(), seed, {}, known_splits=splits, threads=count)
            window = run.window()
            window.log_density(run.density_images(splits.valid))
            evaluation_seconds = time.perf_counter() - start
            machine = hardware(device)  # with its threads
    return Plan(
        protocol=splits.protocol,
        sizes=(len(splits.train), len(splits.valid), len(splits.test)),
        shape=splits.shape,
        recipe=used,
        parameters=(_count(game.generator), _count(game.discriminator)),
        epoch_seconds=updates * update_seconds,
        updates_per_epoch=updates,
        evaluation_seconds=evaluation_seconds,
        memory=_peak(device),
        hardware=machine,
    )


def _count(player: nn.Module) -> int:
    return sum(parameter.numel() for parameter in player.parameters())


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
