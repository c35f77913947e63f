"""The three matrix products of a linear layer, on the CPU by the library that was measured to be the faster one.

torch's ordinary functions call MKL on x86. oneDNN, which torch carries too, took half of MKL's time on an AMD Zen 5,
as long on a Zen 4, and longer on an Intel Xeon. So a run measures both at its own sizes, and keeps the choice: the
libraries add in different orders, and a resumed run is to have the bits of one that was not interrupted.
"""

import itertools
import math
import time
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear

from pygan.ops._products import HAS_ONEDNN

__all__ = ["Layer", "Library", "Products", "faster_library"]

Library = Literal["torch", "onednn"]
Activation = Literal["none", "relu", "sigmoid"]

_ROUNDS = 5
_MARGIN = 1.2  # by which oneDNN must be faster: a choice between equals would differ from process to process


class Layer(NamedTuple):
    """A linear layer, x [rows, inputs] -> [rows, outputs], and whether its gradients are products too."""

    rows: int
    inputs: int
    outputs: int
    backward: bool


class Products:
    """The products of layers whose tensors are all on one device."""

    def __init__(self, library: Library) -> None:
        self._onednn = library == "onednn"

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
        """activation(x weight^T + bias): x [n, in], weight [out, in], bias [out] -> [n, out], fresh."""
        if self._onednn:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
        y = linear(x, weight, bias)
        return y if activation == "none" else getattr(y, f"{activation}_")()

    def times(self, grad: Tensor, weight: Tensor) -> Tensor:
        """grad weight, the gradient with respect to a layer's input: grad [n, out], weight [out, in] -> [n, in]."""
        return self.affine(grad, weight.t(), None)

    def outer(self, grad: Tensor, x: Tensor) -> Tensor:
        """grad^T x, the gradient with respect to a layer's weight: grad [n, out], x [n, in] -> [out, in]."""
        return self.affine(grad.t(), x.t(), None)


def faster_library(asked: Literal["auto", "torch", "onednn"], layers: tuple[Layer, ...], dtype: torch.dtype) -> Library:
    """Return the library that was asked for, or for "auto" the one that is faster at these layers on the CPU.

    It is measured once a process for the same layers, dtype and number of threads. A torch without oneDNN has only its
    own functions.
    """
    if not HAS_ONEDNN:
        return "torch"
    return _measured(layers, dtype, torch.get_num_threads()) if asked == "auto" else asked


@cache
def _measured(layers: tuple[Layer, ...], dtype: torch.dtype, threads: int) -> Library:
    seconds: dict[Library, float] = {"torch": 0.0, "onednn": 0.0}
    for layer in layers:
        for (library, _), least in _least_seconds(layer, dtype).items():
            seconds[library] += least
    return "onednn" if seconds["onednn"] * _MARGIN < seconds["torch"] else "torch"


def _least_seconds(layer: Layer, dtype: torch.dtype) -> dict[tuple[Library, str], float]:
    """The least seconds of each of a layer's products by each library, in calls that take turns."""
    rows, inputs, outputs, backward = layer
    shapes = (rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)
    x, weight, bias, grad = (torch.full(shape, 0.5, dtype=dtype) for shape in shapes)
    operands = {"affine": (x, weight, bias)} | ({"times": (grad, weight), "outer": (grad, x)} if backward else {})
    least: dict[tuple[Library, str], float] = {}
    for _ in range(_ROUNDS):
        for product, library in itertools.product(operands, get_args(Library)):
            start = time.perf_counter()
            getattr(Products(library), product)(*operands[product])
            took = time.perf_counter() - start
            least[library, product] = min(took, least.get((library, product), math.inf))
    return least
