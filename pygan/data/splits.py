"""The one form in which all data reach training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

MINIMUM = 10  # images; fewer cannot be split 80/10/10


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """Training, validation and test images of one data set, on the CPU.

    Attributes:
        name: short name of the data set, fit for a folder name.
        train, valid, test: [N, C, H, W] each; uint8 in 0..255, or float32 in [0, 1] (see `as_float`).
        protocol: one sentence that says where the images and the splits come from.
    """

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor
    protocol: str

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split)):,} {split}" for split in ("train", "valid", "test"))
        return f"Splits({self.name!r}: {sizes} images of {list(self.train.shape[1:])})"


@dataclass(frozen=True, eq=False)
class Source:
    """Images as they were found: a split that is None has still to be cut from `train`."""

    name: str
    train: Tensor
    protocol: str
    valid: Tensor | None = None
    test: Tensor | None = None


def as_float(images: Tensor) -> Tensor:
    """Returns images as float32 in [0, 1]: uint8 is divided by 255, float32 is returned as it is."""
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    if images.dtype == torch.float32:
        return images
    raise TypeError(f"as_float: images must be uint8 or float32, got {images.dtype}")


def divide(source: Source, seed: int) -> Splits:
    """Cuts the splits that `source` lacks from its training images, a tenth each, at random by `seed`.

    Draws from a generator of its own. Raises ValueError if there are fewer than 10 images to cut from.
    """
    train, valid, test, protocol = source.train, source.valid, source.test, source.protocol
    missing = [split for split, images in (("valid", valid), ("test", test)) if images is None]
    if missing:
        if len(train) < MINIMUM:
            raise ValueError(
                f"data: need at least {MINIMUM} images to split into train, valid and test, got {len(train)}"
            )
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        size = max(2, len(train) // 10)  # two at least: a single point has no standard error
        if valid is None:
            valid, order = train[order[:size]], order[size:]
        if test is None:
            test, order = train[order[:size]], order[size:]
        train = train[order]
        shares = "/".join(["80" if len(missing) == 2 else "90", *("10" for _ in missing)])
        counts = ", ".join([f"{len(train):,} train", *(f"{size:,} {split}" for split in missing)])
        protocol = f"{protocol}; split {shares} at random by seed {seed} into {counts}"
    assert valid is not None
    assert test is not None
    return Splits(source.name, train, valid, test, protocol)


def with_given(source: Source, valid: Tensor | None, test: Tensor | None) -> Source:
    """Returns `source` with the caller's own splits in place of its own."""
    protocol = source.protocol
    for split, images in (("valid", valid), ("test", test)):
        if images is not None:
            if images.shape[1:] != source.train.shape[1:] or len(images) == 0:
                expected = ", ".join(map(str, source.train.shape[1:]))
                raise ValueError(f"{split}: must have shape [N >= 1, {expected}] like train, got {list(images.shape)}")
            protocol += f"; {split} = {len(images):,} images given"
    return replace(
        source,
        valid=source.valid if valid is None else valid,
        test=source.test if test is None else test,
        protocol=protocol,
    )
