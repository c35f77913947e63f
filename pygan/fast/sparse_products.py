"""The matrix products of a layer whose inputs are mostly zeros, on the CPU, by visiting only what is not zero.

A generator's ReLU layers fall silent as it learns: in the last hidden layer of MNIST's generator a sixth of the outputs
is not zero after twelve epochs of `code2014`, and 5 to 10 % later. Where an output is zero, so is the gradient with
respect to what the ReLU made it of: these products leave the zeros of either out. A zero adds nothing, even where it
meets an infinity.
"""

import torch
from torch import Tensor

from pygan import _core
from pygan.models.fully_connected import Activation
from pygan.ops._library import address, dtype_code

__all__ = ["SparseProducts", "is_sparse"]

# The share of numbers that are not zero below which these functions are faster than dense products, measured on an
# AMD Zen 4 with benchmarks/sparse_products.py.
_SPARSE = {torch.float32: 0.4, torch.bfloat16: 0.15}
_FEWEST = 2**14  # numbers; below, a look at them costs more than it can spare


def is_sparse(x: Tensor) -> bool:
    """Whether so few of the numbers are not zero that the functions of this module pay."""
    if x.device.type != "cpu" or x.numel() < _FEWEST or x.dtype not in _SPARSE:
        return False
    x = x.contiguous()
    live = _core.count_live(address(x), x.numel(), dtype_code(x), torch.get_num_threads())
    return live < _SPARSE[x.dtype] * x.numel()


class SparseProducts:
    """As `pygan.fast.products.Products`, for a first operand that is mostly zeros.

    All tensors are ordinary ones on the CPU, of one dtype that the core knows, and of the shapes that are stated:
    nothing is checked here.
    """

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
        """activation(x weight^T + bias): x [n, in], weight [out, in], bias [out] -> [n, out], fresh."""
        y = _times(x, weight.t(), bias)
        return y if activation == "none" else getattr(y, f"{activation}_")()

    def times(self, grad: Tensor, weight: Tensor) -> Tensor:
        """grad weight, the gradient with respect to a layer's input: grad [n, out], weight [out, in] -> [n, in]."""
        return _times(grad, weight, None)

    def outer(self, grad: Tensor, x: Tensor) -> Tensor:
        """grad^T x, the gradient with respect to a layer's weight: grad [n, out], x [n, in] -> [out, in]."""
        grad, x = grad.contiguous(), x.contiguous()
        out = grad.new_empty(grad.shape[1], x.shape[1])
        _core.sparse_outer(
            address(grad),
            len(grad),
            grad.shape[1],
            address(x),
            x.shape[1],
            address(out),
            dtype_code(out),
            torch.get_num_threads(),
        )
        return out


def _times(values: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Values matrix + bias, of any strides of the matrix."""
    values, bias = values.contiguous(), None if bias is None else bias.contiguous()
    out = values.new_empty(len(values), matrix.shape[1])
    _core.sparse_times(
        address(values),
        len(values),
        values.shape[1],
        address(matrix),
        matrix.stride(0),
        matrix.stride(1),
        address(bias),
        matrix.shape[1],
        address(out),
        dtype_code(out),
        torch.get_num_threads(),
    )
    return out
