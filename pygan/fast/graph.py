"""The training step as one CUDA graph: the whole iteration is one launch, whatever step it was captured from.

Everything that changes from iteration to iteration lives on the device, at fixed addresses: the indices of the real
images, which are gathered inside the graph from a data set that stays on the device, and the rates. Random numbers
advance inside the graph, since torch moves its generator's offset with each replay. Nothing waits for the device:
statistics stay there until they are asked for.

A captured step gives the bits of the step that it was captured from if cuBLAS is told to use the same workspace for
both (CUBLAS_WORKSPACE_CONFIG=:4096:8); otherwise it may choose another order of summation.
"""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from pygan._terminal import warn
from pygan.batches import Batches
from pygan.optim import Rates
from pygan.step import BaseStep, StatisticsRows

__all__ = ["GraphStep", "capture"]

_WARM_UP = 3  # iterations before the capture, in which libraries and optimisers make what they keep


def capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What the function does on the device, to be repeated by one launch. The capture itself runs nothing."""
    graph = torch.cuda.CUDAGraph()
    index = torch.cuda.current_device() if device.index is None else device.index
    with torch.cuda.device(index), torch.cuda.graph(graph, stream=_capture_stream(index)):
        function()
    return graph.replay


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """One stream for each GPU. Torch's default is one for all: of the GPU that was the first to capture anything.

    It is kept because cuBLAS keeps a workspace for each stream that it has ever met.
    """
    return torch.cuda.Stream(device)


class GraphStep:
    """A `pygan.step.Step` that replays another one.

    The first iterations run uncaptured, and so do all if the capture fails, which is said once. After `reload`, or when
    the images come from another `Batches`, it is captured anew.

    Args:
        step: the step to capture: its `iterate` neither waits for the device nor reads anything from it.
        k: batches of real images in one iteration.
        device: a CUDA device.
    """

    def __init__(self, step: BaseStep, k: int, device: torch.device) -> None:
        self._step, self._device, self._k = step, device, k
        width = len(step.game.objective.statistics)
        self._rates = torch.zeros(len(Rates._fields), device=device)
        self._indices: Tensor | None = None  # [k, batch]
        self._row = torch.zeros(width, dtype=torch.float64, device=device)
        self._rows = StatisticsRows(width)
        self._replay: Callable[[], None] | None = None
        self._source: Batches | None = None  # whose images the graph reads
        self._uncaptured = 0  # iterations since the last reason not to replay
        self._possible = True

    def __call__(self, real: Batches, rates: Rates) -> None:
        """See `pygan.step.Step`."""
        if self._replay is not None and real is not self._source:
            self._forget()
        if self._replay is None and self._possible and self._uncaptured >= _WARM_UP:
            self._try_capture(real)
        if self._replay is None:
            self._rows.append(self._step.iterate(real, rates))
            self._uncaptured += 1
            return
        assert self._indices is not None
        # Small copies from pageable memory return when they are staged: nothing waits, and nothing is overwritten.
        self._rates.copy_(torch.tensor(rates), non_blocking=True)
        for row in self._indices:
            row.copy_(real.indices())
        self._replay()
        self._rows.append(self._row.clone())

    def _try_capture(self, real: Batches) -> None:
        indices = torch.zeros(self._k, real.batch_size, dtype=torch.int64, device=self._device)

        def iterate() -> None:
            batches = iter(indices)
            row = self._step.iterate(lambda: real.at(next(batches)), Rates(*self._rates))
            self._row.copy_(row)

        try:
            self._replay = capture(iterate, self._device)
        except RuntimeError as error:
            self._possible = False
            reason = str(error).partition("\n")[0]
            warn(f"this training step cannot become a CUDA graph and runs uncaptured: {reason}")
        self._source, self._indices = real, indices

    def _forget(self) -> None:
        self._replay, self._uncaptured = None, 0

    def statistics(self) -> Tensor:
        """See `pygan.step.Step`."""
        return self._rows.take()

    def reload(self) -> None:
        """See `pygan.step.Step`. Parameters may have moved to other addresses, so the graph is captured anew."""
        self._step.reload()
        self._forget()

    def state_dict(self) -> dict[str, Tensor]:
        """See `pygan.step.Step`."""
        return self._step.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `pygan.step.Step`."""
        self._step.load_state_dict(state)
        self._forget()
