"""The three matrix products of a linear layer, by the library that is fastest at them.

On the CPU that is oneDNN for bfloat16 and, on AMD processors, for float32 (see pygan/ops/_products.py). Elsewhere, and
where oneDNN is missing, torch's ordinary functions are used, which call MKL on x86: on an Intel Xeon the whole float32
step took 21.3 ms with MKL and 25.4 ms with oneDNN.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from pygan import _core
from pygan.ops._products import HAS_ONEDNN

__all__ = ["affine", "outer", "times"]

_IS_AMD = _core.is_amd()

Activation = Literal["none", "relu", "sigmoid"]


def affine(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """activation(x weight^T + bias): x [n, in], weight [out, in], bias [out] -> [n, out], fresh."""
    if HAS_ONEDNN and x.device.type == "cpu" and (_IS_AMD or x.dtype is torch.bfloat16):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    y = linear(x, weight, bias)
    return y if activation == "none" else getattr(y, f"{activation}_")()


def times(grad: Tensor, weight: Tensor) -> Tensor:
    """grad weight, the gradient with respect to a layer's input: grad [n, out], weight [out, in] -> [n, in]."""
    return affine(grad, weight.t(), None)


def outer(grad: Tensor, x: Tensor) -> Tensor:
    """grad^T x, the gradient with respect to a layer's weight: grad [n, out], x [n, in] -> [out, in]."""
    return affine(grad.t(), x.t(), None)
