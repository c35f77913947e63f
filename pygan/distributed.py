"""Several processes that train one run, as `torchrun` starts them: who they are, and what they exchange.

Every process has both players, and computes on its share of each batch. It draws the random numbers of the whole batch
and takes its own rows of them, and gradients are averaged over the whole batch before they are used. So all processes
have the same weights, optimiser states and random generators, and these are those of a run in one process, up to
rounding. The main process alone (rank 0) reads and writes files, prints and evaluates.

`Ranks` and `Share` stand for one process by default, and then do nothing. Why there is no DistributedDataParallel:
docs/decisions/0011-flat-all-reduce.md.
"""

import atexit
import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pygan.whole_batch import AsWholeBatch

__all__ = [
    "ALONE",
    "MainFailedError",
    "ProcessLostError",
    "Ranks",
    "Share",
    "apart",
    "is_main",
    "is_one_of_several",
    "join",
    "may_speak",
    "quiet",
]

_PATIENCE = timedelta(days=7)  # others wait while the main process evaluates; a process that ends is noticed at once
_ENVIRONMENT = ("RANK", "MASTER_ADDR", "MASTER_PORT")
T = TypeVar("T")


class ProcessLostError(RuntimeError):
    """Another process of the run has ended, or cannot be reached."""


class MainFailedError(RuntimeError):
    """The main process has raised an error, which it reports itself."""


