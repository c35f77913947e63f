"""TensorBoard files of a run, for those who have installed the extra "tensorboard"."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes what the log says to `folder`/tensorboard, within `open`.

    Raises RuntimeError if TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                "train: tensorboard=True needs the extra of that name: pip install '.[tensorboard]'"
            ) from error
        self._make: Callable[..., Any] = SummaryWriter

    @contextmanager
    def open(self, folder: Path, epochs: int) -> Iterator[None]:
        """Continue after this number of epochs; later entries, from before the run was resumed, are removed."""
        with self._make(folder / "tensorboard", purge_step=epochs + 1) as self._writer:
            yield

    def write(self, entry: dict[str, Any]) -> None:
        """One epoch of `Run.history`."""
        for name, value in entry.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, entry["epoch"])
        self._writer.flush()
