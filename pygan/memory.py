"""The memory that a run needs and the memory that is free: a run that cannot fit is refused before it begins."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pygan._session import forked_randomness
from pygan.data import Splits

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["WINDOW_BYTES", "Need", "estimate", "fits_one_core", "free_bytes", "refuse_too_large"]

WINDOW_BYTES = 512 << 20  # of samples that an evaluation keeps; more are drawn again, piece by piece
_FLOAT = 4  # bytes
_OPTIMISER = 2  # numbers for each parameter: Adam's; momentum has one
_COPIES = 2  # of the state of a run while a checkpoint is written: the tensors, and the file's bytes
_SHARE = 0.9  # of what is free at the start; other processes go on allocating
_SLACK = 200 << 20  # libraries, their workspaces, the strips of the Parzen window
_CORE = 4 << 20  # bytes that one core keeps in its own cache, or nearly
_SIZES = (512, 384, 256, 192, 128, 96, 64, 48, 32, 28, 16)  # sides that are tried


@dataclass(frozen=True)
class Need:
    """Bytes that a run allocates in addition to the loaded data, by purpose.

    Attributes:
        on_device: on the device of the players.
        on_host: on the CPU, in addition.
    """

    on_device: Mapping[str, int]
    on_host: Mapping[str, int]


def estimate(
    recipe: "Recipe",
    splits: Splits,
    shape: Sequence[int],
    classes: int,
    players: Mapping[str, nn.Module | None],
    device: torch.device,
) -> Need:
    """Return the memory that a run on images of this shape needs. The players are on "meta", so little is allocated.

    Args:
        recipe: every setting.
        splits: the data; their numbers of images count.
        shape: (C, H, W) of the images, perhaps others than those of the data.
        classes: number of classes, or 0 for a game that is not conditional.
        players: "generator" and "discriminator", the user's modules, or None for the recipe's. The activations of a
            user's module are not known; they are assumed to be as large as its parameters.
        device: of the players.

    Raises:
        ValueError: the model cannot make images of this shape.
    """
    pixels = math.prod(shape)
    with forked_randomness(torch.device("cpu")), torch.device("meta"):
        generator = players["generator"] or recipe.model.make_generator(shape, recipe.noise_size, classes)
        discriminator = players["discriminator"] or recipe.model.make_discriminator(shape, classes)
    sizes = [_bytes(player) for player in (generator, discriminator)]
    averages = sizes[0] if recipe.averaging else 0
    batch = recipe.batch_size
    activations = sum(sizes)
    if players["generator"] is None and players["discriminator"] is None:
        inputs = [torch.empty(batch, recipe.noise_size, device="meta"), torch.empty(2 * batch, *shape, device="meta")]
        activations = sum(map(_activations, (generator, discriminator), inputs, (classes, classes)))
    samples = min(recipe.evaluation_samples * pixels * _FLOAT, WINDOW_BYTES)
    judged = max(len(splits.valid), len(splits.test)) * pixels * _FLOAT
    on_device = {
        "weights": sum(sizes) + averages,
        "gradients": sum(sizes),
        "optimiser": _OPTIMISER * sum(sizes),
        "activations": activations + 6 * batch * pixels * _FLOAT,
        "evaluation": samples + judged,
        "data": splits.train.images.nbytes if device.type == "cuda" else 0,
    }
    if recipe.precision == "bf16":
        on_device["bfloat16 copies"] = sum(sizes) // 2
    return Need(on_device, {"checkpoint": _COPIES * ((1 + _OPTIMISER) * sum(sizes) + averages)})


def refuse_too_large(
    recipe: "Recipe",
    splits: Splits,
    classes: int,
    players: Mapping[str, nn.Module | None],
    device: torch.device,
) -> None:
    """Raise RuntimeError if the run needs more memory than is free; it names the numbers and a size that would fit."""
    if device.type not in ("cpu", "cuda"):
        return
    need = estimate(recipe, splits, splits.shape, classes, players, device)
    lacking = _lacking(need, device)
    if lacking is None:
        return
    place, parts, free = lacking
    smaller = (side for side in _SIZES if side < max(splits.shape[1:]))
    fits = next((side for side in smaller if _fits(side, recipe, splits, classes, players, device)), None)
    shape = "x".join(map(str, splits.shape))
    shares = ", ".join(f"{name} {_words(size)}" for name, size in sorted(parts.items(), key=lambda part: -part[1]))
    advice = "take a smaller batch_size or model" if fits is None else f"image_size={fits} would fit"
    raise RuntimeError(
        f"train: images of {shape} need about {_words(sum(parts.values()))} of memory on {place}, and "
        f"{_words(free)} is free ({shares}); {advice}"
    )


def fits_one_core(recipe: "Recipe", splits: Splits, classes: int, players: Mapping[str, nn.Module | None]) -> bool:
    """Return whether an update is so small that more threads would only wait for each other.

    This is so if weights and activations fit into the cache of one core. A user's module never counts as small, because
    its activations are not known.
    """
    if any(player is not None for player in players.values()):
        return False
    need = estimate(recipe, splits, splits.shape, classes, players, torch.device("cpu")).on_device
    return need["weights"] + need["activations"] < _CORE


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that this process can still allocate: on a CUDA device, or on the CPU; None if unknown."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = [size for size in (_available(Path("/proc/meminfo")), *_cgroup_free()) if size is not None]
    return min(found, default=None)


def _lacking(need: Need, device: torch.device) -> tuple[str, Mapping[str, int], int] | None:
    """Where the need is larger than what is free: the place, the parts of the need, and the free bytes."""
    host = dict(need.on_host)
    if device.type == "cpu":
        host |= need.on_device
    for place, parts in ((device, need.on_device), (torch.device("cpu"), host)):
        free = free_bytes(place) if place.type == "cuda" or parts is host else None
        if free is not None and sum(parts.values()) + _SLACK > _SHARE * free:
            return str(place), parts, free
    return None


def _fits(
    side: int,
    recipe: "Recipe",
    splits: Splits,
    classes: int,
    players: Mapping[str, nn.Module | None],
    device: torch.device,
) -> bool:
    try:
        need = estimate(recipe, splits, (splits.shape[0], side, side), classes, players, device)
    except ValueError:  # not every model takes every size
        return False
    return _lacking(need, device) is None


def _bytes(player: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*player.parameters(), *player.buffers()))


def _activations(player: nn.Module, inputs: Tensor, classes: int) -> int:
    """What one pass keeps for the backward pass, in bytes."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    mine = {tensor.untyped_storage()._cdata for tensor in player.parameters()}
    labels = (torch.empty(len(inputs), dtype=torch.int64, device="meta"),) if classes else ()
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.enable_grad():
        result = player(inputs, *labels)  # noqa: F841 (it keeps what was saved alive)
    return sum(size for storage, size in kept.items() if storage not in mine)


def _available(meminfo: Path) -> int | None:
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) << 10 if "MemAvailable" in lines else None


def _cgroup_free(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int | None]:
    """What the limits of the process's control groups leave, caches of files included; version 2 and version 1."""
    lines = own.read_text().splitlines() if own.exists() else []
    relative = lines[-1].rsplit(":", 1)[-1].strip("/") if lines else ""
    found: list[int | None] = []
    for folder in (root, *(root / part for part in _ancestors(relative)), root / "memory"):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                most = (folder / limit).read_text().strip()
                if most != "max":
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    found.append(int(most) - int((folder / used).read_text()) + int(stat.get(cache, 0)))
            except (OSError, ValueError):
                continue
    return found


def _ancestors(relative: str) -> list[str]:
    parts = relative.split("/") if relative else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
