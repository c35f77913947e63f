"""Batches of training images, in an order that depends only on the seed and the epoch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pygan.data import Batch, as_float
from pygan.data.scaling import Scale
from pygan.distributed import Share

__all__ = ["Batches"]


class Batches:
    """Real images in batches. Each epoch is a new permutation; an incomplete batch at its end is left out.

    With `flip`, half of the images of each epoch, chosen at random, are mirrored left to right.

    Of images that are mapped from a file, a thread reads the next batch from the disk while the step uses this one.

    All of this depends only on (seed, epoch). So a run can be resumed if the number of used batches is stored.

    Args:
        data: images, uint8 or float32 in [0, 1], with or without labels; they are kept on the device.
        batch_size: at most the number of images.
        seed: at least 0.
        device: of the batches.
        scale: the pixel scale of the batches.
        flip: whether to mirror images at random.
        share: this process's share of each batch, if there are several processes.

    Attributes:
        position: batches used so far; may be set.
        per_epoch: batches in one epoch.
    """

    def __init__(
        self,
        data: Batch,
        batch_size: int,
        seed: int,
        device: torch.device,
        scale: Scale,
        flip: bool = False,
        share: Share | None = None,
    ) -> None:
        self.data = data.to(device)
        self.batch_size = batch_size
        self.per_epoch = len(data) // batch_size
        self.position = 0
        self._seed, self._scale, self._flip = seed, scale, flip
        self._share = Share(batch_size) if share is None else share
        self._order = torch.empty(0, dtype=torch.int64)
        self._epoch = -1
        self._reader = ThreadPoolExecutor(1) if self.data.mapped else None

    def indices(self) -> Tensor:
        """Return this process's share of the next batch as indices into the images, int64 [n], on their device.

        With `flip`, an index that is larger by the number of images means the mirrored image.
        """
        epoch, batch = divmod(self.position, self.per_epoch)
        if epoch != self._epoch:
            draws = np.random.default_rng((self._seed, epoch))
            order = draws.permutation(len(self.data))
            if self._flip:
                order += len(order) * draws.integers(2, size=len(order))
            self._order = torch.from_numpy(order).to(self.data.images.device)
            self._epoch = epoch
        self.position += 1
        if self._reader is not None and batch + 1 < self.per_epoch:
            self._reader.submit(self._load, self._of_batch(batch + 1))
        return self._of_batch(batch)

    def at(self, indices: Tensor) -> Batch:
        """Return these images, float32 in the pixel scale, and their labels."""
        batch = self.data[indices % len(self.data)] if self._flip else self.data[indices]
        images = self._scale.apply(as_float(batch.images))
        if self._flip:
            mirrored = (indices >= len(self.data)).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(-1), images)
        return Batch(images, batch.labels)

    def __call__(self) -> Batch:
        """Return this process's share of the next batch."""
        return self.at(self.indices())

    def _of_batch(self, batch: int) -> Tensor:
        return self._share.of(self._order[batch * self.batch_size : (batch + 1) * self.batch_size])

    def _load(self, indices: Tensor) -> None:
        """Bring these images from the disk into the memory of the system."""
        self.data.images[indices % len(self.data)]
