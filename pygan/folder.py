"""The run folder: what is where, and how it is written so that nothing is lost.

    runs/mnist/config.toml              every setting, the data, the players
    runs/mnist/log.jsonl                one line for each epoch
    runs/mnist/samples/0005.png         samples after epoch 5, always from the same noise
    runs/mnist/checkpoints/             last.safetensors and best.safetensors
    runs/mnist/result.json              the log-likelihood, and all that it depends on; written at the end

Files are replaced as a whole: written beside, flushed to the disk, renamed. Whoever reads a folder whose run was
killed, at whatever moment, finds the old file or the new one.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["DamagedError", "Part", "RunFolder", "choose_folder", "take_over"]

_CONFIG = {  # what config.toml must hold, a table before what is in it
    "seed": int,
    "recipe": dict,
    "data": dict,
    "data.shape": list,
    "data.checksums": dict,
    "players": dict,
    "players.generator": str,
    "players.discriminator": str,
}
_BEFORE_CONFIG = (".lock", "config.toml.part")  # What a run that was killed at its very start leaves.


class DamagedError(ValueError):
    """A file of the run folder is damaged."""


class Part(Protocol):
    """What a checkpoint holds the state of."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> object: ...


def take_over(parts: Mapping[str, Part], tensors: Mapping[str, Tensor], what: str) -> None:
    """Load the state of every part."""
    for part, of in parts.items():
        prefix = f"{part}."
        of.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})


class RunFolder:
    """The files of one run: what is where, and how it is written so that nothing is lost."""

    def __init__(self, path: Path, made: bool = False) -> None:
        self.path = path
        self._made = made  # by this process, and for this run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, or raise RuntimeError if another process does. A killed process holds nothing.

        If an error ends this before a run was begun here, the folder is left as it was found.
        """
        import filelock  # here, as the others below: `import pygan` needs torch and numpy alone

        if not self.path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = True
        try:
            with filelock.FileLock(self.path / ".lock", timeout=0):
                try:
                    yield
                except BaseException:
                    if not self.holds_run():
                        self._clear()
                    raise
        except filelock.Timeout:
            raise RuntimeError(
                f"train: another process is training in {self.path}; wait for it, or choose another out="
            ) from None

    def _clear(self) -> None:
        """Take away what a start that failed has left, and the folder if it was made for it."""
        for name in _BEFORE_CONFIG:
            (self.path / name).unlink(missing_ok=True)
        if self._made and not any(self.path.iterdir()):
            self.path.rmdir()

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.toml").exists()

    def is_finished(self) -> bool:
        """Whether the run went through to its result."""
        return (self.path / "result.json").exists()

    def read_config(self) -> dict[str, Any]:
        """Return the tables of config.toml, as `write_config` got them."""
        path = self.path / "config.toml"
        if not path.exists():
            raise FileNotFoundError(f"load: {self.path} holds no run (it has no config.toml)")
        try:
            config = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is malformed: {error}") from None
        for key, kind in _CONFIG.items():
            value: Any = config
            for name in key.split("."):
                value = value.get(name)
            if type(value) is not kind:
                raise ValueError(f"{path} is malformed: {key} must be of type {kind.__name__}, got {value!r}")
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store tables of plain values as config.toml. From here on the folder holds a run."""
        import tomli_w

        _write(self.path / "config.toml", tomli_w.dumps(config).encode())

    def write_log(self, lines: list[dict[str, Any]]) -> None:
        """Start the log anew with these lines: what a resumed run remembers."""
        _write(self.path / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())

    def append_log(self, line: dict[str, Any]) -> None:
        """Add one line to the log."""
        with (self.path / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def summary(self) -> str:
        """The result of a finished run in one line."""
        result = json.loads((self.path / "result.json").read_text())
        return (
            f"{self.path}: {result['log_likelihood']:.1f} +- {result['standard_error']:.1f} nats on the test split, "
            f"at epoch {result['best_epoch']} of {result['epochs']}"
        )

    def write_result(self, result: Mapping[str, Any] | None) -> None:
        """Store the result; None takes back that of a run that now goes on."""
        path = self.path / "result.json"
        if result is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, (json.dumps(result, indent=2) + "\n").encode())

    def write_checkpoint(self, name: str, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Store "last" or "best": named tensors, and what JSON can hold."""
        import safetensors.torch

        # Copies, because safetensors refuses tensors that share memory, as tied weights do.
        copies = {
            key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
        }
        path = self._checkpoint(name)
        path.parent.mkdir(exist_ok=True)
        _write(path, safetensors.torch.save(copies, {"progress": json.dumps(progress)}))

    def read_checkpoint(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `write_checkpoint` stored, on the CPU, or None if there is none."""
        import safetensors

        path = self._checkpoint(name)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
                return tensors, json.loads(file.metadata()["progress"])
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a checkpoint of pygan, or damaged: {error}") from None

    def samples(self, epoch: int) -> Path:
        """Where the picture of an epoch goes."""
        return self.path / "samples" / f"{epoch:04}.png"

    def _checkpoint(self, name: str) -> Path:
        if name not in ("last", "best"):
            raise ValueError(f"checkpoint must be 'best' or 'last', got {name!r}")
        return self.path / "checkpoints" / f"{name}.safetensors"


def choose_folder(out: str | Path | None, name: str, resume: bool) -> RunFolder:
    """The folder `out`, or the next free one of runs/<name>, runs/<name>-2, ...; to resume, the last of these.

    Raises ValueError if the folder holds a run that is not to be resumed, or anything that is no run.
    """
    if out is None:
        number, last = 1, None
        while True:
            path = Path("runs", name if number == 1 else f"{name}-{number}")
            if resume and last and not path.exists():
                out = last
                break
            try:
                path.mkdir(parents=True)  # Fails for all but one of several processes that want the same name.
                return RunFolder(path, made=True)
            except FileExistsError:
                number, last = number + 1, path
    folder = RunFolder(Path(out))
    if folder.holds_run():
        if not resume:
            raise ValueError(f"train: {out} holds a run; resume=True continues it, another out= starts a new one")
    elif folder.path.exists() and any(entry.name not in _BEFORE_CONFIG for entry in folder.path.iterdir()):
        raise ValueError(f"train: {out} is not empty and holds no run; choose another out=")
    return folder


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, so that a crash at any moment leaves the old one or the new one."""
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
