"""Products of activations that are mostly zeros: dense, by torch and by oneDNN, and pygan's, which leave the zeros out.

    python benchmarks/sparse_products.py                  # layers of MNIST's generator, by the share that is not zero
    python benchmarks/sparse_products.py --only float32

The products are those of `pygan.fast.sparse_products`: the layer behind such an activation, forward; the gradients with
respect to input and weight of the layer that made it. Where pygan's become slower than the better of the others is the
limit below which the training step uses them. Operands are found in the cache as the caller before has left them; in a
step, where the weights come from memory, the limit lies higher.
"""

import argparse
import math

import torch
from harness import Case, Contender, main, once
from torch import Tensor

from pygan.fast.products import Products
from pygan.fast.sparse_products import SparseProducts

BATCH, LAYER, OUTPUTS = 100, 1200, 784
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def case(share: float, dtype: torch.dtype) -> Case:
    x = (torch.randn(BATCH, LAYER) * (torch.rand(BATCH, LAYER) < share)).to(dtype)
    grad = (torch.randn(BATCH, LAYER) * (x != 0)).to(dtype)
    before = torch.randn(BATCH, LAYER).relu().to(dtype)
    behind = (torch.randn(OUTPUTS, LAYER) / math.sqrt(LAYER)).to(dtype)
    weight, bias = (torch.randn(LAYER, LAYER) / math.sqrt(LAYER)).to(dtype), torch.randn(OUTPUTS).to(dtype)

    def contender(name: str, by: Products | SparseProducts) -> Contender:
        products = {
            "forward": lambda: by.affine(x, behind, bias),
            "input gradient": lambda: by.times(grad, weight),
            "weight gradient": lambda: by.outer(grad, before),
        }
        calls = {mode: once(product) for mode, product in products.items()}
        return Contender(name, calls, lambda: [product() for product in products.values()])

    def make() -> list[Contender]:
        return [
            contender("torch", Products("torch")),
            contender("oneDNN", Products("onednn")),
            contender("pygan", SparseProducts()),
        ]

    def exact() -> list[Tensor]:
        forward = torch.nn.functional.linear(x.double(), behind.double(), bias.double())
        return [forward, grad.double() @ weight.double(), grad.double().t() @ before.double()]

    title = f"{share:.0%} not zero, {str(dtype).removeprefix('torch.')}"
    return Case(title, make, exact, TOLERANCE[dtype])


def cases(arguments: argparse.Namespace) -> list[Case]:
    if arguments.device != "cpu":
        raise SystemExit("sparse_products: these products are for the CPU; add --device cpu")
    return [case(share, dtype) for dtype in TOLERANCE for share in SHARES]


if __name__ == "__main__":
    main(__doc__, cases)
