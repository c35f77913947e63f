"""The one form in which all data reach training and evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pygan.data.batch import Batch
from pygan.data.labels import translate
from pygan.settings import random_generator

MINIMUM = 10  # images; fewer cannot be split 80/10/10
_MOST = 10_000  # images in a split that is cut from mapped ones: the evaluation holds it in memory


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """Training, validation and test images of one data set, on the CPU.

    Attributes:
        name: short name of the data set, fit for a folder name.
        train, valid, test: images [N, C, H, W], uint8 in 0..255 or float32 in [0, 1] (see `as_float`), and labels. The
            labels of a given split are None if it brings none, or if it has classes that train does not have.
        protocol: one sentence that says where the images and the splits come from.
        classes: the names of the classes in label order (labels are in 0..len(classes) - 1), or None without labels.
    """

    name: str
    train: Batch
    valid: Batch
    test: Batch
    protocol: str
    classes: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def class_count(self) -> int:
        """Return the number of classes, for a conditional game; ValueError if there are no labels."""
        if self.classes is None or self.train.labels is None:
            raise ValueError(f"conditional=True needs labels, and {self.name!r} has none")
        return len(self.classes)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split)):,} {split}" for split in ("train", "valid", "test"))
        classes = "" if self.classes is None else f" in {len(self.classes)} classes"
        return f"Splits({self.name!r}: {sizes} images of {list(self.shape)}{classes})"


@dataclass(frozen=True, eq=False)
class Source:
    """Images as a loader found them.

    Attributes:
        name, protocol, classes: as in `Splits`.
        train, valid, test: images and labels as in `Splits`. A split that is None has still to be cut from `train`.

    Raises:
        TypeError: images that are neither uint8 nor float32.
        ValueError: images of another shape than [N, C, H, W], or labels without a class.
    """

    name: str
    train: Batch
    protocol: str
    valid: Batch | None = None
    test: Batch | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for split in ("train", "valid", "test"):
            if (batch := getattr(self, split)) is not None:
                _check(batch, self.classes, f"{self.name}: {split}")


def as_float(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1]: uint8 is divided by 255, float32 is returned as it is."""
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    if images.dtype == torch.float32:
        return images
    raise TypeError(f"as_float: images must be uint8 or float32, got {images.dtype}")


def divide(source: Source, seed: int) -> Splits:
    """Cut the splits that `source` lacks from its training images, a tenth each, at random by `seed`.

    From mapped images, which are in random order, they are cut as slices, whatever the seed, so that nothing is copied;
    and a split has at most 10,000 images, as many as MNIST's.

    Draws from a generator of its own. Raises ValueError if there are fewer than 10 images to cut from.
    """
    train, valid, test, protocol = source.train, source.valid, source.test, source.protocol
    missing = [split for split, batch in (("valid", valid), ("test", test)) if batch is None]
    if missing:
        if len(train) < MINIMUM:
            raise ValueError(
                f"data: need at least {MINIMUM} images to split into train, valid and test, got {len(train)}"
            )
        size = max(2, len(train) // 10)  # two at least: a single point has no standard error
        if train.mapped:
            size = min(size, _MOST)
        cuts = [slice(i * size, (i + 1) * size) for i in range(len(missing))] + [slice(len(missing) * size, None)]
        if train.mapped:
            how = "in the fixed random order of the cache"
            parts = [train[cut] for cut in cuts]
        else:
            how = f"{'80' if len(missing) == 2 else '90'}/{'/'.join('10' for _ in missing)} at random by seed {seed}"
            order = torch.randperm(len(train), generator=random_generator("load: seed", seed))
            parts = [train[order[cut]] for cut in cuts]
        train, found = parts.pop(), dict(zip(missing, parts, strict=True))
        valid, test = found.get("valid", valid), found.get("test", test)
        counts = ", ".join([f"{len(train):,} train", *(f"{size:,} {split}" for split in missing)])
        protocol = f"{protocol}; split {how} into {counts}"
    assert valid is not None
    assert test is not None
    return Splits(source.name, train, valid, test, protocol, source.classes)


def with_given(source: Source, **given: Source | None) -> Source:
    """Return `source` with the caller's own splits, `valid` and `test`, in place of its own.

    All images of a given source are used, and their labels are matched by the names of the classes.
    """
    for split, other in given.items():
        if other is None:
            continue
        images = other.train.images
        if images.shape[1:] != source.train.images.shape[1:] or len(images) == 0:
            expected = ", ".join(map(str, source.train.images.shape[1:]))
            raise ValueError(f"{split}: must have shape [N >= 1, {expected}] like train, got {list(images.shape)}")
        source = replace(source, protocol=f"{source.protocol}; {split} = {len(images):,} images given")
        source = with_split(source, split, other)
    return source


def with_split(source: Source, split: str, other: Source) -> Source:
    """Return `source` with all images of `other` as its split "valid" or "test".

    Labels are translated to the classes of `source`. If `other` has a class more, its labels are left out, and the
    protocol says so.
    """
    labels, protocol = None, source.protocol
    if source.classes is not None and other.classes is not None and other.train.labels is not None:
        labels = translate(other.train.labels, other.classes, source.classes)
        if labels is None:
            protocol += f" (labels not used: {split} has classes that train does not have)"
    batch = Batch(other.train.images, labels)
    return replace(
        source,
        protocol=protocol,
        valid=batch if split == "valid" else source.valid,
        test=batch if split == "test" else source.test,
    )


def _check(batch: Batch, classes: tuple[str, ...] | None, what: str) -> None:
    images, labels = batch.images, batch.labels
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"{what}: images must be uint8 or float32, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"{what}: images must have shape [N, C, H, W], got {list(images.shape)}")
    if images.is_floating_point() and images.numel():
        check_range(images, what)
    if images.dtype == torch.uint8 and _nearly_black(images):
        raise ValueError(f"{what}: uint8 images of only 0 and 1 are nearly black, since 255 is white; pass x * 255")
    if labels is not None and len(labels):
        low, high = labels.min().item(), labels.max().item()
        if classes is None or low < 0 or high >= len(classes):
            expected = "classes, which name them" if classes is None else f"labels in 0..{len(classes) - 1}"
            raise ValueError(f"{what}: expected {expected}, got labels in {low}..{high}")


def _nearly_black(images: Tensor) -> bool:
    """Whether uint8 images have a 1 and nothing above. Usually the first few say no; all at once may be too many."""
    brightest = 0
    for some in images.split(64):
        brightest = max(brightest, int(some.max()) if some.numel() else 0)
        if brightest > 1:
            return False
    return brightest == 1


def check_range(images: Tensor, what: str) -> None:
    """Raise ValueError, which names the remedy, unless the values of floating-point images [N, ...] lie in [0, 1]."""
    low, high = (bound.item() for bound in images.aminmax())
    if math.isnan(low):
        first = images.isnan().flatten(1).any(1).nonzero()[0].item()
        raise ValueError(f"{what}: floats must lie in [0, 1], got NaN, first in image {first}")
    if low < 0 or high > 1:
        if low >= -0.1 and high <= 1.1:
            remedy = "x.clip(0, 1)"
        elif low >= 0:
            remedy = "x / 255" if 128 <= high <= 255 else "x / x.max()"
        elif low >= -1 and high <= 1:
            remedy = "(x + 1) / 2"
        else:
            remedy = "(x - x.min()) / (x.max() - x.min())"
        raise ValueError(f"{what}: floats must lie in [0, 1], got [{low:.9g}, {high:.9g}]; pass {remedy}")
