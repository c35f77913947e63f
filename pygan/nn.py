"""Layers as torch modules."""

import math

import torch
from torch import Tensor, nn

from pygan.ops._library import Impl
from pygan.ops.dropout import dropout
from pygan.ops.maxout import maxout

__all__ = ["Maxout"]

# torch.fx takes the functions as single calls, without looking into them.
torch.fx.wrap("dropout")
torch.fx.wrap("maxout")


class Maxout(nn.Module):
    """A layer of maxout units (Goodfellow et al. 2013), with dropout of its input while training.

    Weight [units, pieces, in_features] and bias [units, pieces] start in U(-1, 1) / sqrt(in_features), as in nn.Linear.

    Args:
        in_features: size of the last dimension of the input.
        units: size of the last dimension of the output.
        pieces: linear pieces of one unit, 1 to 256.
        dropout: probability of dropping an input, in [0, 1); what is kept is divided by 1 - dropout.
        bias: whether the units have biases; without, `bias` is None.
        device: of the parameters, as in torch's own layers.
        dtype: of the parameters, as in torch's own layers.
        impl: "auto", "native" or "reference" (plain torch), as in `pygan.ops.maxout`.

    Raises:
        ValueError: a size below 1, pieces or dropout out of range, an unknown `impl`.
    """

    def __init__(
        self,
        in_features: int,
        units: int,
        pieces: int,
        dropout: float = 0.0,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("units", units), ("pieces", pieces)):
            if size < 1:
                raise ValueError(f"Maxout: {name} must be at least 1, got {size}")
        if pieces > 256:
            raise ValueError(f"Maxout: pieces must be at most 256, got {pieces}")
        if not 0 <= dropout < 1:
            raise ValueError(f"Maxout: dropout must be in [0, 1), got {dropout}")
        if impl not in ("auto", "native", "reference"):
            raise ValueError(f"Maxout: impl must be 'auto', 'native' or 'reference', got {impl!r}")
        self.in_features, self.units, self.pieces, self.dropout, self.impl = in_features, units, pieces, dropout, impl
        self.weight = nn.Parameter(torch.empty(units, pieces, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(units, pieces, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., units]."""
        x = dropout(x, self.dropout, impl=self.impl) if self.training else x
        return maxout(x, self.weight, self.bias, impl=self.impl)

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_features}, units={self.units}, pieces={self.pieces}, dropout={self.dropout}{bias}"
