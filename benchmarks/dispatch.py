"""The price of being a torch operator: ways of registering y = 2 x with its derivative, on ten numbers.

    python benchmarks/dispatch.py

The body is one call of torch in each case, so the differences are what registration and autograd cost in Python:

    eager               2 * x
    compiled            the same under torch.compile
    custom_op           torch.library.custom_op and register_autograd
    register_autograd   torch.library.define, impl and register_autograd
    Function            an autograd.Function with setup_context around define and impl
    pygan               pygan.ops._library: such a Function, straight to the body where only autograd looks on

The result decided docs/decisions/0002-registration.md. Then the operators themselves, beside the reference, at batch
100 and with so few units that the price of a call is all there is:

    pygan               the function of pygan.ops, or of torch.ops.pygan where the title says "bare"
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from harness import Case, Contender, backward_of, main, once
from torch import Tensor

from pygan import ops
from pygan.ops import _library, reference


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
                _library.Function,
                _library.define("twice_for_dispatch(Tensor x) -> Tensor", lambda x: None, twice, torch.empty_like),
            ),
        }
        return [contender(name, way) for name, way in ways.items()]

    exact = [2 * x.detach().double(), 2 * grad.double()]
    return [Case("y = 2 x, ten numbers, float32", make, lambda: exact), *operators(arguments.device)]


def operators(device: str) -> list[Case]:
    """Each operator by its function, and bare, as the training step calls it."""
    x, weight, grad, logits = (torch.randn(s, device=device) for s in ((100, 8), (4, 2, 8), (100, 4), (100,)))
    index, seed = torch.zeros(100, 4, dtype=torch.uint8, device=device), torch.tensor(3, device=device)
    won = torch.nn.functional.one_hot(index.long(), 2).float()
    bare = torch.ops.pygan
    return [
        call("maxout_pool", lambda x: ops.maxout_pool(x, 2), lambda x: reference.maxout_pool(x, 2), x),
        call("dropout", lambda x: ops.dropout(x, 0.5, seed), lambda x: reference.dropout(x, 0.5, seed), x),
        call("generator_loss", ops.generator_loss, reference.generator_loss, logits),
        call("discriminator_loss", ops.discriminator_loss, reference.discriminator_loss, logits, logits),
        call("maxout", ops.maxout, reference.maxout, x, weight),
        call("bare maxout_pool", lambda x: bare.maxout_pool(x, 2)[0], lambda x: reference.maxout_pool(x, 2), x),
        call("bare dropout", lambda x: bare.dropout(x, seed, 0.5), lambda x: reference.dropout(x, 0.5, seed), x),
        call(
            "bare generator_loss",
            lambda x: bare.generator_loss(x, False, True)[0],
            reference.generator_loss,
            logits,
        ),
        call(
            "bare maxout_grad_input",
            lambda g, w: bare.maxout_grad_input(g, w, index),
            lambda g, w: torch.einsum("bu,bup,upi->bi", g, won.to(g), w),
            grad,
            weight,
        ),
        call(
            "bare maxout_grad_weight",
            lambda g, x: bare.maxout_grad_weight(g, x, index, 2)[0],
            lambda g, x: torch.einsum("bu,bup,bi->upi", g, won.to(g), x),
            grad,
            x,
        ),
    ]


def call(name: str, ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> Case:
    def contender(who: str, function: Callable[..., Tensor]) -> Contender:
        return Contender(who, {"call": once(lambda: function(*inputs))}, lambda: [function(*inputs)])

    return Case(
        f"{name}, batch 100, float32",
        lambda: [contender("reference", theirs), contender("pygan", ours)],
        lambda: [theirs(*(tensor.double() for tensor in inputs))],
    )


if __name__ == "__main__":
    main(__doc__, cases)
