"""Threads and processes: how many a run uses, and how threads wait for each other.

By default, threads of the OpenMP runtime spin for milliseconds while they wait. Beside another busy process they then
use up the time that the thread they wait for needs, and two threads take ten times as long as one. Threads that sleep
at once are slow to wake: a step has some fifty parallel regions with microseconds between them.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["check_threads", "choose_threads", "own_threads", "refuse_many_processes", "short_spinning"]


_SHORT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1500"}  # tens of microseconds, then sleep


@contextmanager
def short_spinning() -> Iterator[None]:
    """Let the threads of an OpenMP runtime that is loaded inside spin for a moment while they wait, and then sleep.

    The runtime reads the environment once, when it is loaded; afterwards the environment is restored. Nothing changes
    if torch was imported earlier, because its runtime is loaded then, or if the user's environment has such a setting.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _SHORT):
        yield
        return
    os.environ.update(_SHORT)
    try:
        yield
    finally:
        for name in _SHORT:
            os.environ.pop(name, None)


@contextmanager
def own_threads(threads: int) -> Iterator[None]:
    """Let torch and the kernels use this number of CPU threads inside; afterwards the number is restored."""
    import torch  # here, because `short_spinning` comes before it

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_threads(asked: int | None, before: Mapping[str, Any] | None, small: bool = False) -> int:
    """Return the number of threads of a run: `asked`, or that of its start (`before`, its config.toml), or torch's.

    A `small` game gets one thread by default, since more would only wait for each other. A message says if a run
    continues with another number than it was started with.
    """
    import torch

    from pygan._terminal import say

    begun = None if before is None else before.get("threads")
    if asked is not None and begun not in (None, asked):
        say(f"train: the run was started with threads={begun} and continues with {asked}: the last bits may differ")
    return asked or begun or (1 if small else torch.get_num_threads())


def check_threads(threads: Any) -> int | None:
    """Return what `pygan.train` got as `threads`; TypeError or ValueError unless it is None or at least 1."""
    from pygan.settings import value_of_type

    if threads is not None and (threads := value_of_type("train: threads", threads, int)) < 1:
        raise ValueError(f"train: threads must be at least 1, got {threads}")
    return threads


def refuse_many_processes() -> None:
    """Raise RuntimeError in one of several processes that torchrun has started; for what is not shared among them."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count.isdecimal() and int(count) > 1:
        raise RuntimeError(
            f"train: only pygan.train and pygan.table1 use several processes, but this is one of WORLD_SIZE={count}, "
            "as torchrun starts them. Each would do the same. Start it without torchrun, or unset WORLD_SIZE"
        )
