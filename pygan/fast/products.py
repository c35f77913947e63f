"""The three matrix products of a linear layer, on the CPU by the library that was measured to be the faster one.

torch's ordinary functions call MKL on x86. oneDNN, which torch carries too, took half of MKL's time on an AMD Zen 5,
as long on a Zen 4, and longer on an Intel Xeon. So a run measures both at its own sizes, and keeps the choice: the
libraries add in different orders, and a resumed run is to have the bits of one that was not interrupted.
"""

import math
import time
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear

from pygan.models.fully_connected import Activation
from pygan.ops._products import HAS_ONEDNN

__all__ = ["Layer", "Library", "Products", "faster_library"]

Library = Literal["torch", "onednn"]

_ROUNDS, _FEWEST = 8, 3
_ENOUGH = 0.5  # seconds, after which no further round begins
_MARGIN = 1.1  # by which oneDNN must be faster: a choice between equals would differ from process to process


class Layer(NamedTuple):
    """A linear layer, x [rows, inputs] -> [rows, outputs], and of how many rows its gradients are products too."""

    rows: int
    inputs: int
    outputs: int
    backward: int


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
    if not HAS_ONEDNN or not _onednn_takes(dtype):
        return "torch"
    return _measured(layers, dtype, torch.get_num_threads()) if asked == "auto" else asked


@cache
def _onednn_takes(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies such numbers on this CPU: bfloat16 ones only where it has AVX-512 or better."""
    one = torch.ones(1, 1, dtype=dtype)
    try:
        Products("onednn").affine(one, one, None)
    except RuntimeError:
        return False
    return True


@cache
def _measured(layers: tuple[Layer, ...], dtype: torch.dtype, threads: int) -> Library:
    seconds = _least_seconds(layers, dtype)
    return "onednn" if seconds["onednn"] * _MARGIN < seconds["torch"] else "torch"


def _least_seconds(layers: Sequence[Layer], dtype: torch.dtype) -> dict[Library, float]:
    """The least seconds in which each library computes the products of all layers.

    The libraries take turns, and each turn goes through all layers, so that operands come from the caches or from
    memory as they do in a step.
    """
    operands = [_operands(layer, dtype) for layer in layers]
    least: dict[Library, float] = dict.fromkeys(get_args(Library), math.inf)
    begin = time.perf_counter()
    for number in range(_ROUNDS):
        if number >= _FEWEST and time.perf_counter() - begin > _ENOUGH:
            break
        for library in least:
            start = time.perf_counter()
            _multiply_all(Products(library), layers, operands)
            least[library] = min(least[library], time.perf_counter() - start)
    return least


def _operands(layer: Layer, dtype: torch.dtype) -> list[Tensor]:
    """x, weight, bias and the gradient with respect to the output."""
    rows, inputs, outputs, backward = layer
    shapes = (rows, inputs), (outputs, inputs), (outputs,), (backward, outputs)
    return [torch.full(shape, 0.5, dtype=dtype) for shape in shapes]


def _multiply_all(products: Products, layers: Sequence[Layer], operands: Sequence[list[Tensor]]) -> None:
    for layer, (x, weight, bias, grad) in zip(layers, operands, strict=True):
        products.affine(x, weight, bias)
        if layer.backward:
            products.times(grad, weight)
            products.outer(grad, x[: layer.backward])
