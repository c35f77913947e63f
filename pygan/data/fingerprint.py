"""What config.toml says of the data: enough to know them again, and to load them if they came from files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pygan.data
from pygan.data.splits import Splits

__all__ = ["changed", "checksums", "describe"]

_SPLITS = ("train", "valid", "test")


def describe(splits: Splits, **sources: Any) -> dict[str, Any]:
    """The data as config.toml has them: enough to know them again, and to load them if they came from files.

    Args:
        splits: the data.
        **sources: arguments of `pygan.data.load` that led to them.
    """
    described: dict[str, Any] = {
        "name": splits.name,
        "shape": list(splits.train.shape[1:]),
        "train": len(splits.train),
        "valid": len(splits.valid),
        "test": len(splits.test),
        "protocol": splits.protocol,
        "checksums": checksums(splits),
    }
    given = {name: source for name, source in sources.items() if source is not None}
    if all(isinstance(source, str | Path) for source in given.values()):
        # Absolute, so that the run can be evaluated from another folder.
        described["sources"] = {
            name: source if source in pygan.data.NAMES else str(Path(source).expanduser().absolute())
            for name, source in given.items()
        }
    return described


def checksums(splits: Splits) -> dict[str, str]:
    """The sha256 of each split: its dtype, its shape and its numbers."""
    checksums = {}
    for name in _SPLITS:
        images = getattr(splits, name).contiguous()
        digest = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} ".encode())
        digest.update(images.numpy().data)
        checksums[name] = digest.hexdigest()
    return checksums


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which splits differ, in words; empty if none does."""
    names = [name for name in _SPLITS if before[name] != now[name]]
    return f"other images in {', '.join(names)}" if names else ""
