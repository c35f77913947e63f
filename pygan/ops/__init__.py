"""The kernels as torch operators, each with its derivative and its reference in `pygan.ops.reference`."""

from pygan.ops import reference
from pygan.ops.adversarial_loss import discriminator_loss, generator_loss
from pygan.ops.dropout import dropout
from pygan.ops.maxout import maxout, maxout_pool
from pygan.ops.momentum import momentum_update
from pygan.ops.parzen import parzen_logsumexp

__all__ = [
    "discriminator_loss",
    "dropout",
    "generator_loss",
    "maxout",
    "maxout_pool",
    "momentum_update",
    "parzen_logsumexp",
    "reference",
]
