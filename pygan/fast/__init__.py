"""Faster steps that give the same numbers as `pygan.algorithm`. `make_step` chooses one."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pygan._session import keep_freed_memory
from pygan._terminal import warn
from pygan.algorithm import ALGORITHMS
from pygan.distributed import Share
from pygan.fast.fused import FusedStep, can_fuse, choose_products
from pygan.fast.graph import GraphStep
from pygan.game import Game
from pygan.step import BaseStep, PlainStep, Step

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["choose_products", "make_step"]


def make_step(game: Game, recipe: "Recipe", device: torch.device, share: Share | None = None) -> Step:
    """Return the fastest step that applies to the game; its players are on the device.

    Args:
        game, recipe, device: see `pygan.step.BaseStep`.
        share: this process's share of each batch; None is all of it. What several processes exchange is not captured in
            a CUDA graph.
    """
    share = Share(recipe.batch_size) if share is None else share
    if recipe.precision == "bf16" and device.type == "cpu" and not _has_bf16():
        warn("precision='bf16': this CPU has no bfloat16 instructions, so float32 would be faster")
    if device.type == "cpu":
        keep_freed_memory()
    step: BaseStep
    if recipe.step == "auto" and can_fuse(game, recipe, device):
        step = FusedStep(game, recipe, device, share)
    else:
        step = PlainStep(ALGORITHMS[recipe.updates], game, recipe, device, share)
    if recipe.step == "plain" or not share.is_whole:
        return step
    return GraphStep(step, recipe.k, device) if device.type == "cuda" else step


def _has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers itself; yes if that cannot be found out."""
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text()) is not None
