"""Batches of training images in an order that is a pure function of the seed and the epoch."""

import numpy as np
import torch
from torch import Tensor

from pygan.data import as_float

__all__ = ["Batches"]


class Batches:
    """Real images, batch after batch; each epoch is a new permutation, and its last incomplete batch is left out.

    Since the order depends on nothing but (seed, epoch), a run that resumes finds its place by the number of batches
    that it has used, and nothing else needs to be stored.

    Args:
        images: [N, C, H, W], uint8 or float32 in [0, 1]; they are kept on the device.
        batch_size: at most N.
        seed: at least 0.

    Attributes:
        position: batches used so far; may be set.
        per_epoch: batches in one epoch.
    """

    def __init__(self, images: Tensor, batch_size: int, seed: int, device: torch.device) -> None:
        self.images = images.to(device)
        self.batch_size = batch_size
        self.per_epoch = len(images) // batch_size
        self._seed = seed
        self.position = 0
        self._order = torch.empty(0, dtype=torch.int64)
        self._epoch = -1

    def indices(self) -> Tensor:
        """The next batch as indices into `images`, int64 [batch_size], on the images' device."""
        epoch, batch = divmod(self.position, self.per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self.images))
            self._order = torch.from_numpy(order).to(self.images.device)
            self._epoch = epoch
        self.position += 1
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def __call__(self) -> Tensor:
        """The next batch, float32 [batch_size, C, H, W] in [0, 1]."""
        return as_float(self.images[self.indices()])