class Ranks:
    """The processes of a run: this class is a process by itself, and all of its methods are trivial.

    Attributes:
        rank: of this process, from 0.
        count: number of processes.
    """

    rank, count = 0, 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reads and writes files, prints and evaluates."""
        return self.rank == 0

    def own(self, device: torch.device) -> torch.device:
        """Return the device of this process, of the same kind."""
        return device

    def share(self, batch_size: int, synchronised: bool = True) -> "Share":
        """Return this process's share of each batch; `synchronised` is about batch norm, see `Share`."""
        return Share(batch_size)

    def agree(self, flags: Callable[[], Sequence[bool]]) -> Callable[[], Sequence[bool]]:
        """Begin to compare what `flags` returns, and return a function that says which flags any process has set.

        Several processes call `flags` at once, and exchange its answers in the background until they are asked for.
        """
        return flags

    def from_main(self, make: Callable[[], T]) -> T:
        """Return what `make` returns in the main process, where alone it is called: a value that JSON has.

        Raises what `make` raises; the other processes raise MainFailedError then.
        """
        return make()

    def main_first(self, make: Callable[[], T]) -> T:
        """Return what `make` returns; it is called in every process, in the main process first."""
        return make()

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process's tensors to the others, in place; all have the same shapes and dtypes."""

    def spread_new(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the main process's tensors, on the CPU; what the others pass is ignored."""
        return tensors

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, by rank, in every process; they are values that JSON has."""
        return [value]

    def refuse_differences(self, what: str, settings: Mapping[str, Any]) -> None:
        """Raise ValueError, in every process, if the settings of `what` are not the same in all.

        They are values that JSON has.
        """


ALONE = Ranks()


class Share:
    """The rows of each batch that this process computes on: by default all of them.

    Attributes:
        first: the first of these rows.
        size: their number.
        total: number of rows of the whole batch.
        sizes: number of rows of each process.
    """

    def __init__(self, total: int) -> None:
        self.first, self.size, self.total, self.sizes = 0, total, total, [total]

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the batch."""
        return self.size == self.total

    def of(self, tensor: Tensor) -> Tensor:
        """Return the rows of this process of a tensor [total, ...]."""
        return tensor

    def mean(self, gradients: Sequence[Tensor], parameters: Iterable[Tensor]) -> Sequence[Tensor]:
        """Return the mean of the parameters' gradients over the whole batch; each is that over the rows of one process.

        Several processes return gradients with the strides of the parameters.
        """
        return gradients

    def mean_rows(self, rows: Tensor) -> Tensor:
        """Return the mean of numbers over the whole batch, on the CPU; they are means over the rows of one process."""
        return rows

    def as_whole(self) -> AbstractContextManager[Any]:
        """Inside, random numbers, dropout and batch norm are those of the whole batch, see `AsWholeBatch`."""
        return _NOTHING

    def pieces(self, first: int, *tensors: Tensor) -> Iterable[tuple[int, Sequence[Tensor]]]:
        """Cut tensors into pieces that are together in the whole batch: (row in the whole batch, the pieces).

        Args:
            first: the row at which the tensors begin, of one or more batches of `size` rows that are stacked.
            tensors: [n, ...], all of the same n.
        """
        return [(first, tensors)]


_NOTHING = nullcontext()


class _Group(Ranks):
    """One of several processes.

    Args:
        device: of the players.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        with _reporting_losses(), _background_threads():
            # After a restart by torchrun, only its first group finds the others.
            self.control = dist.group.WORLD if _initialised else dist.new_group(backend="gloo", timeout=_PATIENCE)
        self.refuse_differences("train", {"device": device.type})
        with _reporting_losses():
            self.data = dist.new_group(backend="nccl") if device.type == "cuda" else self.control

    def close(self) -> None:
        """Give up the process groups, whoever still has this object."""
        self.control = self.data = None

    def own(self, device: torch.device) -> torch.device:
        return _own_gpu() if device.type == "cuda" else device

    def share(self, batch_size: int, synchronised: bool = True) -> Share:
        return _Rows(self, batch_size, synchronised)

    def agree(self, flags: Callable[[], Sequence[bool]]) -> Callable[[], Sequence[bool]]:
        together = torch.tensor(flags(), dtype=torch.uint8, device="cpu")
        with _reporting_losses():
            exchange = dist.all_reduce(together, dist.ReduceOp.MAX, group=self.control, async_op=True)

        def agreed() -> Sequence[bool]:
            with _reporting_losses():
                exchange.wait()
            return together.bool().tolist()

        return agreed

    def from_main(self, make: Callable[[], T]) -> T:
        if not self.is_main:
            message = self._receive()
            if "error" in message:
                raise MainFailedError(f"train: the main process has ended with: {message['error']}")
            return message["value"]
        try:
            value = make()
        except BaseException as error:
            self._send({"error": f"{type(error).__name__}: {error}"})
            raise
        self._send({"value": value})
        return value

    def main_first(self, make: Callable[[], T]) -> T:
        made: list[T] = []
        self.from_main(lambda: made.append(make()))
        return made[0] if made else make()

    def spread(self, tensors: Iterable[Tensor]) -> None:
        given = [tensor.detach() for tensor in tensors if tensor.numel()]
        if not given:
            return
        together = torch.cat([tensor.cpu().contiguous().view(-1).view(torch.uint8) for tensor in given])
        with _reporting_losses():
            dist.broadcast(together, src=0, group=self.control)
        if not self.is_main:
            for tensor, part in zip(given, together.split([tensor.nbytes for tensor in given]), strict=True):
                tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))  # a part may not be aligned

    def spread_new(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        kinds = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()}
        kinds = self.from_main(lambda: kinds)
        if not self.is_main:
            tensors = {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in kinds.items()}
        self.spread(tensors.values())
        return tensors

    def collect(self, value: T) -> list[T]:
        return [json.loads(text) for text in self._gather(json.dumps(value).encode())]

    def refuse_differences(self, what: str, settings: Mapping[str, Any]) -> None:
        main, *others = self.collect(settings)
        for rank, other in enumerate(others, 1):
            for name in {**main, **other}:
                if main.get(name) != other.get(name):
                    raise ValueError(
                        f"{what}: {name} must be the same in all processes, but it is {main.get(name)!r} in rank 0 and "
                        f"{other.get(name)!r} in rank {rank}"
                    )

    def reduce(self, tensor: Tensor, group: Any) -> None:
        """Sum a tensor over all processes, in place."""
        with _reporting_losses():
            dist.all_reduce(tensor, group=group)

    def gather(self, tensor: Tensor, group: Any) -> Tensor:
        """Return the tensors of all processes, [count, ...]."""
        together = tensor.new_empty(self.count, *tensor.shape)
        with _reporting_losses():
            dist.all_gather(list(together.unbind()), tensor.contiguous(), group=group)
        return together

    def _gather(self, text: bytes) -> list[bytes]:
        lengths = self.gather(torch.tensor([len(text)], device="cpu"), self.control).flatten().tolist()
        padded = torch.frombuffer(bytearray(text.ljust(max(lengths))), dtype=torch.uint8)
        return [bytes(row.tolist())[:n] for row, n in zip(self.gather(padded, self.control), lengths, strict=True)]

    def _send(self, message: Mapping[str, Any]) -> None:
        text = json.dumps(message).encode()
        with _reporting_losses():
            dist.broadcast(torch.tensor([len(text)], device="cpu"), src=0, group=self.control)
            dist.broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8), src=0, group=self.control)

    def _receive(self) -> dict[str, Any]:
        length = torch.zeros(1, dtype=torch.int64, device="cpu")
        with _reporting_losses():
            dist.broadcast(length, src=0, group=self.control)
            text = torch.empty(int(length), dtype=torch.uint8, device="cpu")
            dist.broadcast(text, src=0, group=self.control)
        return json.loads(bytes(text.tolist()))


class _Rows(Share):
    """The rows of one of several processes. Where they cannot be shared evenly, the first processes have one more.

    Args:
        ranks: the processes.
        total: number of rows of the whole batch.
        synchronised: whether batch norm takes its statistics from the whole batch in training, or from these rows.

    Raises:
        ValueError: there are fewer rows than processes.
    """

    def __init__(self, ranks: _Group, total: int, synchronised: bool) -> None:
        if total < ranks.count:
            raise ValueError(f"train: batch_size must be at least the number of processes, {ranks.count}, got {total}")
        least, more = divmod(total, ranks.count)
        self._ranks, self.total = ranks, total
        self.sizes = [least + (rank < more) for rank in range(ranks.count)]
        self.first, self.size = sum(self.sizes[: ranks.rank]), self.sizes[ranks.rank]
        self._whole_batch = AsWholeBatch(self, ranks if synchronised else None)

    @property
    def is_whole(self) -> bool:
        return False

    def of(self, tensor: Tensor) -> Tensor:
        return tensor[self.first : self.first + self.size]

    def mean(self, gradients: Sequence[Tensor], parameters: Iterable[Tensor]) -> Sequence[Tensor]:
        if not gradients:
            return gradients
        orders = [sorted(range(p.dim()), key=p.stride, reverse=True) for p in parameters]  # from outer to inner
        ordered = [gradient.permute(order) for gradient, order in zip(gradients, orders, strict=True)]
        flat = torch.cat([gradient.reshape(-1) for gradient in ordered]).mul_(self.size / self.total)
        self._ranks.reduce(flat, self._ranks.data)
        parts = flat.split([gradient.numel() for gradient in gradients])
        means = [part.view(gradient.shape).to(gradient.dtype) for part, gradient in zip(parts, ordered, strict=True)]
        back = [sorted(range(len(order)), key=order.__getitem__) for order in orders]
        return [mean.permute(order) for mean, order in zip(means, back, strict=True)]

    def mean_rows(self, rows: Tensor) -> Tensor:
        rows = rows * (self.size / self.total)
        self._ranks.reduce(rows, self._ranks.control)
        return rows

    def as_whole(self) -> AbstractContextManager[Any]:
        return _NOTHING if self._whole_batch.active else self._whole_batch

    def pieces(self, first: int, *tensors: Tensor) -> Iterator[tuple[int, Sequence[Tensor]]]:
        start, end = 0, len(tensors[0])
        while start < end:
            batch, row = divmod(first + start, self.size)
            stop = min(end, start + self.size - row)
            yield batch * self.total + self.first + row, [tensor[start:stop] for tensor in tensors]
            start = stop


_initialised = False  # whether torch's process group is ours
_joined: tuple[Any, str, _Group] | None = None  # the process group of torch, the kind of device, ours


_apart = ContextVar("_apart", default=False)


@contextmanager
def apart() -> Iterator[None]:
    """Inside, `join` returns this process alone: each of several processes trains runs of its own."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def join(device: torch.device) -> Ranks:
    """Return the processes of which this is one: those of torch's default process group, or of torchrun.

    The process group is initialised if it is not yet. On CUDA each process takes the GPU of its LOCAL_RANK.

    Raises:
        RuntimeError: WORLD_SIZE says that there are several, but not how to reach them; or too few GPUs.
        ValueError: the processes are not all on the same kind of device.
    """
    global _joined, _initialised
    if _apart.get() or not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if _world_size() == 1:
            return ALONE
        if missing := [name for name in _ENVIRONMENT if name not in os.environ]:
            raise RuntimeError(
                f"train: this is one of WORLD_SIZE={_world_size()} processes, so {', '.join(missing)} must be set too, "
                "as torchrun does. Start it by torchrun, or unset WORLD_SIZE to train in one process"
            )
        with _reporting_losses():
            _initialise()
        _initialised = True
        atexit.register(_leave)
    if dist.get_world_size() == 1:
        return ALONE
    if device.type == "cuda":
        torch.cuda.set_device(_own_gpu())
    if _joined is None or _joined[:2] != (dist.group.WORLD, device.type):
        _joined = (dist.group.WORLD, device.type, _Group(device))
    return _joined[2]


def _initialise() -> None:
    """Initialise torch's process group; what processes left in the store before torchrun restarted them is not read."""
    from torch.distributed.distributed_c10d import PrefixStore  # a torch without distributed has neither
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    again = PrefixStore(f"pygan/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    with _background_threads():
        dist.init_process_group("gloo", store=again, rank=rank, world_size=count, timeout=_PATIENCE)


@contextmanager
def _background_threads() -> Iterator[None]:
    """Let the threads that are started inside never interrupt others that run, on Linux (SCHED_BATCH).

    While one thread of gloo sends, the one that receives polls in a loop for the lock that the first one holds. On a
    CPU without idle cores it takes the sender's place, and both get nothing done until the next tick, up to 4 ms later.
    Where the kernel or a sandbox refuses, nothing is changed.
    """
    changed = False
    with suppress(AttributeError, OSError):  # not Linux; refused
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            changed = True
    try:
        yield
    finally:
        if changed:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def is_one_of_several() -> bool:
    """Return whether torchrun or torch's default process group has other processes besides this one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size() > 1
    return _world_size() > 1


def is_main() -> bool:
    """Return whether this process is alone, or has rank 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return _world_size() == 1 or os.environ.get("RANK", "0") == "0"


def may_speak() -> bool:
    """Return whether this process is to report the error that ends it: of several the first that asks."""
    if _joined is None:
        return is_main()
    try:
        return dist.distributed_c10d._get_default_store().add("pygan/said", 1) == 1
    except RuntimeError:  # whoever had the store is gone
        return True


@contextmanager
def quiet() -> Iterator[None]:
    """Only the main process prints inside."""
    if is_main():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _world_size() -> int:
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() else 1


def _own_gpu() -> torch.device:
    index, there = int(os.environ.get("LOCAL_RANK", dist.get_rank())), torch.cuda.device_count()
    if index >= there:
        raise RuntimeError(
            f"train: process {index} of this machine needs a GPU of its own, and there are {there}: "
            "start fewer processes (--nproc-per-node), or pass device='cpu'"
        )
    return torch.device("cuda", index)


def _leave() -> None:
    """End torch's threads while Python can still serve them: one that asks for it later aborts the process."""
    global _joined
    if _joined is not None:
        _joined[2].close()
        _joined = None
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()


@contextmanager
def _reporting_losses() -> Iterator[None]:
    """Raise ProcessLostError where torch reports a broken connection."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ProcessLostError(
            "train: another process of this run has ended or cannot be reached, so this one ends too. Start all of "
            "them again, train with resume=True: it goes on from the last checkpoint, and table1 does so by itself "
            f"({reason})"
        ) from error
