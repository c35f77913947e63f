"""What config.toml says of the data: enough to know them again, and to load them if they came from files."""

import hashlib
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor

import pygan.data
from pygan.data.splits import Splits, as_float

__all__ = ["changed", "checksums", "describe", "refuse_leak"]

_SPLITS = ("train", "valid", "test")


def describe(splits: Splits, labelled: bool = False, **sources: Any) -> dict[str, Any]:
    """Return the data as config.toml has them: enough to know them again, and to load them if they came from files.

    Args:
        splits: the data.
        labelled: whether the labels are learned from, so that they must stay the same too.
        **sources: arguments of `pygan.data.load` that led to them.
    """
    described: dict[str, Any] = {
        "name": splits.name,
        "shape": list(splits.shape),
        "train": len(splits.train),
        "valid": len(splits.valid),
        "test": len(splits.test),
        "protocol": splits.protocol,
        "checksums": checksums(splits, labelled),
    }
    given = {name: source for name, source in sources.items() if source is not None}
    if all(isinstance(source, str | Path | Integral) for source in given.values()):
        described["sources"] = {name: _absolute(name, source) for name, source in given.items()}
    return described


def _absolute(name: str, source: str | Path | Integral) -> str | int:
    """A path without regard to the current folder, so that the run can be evaluated from another one."""
    if isinstance(source, Integral):
        return int(source)
    if name == "data" and source in pygan.data.NAMED:
        return str(source)
    return str(Path(source).expanduser().absolute())


def checksums(splits: Splits, labelled: bool = False) -> dict[str, str]:
    """Return the sha256 of each split: its dtype, its shape and its numbers; of its labels too, if they matter."""
    checksums = {}
    for name in _SPLITS:
        images = getattr(splits, name).images.contiguous()
        digest = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} ".encode())
        digest.update(images.numpy().data)
        checksums[name] = digest.hexdigest()
        if labelled:
            labels = getattr(splits, name).labels
            content = b"none" if labels is None else labels.numpy().tobytes()
            checksums[f"{name}_labels"] = hashlib.sha256(repr(splits.classes).encode() + content).hexdigest()
    return checksums


def _sha256(image: Tensor) -> bytes:
    """The same for the same pixels, whether they are bytes or floats."""
    return hashlib.sha256(as_float(image).numpy().tobytes()).digest()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which splits differ, in words; empty if none does."""
    for what, end in (("images", ""), ("labels", "_labels")):  # runs of version 0.1 have no checksums of labels
        names = [name for name in _SPLITS if before.get(name + end, now.get(name + end)) != now.get(name + end)]
        if names:
            return f"other {what} in {', '.join(names)}"
    return ""


def refuse_leak(splits: Splits) -> None:
    """Raise ValueError if every test image is a validation image too: its likelihood would say nothing."""
    valid = set(map(_sha256, splits.valid.images))
    if all(_sha256(image) in valid for image in splits.test.images):
        raise ValueError(
            f"train: test must hold images that valid does not hold; all {len(splits.test):,} images of the test split "
            "are in the validation split, on which sigma and the best epoch are chosen"
        )
