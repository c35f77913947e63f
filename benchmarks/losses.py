"""Adversarial losses with their gradients: eager torch, the same under torch.compile, the usual BCE calls, pygan.

    python benchmarks/losses.py

One call of "both" is what a training step needs: the loss and its gradient by every logit. pygan computes the two in
one pass already in "forward"; its "backward" only scales the gradient.
"""

import argparse
from collections.abc import Callable

import torch
from harness import Case, Contender, backward_of, main, once
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pygan.ops import discriminator_loss, generator_loss, reference

Loss = Callable[..., Tensor]


def bce(real: Tensor, fake: Tensor) -> Tensor:
    """As tutorials write it."""
    of_real = binary_cross_entropy_with_logits(real, torch.ones_like(real))
    return of_real + binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))


def loss_case(title: str, ours: Loss, plain: dict[str, Loss], tensors: tuple[Tensor, ...]) -> Case:
    inputs = tuple(tensor.requires_grad_() for tensor in tensors)

    def contender(name: str, loss: Loss) -> Contender:
        def forward() -> Tensor:
            return loss(*inputs)

        def both() -> tuple[Tensor, ...]:
            return torch.autograd.grad(forward(), inputs)

        calls = {"forward": once(forward), "backward": backward_of(forward, inputs), "both": once(both)}
        return Contender(name, calls, lambda: [forward().detach(), *both()])

    def make() -> list[Contender]:
        torch._dynamo.reset()
        eager = [contender(name, loss) for name, loss in plain.items()]
        compiled = torch.compile(plain["eager"], fullgraph=True, dynamic=False)
        return [*eager, contender("compiled", compiled), contender("pygan", ours)]

    def exact() -> list[Tensor]:
        doubles = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
        loss = plain["eager"](*doubles)
        return [loss.detach(), *torch.autograd.grad(loss, doubles)]

    return Case(title, make, exact, tolerance=1e-5)


def cases(arguments: argparse.Namespace) -> list[Case]:
    found = []
    for size in (100, 1_000_000):
        real, fake = (4 * torch.randn(size, device=arguments.device) for _ in range(2))
        title = f"discriminator loss, {size:,} + {size:,} logits, float32"
        plain = {"eager": reference.discriminator_loss, "eager BCE": bce}
        found.append(loss_case(title, discriminator_loss, plain, (real, fake)))
        title = f"generator loss, {size:,} logits, float32"
        found.append(loss_case(title, generator_loss, {"eager": reference.generator_loss}, (fake.clone(),)))
    return found


if __name__ == "__main__":
    main(__doc__, cases)
