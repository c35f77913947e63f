"""Checkpoints of anything that has parts: one file with named tensors, JSON values and a checksum.

The file is a safetensors file. Its metadata are "progress", as JSON, and "sha256", the checksum of names, dtypes,
shapes, numbers and progress. Checkpoints from before the checksum have no such entry, and are read without that check.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pygan._files import damaged, replace_file, require_regular

__all__ = ["Checkpoint", "Part", "digest", "plain_state", "read", "state_of", "take_over", "write"]

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and progress

_COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module's tensors
_EXTRA = "_extra_state"  # what torch calls the value of a module's get_extra_state
_JSON = ".json"  # added to that name where the value is no tensor
_SHOWN = 3  # differences in a message


class Part(Protocol):
    """Anything with a state of named tensors: a module, an optimiser, a step."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the tensors by name."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Copy a state of the same names, shapes and dtypes."""


def plain_state(part: Part) -> dict[str, Tensor]:
    """Return the state of a part, under the names that it has without `torch.compile`.

    The result of a module's `get_extra_state` is included: a tensor unchanged, a JSON value as the bytes of its text.

    Raises:
        TypeError: a value is neither a tensor nor a JSON value.
    """
    state = {}
    for name, value in part.state_dict().items():
        plain = name.replace(_COMPILED, "")
        if isinstance(value, Tensor):
            state[plain] = value
        else:
            state[plain + _JSON] = _as_tensor(value, plain)
    return state


def state_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Return the states of all parts, each tensor under "<part>.<name>".

    Raises:
        TypeError: see `plain_state`. Called before the first update, this detects a state that could not be saved.
    """
    named = {}
    for part, of in parts.items():
        try:
            named.update({f"{part}.{name}": tensor for name, tensor in plain_state(of).items()})
        except TypeError as error:
            raise TypeError(f"{part}.{error}") from None
    return named


def take_over(parts: Mapping[str, Part], tensors: Mapping[str, Tensor], what: str) -> None:
    """Load the state of every part from a checkpoint, after comparing all names, shapes and dtypes.

    Args:
        parts: the parts by name; tensors of other parts are ignored.
        tensors: as `state_of` returned them, on any device.
        what: the checkpoint, for the message.

    Raises:
        ValueError: a tensor is missing, has another shape or dtype, or is not known to its part. Nothing is loaded
            then.
    """
    states: dict[str, dict[str, Any]] = {}
    differences = []
    for part, of in parts.items():
        given = {_slot(name.removeprefix(f"{part}.")): name for name in tensors if name.startswith(f"{part}.")}
        state = states[part] = {}
        for name, mine in of.state_dict().items():
            key = given.pop(_slot(name), None)
            if key is None:
                differences.append(f"{part}.{name} is missing")
            elif _slot(name).endswith(_EXTRA):
                try:
                    state[name] = _extra(key, tensors[key])
                except ValueError as error:
                    differences.append(f"{key} is not JSON: {error}")
            elif (found := tensors[key]).shape != mine.shape or found.dtype != mine.dtype:
                differences.append(f"{key} must be {_describe(mine)}, got {_describe(found)}")
            else:
                state[name] = found
        differences += [f"{key} is not known here" for key in given.values()]
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ValueError(f"{what} does not fit: {'; '.join(differences[:_SHOWN])}{more}")
    for part, of in parts.items():
        of.load_state_dict(states[part])


def write(path: Path, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
    """Replace a checkpoint atomically. Raises OSError, which names the file, if it cannot be written."""
    import safetensors.torch  # here, because `import pygan` needs torch and numpy alone

    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    copies = {
        name: tensor.detach().cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps(progress)
    replace_file(path, safetensors.torch.save(copies, {"progress": text, "sha256": digest(copies, text)}))


def read(path: Path, remedy: str) -> Checkpoint:
    """Return the tensors, on the CPU, and the progress of a checkpoint.

    Raises:
        DamagedError: the file is no checkpoint, or is not as it was written; the message ends in `remedy`.
        OSError: the file cannot be read.
    """
    while True:
        require_regular(path, remedy)
        before = path.stat()
        try:
            return _read(path)
        except ValueError as error:
            now = path.stat()  # safetensors opens a file twice, and a run may have replaced it in between
            if (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                raise damaged(path, error, remedy) from None


def _read(path: Path) -> Checkpoint:
    """Return the checkpoint, or raise ValueError that says what is wrong."""
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, RuntimeError, TypeError) as error:
        raise ValueError(error) from None
    if metadata.keys() not in ({"progress"}, {"progress", "sha256"}):
        raise ValueError(f"its metadata must be progress and sha256, got {', '.join(metadata) or 'none'}")
    if "sha256" in metadata and metadata["sha256"] != digest(tensors, metadata["progress"]):
        raise ValueError("its content does not have the checksum that was stored with it")
    try:
        progress = json.loads(metadata["progress"])
    except RecursionError:
        raise ValueError("its progress is nested too deeply") from None
    if type(progress) is not dict:
        raise ValueError(f"its progress must be a table, got {progress!r:.50}")
    return tensors, progress


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return the sha256 of a checkpoint: progress, names, dtypes, shapes and numbers."""
    running = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        running.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        running.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()


def _slot(name: str) -> str:
    """Return what names of the same thing have in common: compiled or not, extra state as a tensor or as JSON."""
    plain = name.replace(_COMPILED, "")
    return plain.removesuffix(_JSON) if plain.endswith(_EXTRA + _JSON) else plain


def _as_tensor(value: Any, name: str) -> Tensor:
    """Return a JSON value as a tensor of the bytes of its text."""
    if not name.endswith(_EXTRA):
        raise TypeError(f"{name} must be a tensor to be stored in a checkpoint, got {value!r:.80}")
    try:
        text = json.dumps(value, allow_nan=False)
        exact = json.loads(text) == value
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise TypeError(
            f"{name} cannot be stored in a checkpoint: get_extra_state must return a tensor or a JSON value "
            f"(None, bool, str, finite numbers; lists, and dictionaries with str keys, of these), got {value!r:.80}"
        )
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _extra(name: str, tensor: Tensor) -> Any:
    return json.loads(bytes(tensor.tolist())) if name.endswith(_JSON) else tensor


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
