"""Maxout layers: eager torch (linear, view, max), the same under torch.compile, pygan, and the matrix products alone.

    python benchmarks/maxout.py                      # the paper's shapes and large ones: forward, backward, both
    python benchmarks/maxout.py --only "784 -> 240"
    python benchmarks/maxout.py --routes             # the gradients alone: winning rows (pygan) against dense products

Backward gives the gradients of x, weight and bias. "products" are the dense matrix products of the layer and nothing
else; a backward pass that visits only the winning pieces may be faster than that. On CUDA, --routes times replays of a
CUDA graph, because that is how the training step calls them: without it, the time of a launch from Python would decide.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from unittest import mock

import torch
from harness import Case, Contender, backward_of, main, once
from torch import Tensor

from pygan.fast.graph import capture
from pygan.ops import maxout, reference

OPS = torch.ops.pygan
PAPER = [(200, 784, 240, 5), (100, 784, 240, 5), (200, 240, 240, 5), (100, 240, 240, 5)]
LARGE = [(100, 3072, 1600, 5), (1024, 1600, 1600, 5), (1024, 3072, 1600, 5)]
ROUTES = [(100, 784, 240, pieces) for pieces in (2, 3, 5, 10, 32)] + [(b, 784, 240, 5) for b in (1, 8, 16, 1024)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Layer:
    """x, weight and bias, the gradient `grad` that comes from above, and what the layer makes of them in float64."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: str) -> None:
        batch, size, units, pieces = shape
        self.dtype, self.pieces = dtype, pieces
        self.title = f"maxout {size} -> {units}x{pieces}, batch {batch}, {str(dtype).removeprefix('torch.')}"
        tensors = (
            torch.randn(batch, size),
            torch.randn(units, pieces, size) / math.sqrt(size),
            torch.randn(units, pieces),
        )
        self.x, self.weight, self.bias = (tensor.to(device, dtype) for tensor in tensors)
        self.inputs = tuple(tensor.clone().requires_grad_() for tensor in (self.x, self.weight, self.bias))
        self.grad = torch.randn(batch, units).to(device, dtype)
        self.rows, self.index = self.weight.flatten(0, 1), OPS.maxout(self.x, self.weight, self.bias)[1]
        # Where two pieces nearly tie, rounding decides, which is any contender's own: no gradient comes from there.
        first, second = self.pre_activations(self.inputs).detach().topk(2, dim=2).values.unbind(2)
        self.grad[first - second < TOLERANCE[dtype] * first.abs().max()] = 0
        self.spread = OPS.maxout_spread(self.grad, self.index, pieces)

    @staticmethod
    def pre_activations(inputs: Sequence[Tensor]) -> Tensor:
        """The value of each piece [batch, units, pieces], in float64."""
        x, weight, bias = (tensor.double() for tensor in inputs)
        return torch.nn.functional.linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(1, bias.shape)

    def exact(self) -> list[Tensor]:
        """Output and gradients, with the winners of the layer's own dtype: near ties depend on rounding."""
        x, weight, bias = (tensor.double().requires_grad_() for tensor in (self.x, self.weight, self.bias))
        y = self.pre_activations((x, weight, bias)).gather(2, self.index.long().unsqueeze(2)).squeeze(2)
        return [y.detach(), *torch.autograd.grad(y, (x, weight, bias), self.grad.double())]


def layer_case(shape: Sequence[int], dtype: torch.dtype, device: str) -> Case:
    layer = Layer(shape, dtype, device)

    def contender(name: str, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Contender:
        def forward() -> Tensor:
            return function(*layer.inputs)

        def both() -> tuple[Tensor, ...]:
            return torch.autograd.grad(forward(), layer.inputs, layer.grad)

        backward = backward_of(forward, layer.inputs, layer.grad)
        calls = {"forward": once(forward), "backward": backward, "both": once(both)}
        return Contender(name, calls, lambda: [forward().detach(), *both()])

    def forward_product() -> object:
        return layer.x @ layer.rows.t()

    def backward_products() -> object:
        return layer.spread @ layer.rows, layer.spread.t() @ layer.x

    def make() -> list[Contender]:
        torch._dynamo.reset()
        floors = {
            "forward": once(forward_product),
            "backward": once(backward_products),
            "both": once(lambda: (forward_product(), backward_products())),
        }
        return [
            contender("eager", reference.maxout),
            contender("compiled", torch.compile(reference.maxout, fullgraph=True, dynamic=False)),
            contender("pygan", maxout),
            Contender("products", floors),
        ]

    return Case(layer.title, make, layer.exact, TOLERANCE[dtype])


def replayed(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    return capture(call, torch.device("cuda"))


def route_case(shape: Sequence[int], dtype: torch.dtype, device: str) -> Case:
    layer = Layer(shape, dtype, device)

    def contender(name: str, winners_only: bool) -> Contender:
        def on_route(function: Callable[[], object]) -> Callable[[], object]:
            def run() -> object:
                with mock.patch.object(sys.modules["pygan.ops.maxout"], "_winners_only", return_value=winners_only):
                    return function()

            return run

        by_input = on_route(lambda: OPS.maxout_grad_input(layer.grad, layer.weight, layer.index))
        by_weight = on_route(lambda: OPS.maxout_grad_weight(layer.grad, layer.x, layer.index, layer.pieces))
        timed = [replayed(call) if device == "cuda" else call for call in (by_input, by_weight)]
        calls = {"input": once(timed[0]), "weight and bias": once(timed[1])}
        return Contender(name, calls, lambda: [by_input(), *by_weight()])

    def make() -> list[Contender]:
        return [contender("dense", False), contender("pygan", True)]

    return Case(f"gradients of {layer.title}", make, lambda: layer.exact()[1:], TOLERANCE[dtype])


def cases(arguments: argparse.Namespace) -> list[Case]:
    if arguments.routes:
        return [route_case(shape, dtype, arguments.device) for dtype in TOLERANCE for shape in ROUTES]
    shapes = [(shape, torch.float32) for shape in PAPER + LARGE] + [(PAPER[0], torch.bfloat16)]
    return [layer_case(shape, dtype, arguments.device) for shape, dtype in shapes]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--routes", action="store_true", help="compare the two ways of computing the gradients")


if __name__ == "__main__":
    main(__doc__, cases, options=options)
