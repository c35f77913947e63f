"""The price of being a torch operator: ways of registering y = 2 x with its derivative, on ten numbers.

    python benchmarks/dispatch.py

The body is one call of torch in each case, so the differences are what registration and autograd cost in Python:

    eager               2 * x
    compiled            the same under torch.compile
    custom_op           torch.library.custom_op and register_autograd
    register_autograd   torch.library.define, impl and register_autograd
    Function            an autograd.Function with setup_context around define and impl
    pygan               pygan.ops._library: such a Function, straight to the body where only autograd looks on

The result decided docs/decisions/0002-registration.md.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from harness import Case, Contender, backward_of, main, once
from torch import Tensor

from pygan.ops import _library


def twice(x: Tensor) -> Tensor:
    return 2 * x


def backward(ctx: Any, grad: Tensor) -> Tensor:
    return twice(grad)


def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def custom_op() -> Callable[[Tensor], Tensor]:
    op = torch.library.custom_op("pygan_bench::custom", twice, mutates_args=(), schema="(Tensor x) -> Tensor")
    op.register_fake(torch.empty_like)
    op.register_autograd(backward, setup_context=setup_context)
    return op


def defined(name: str) -> Callable[[Tensor], Tensor]:
    library = torch.library.Library("pygan_bench", "FRAGMENT")
    library.define(f"{name}(Tensor x) -> Tensor")
    for key in ("CPU", "CUDA"):
        library.impl(name, twice, key)
    torch.library.register_fake(f"pygan_bench::{name}", torch.empty_like)
    LIBRARIES.append(library)
    return getattr(torch.ops.pygan_bench, name)


LIBRARIES: list[torch.library.Library] = []


def registered() -> Callable[[Tensor], Tensor]:
    op = defined("registered")
    torch.library.register_autograd("pygan_bench::registered", backward, setup_context=setup_context)
    return op


def outside(base: type[torch.autograd.Function], op: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    class Twice(base):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return op(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return twice(grad)

    Twice.setup_context = staticmethod(setup_context)
    return Twice.apply


def cases(arguments: argparse.Namespace) -> list[Case]:
    x = torch.randn(10, device=arguments.device, requires_grad=True)
    grad = torch.randn(10, device=arguments.device)

    def contender(name: str, function: Callable[[Tensor], Tensor]) -> Contender:
        def forward() -> Tensor:
            return function(x)

        def both() -> tuple[Tensor, ...]:
            return torch.autograd.grad(forward(), x, grad)

        calls = {"forward": once(forward), "backward": backward_of(forward, (x,), grad), "both": once(both)}
        return Contender(name, calls, lambda: [forward().detach(), *both()])

    def make() -> list[Contender]:
        ways = {
            "eager": twice,
            "compiled": torch.compile(twice, fullgraph=True),
            "custom_op": custom_op(),
            "register_autograd": registered(),
            "Function": outside(torch.autograd.Function, defined("function")),
            "pygan": outside(
                _library.Function, _library.define("twice_for_dispatch(Tensor x) -> Tensor", twice, torch.empty_like)
            ),
        }
        return [contender(name, way) for name, way in ways.items()]

    return [Case("y = 2 x, ten numbers, float32", make, lambda: [2 * x.detach().double(), 2 * grad.double()])]


if __name__ == "__main__":
    main(__doc__, cases)
