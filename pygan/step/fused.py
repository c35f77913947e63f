"""The training step for the paper's own players: the numbers of `plain.py`, to rounding, in far less time.

The backward passes are written out, to use what autograd cannot know: the derivative of a logit by everything in D is
needed only once, whoever asks for it. The discriminator's backward pass starts from d logit = 1 for each example. A
weight's gradient is a sum over examples, so there each row is scaled by the derivative of D's loss by its logit; at D's
input each row is scaled by that of G's loss. One pass thus serves both players of a simultaneous update, and no number
is ever divided by another. It holds because D treats examples separately and both players see the same masks.

The rest is plain: real and generated images in one pass, the fastest products, maxout gradients through the winning
pieces only, dropout masks drawn again instead of stored, one call for all updates of a player. What each of these is
worth is in docs/training_step.md.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pygan._build import build_info
from pygan.models import Discriminator, Generator
from pygan.nn import Maxout
from pygan.ops.dropout import draw_seed, drop_into
from pygan.optim import Momentum, make_optimizer
from pygan.recipes import Rates, Recipe
from pygan.step.base import BaseStep, statistics_row
from pygan.step.products import affine, outer, times

__all__ = ["FusedStep", "can_fuse"]


_KNOWN_PARTS = (Generator, Discriminator, Maxout, nn.Linear, nn.ModuleList)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_fuse(generator: Generator, discriminator: Discriminator, device: torch.device) -> bool:
    """Whether both players are exactly the paper's, no part hooked, frozen or replaced, and kernels are there."""
    parts = [*generator.modules(), *discriminator.modules()]
    parameters = [*generator.parameters(), *discriminator.parameters()]
    layers = [*generator.hidden, generator.output, *discriminator.hidden, discriminator.output]
    return (
        (device.type == "cpu" or (device.type == "cuda" and build_info()["cuda"] is not None))
        and all(type(part) in _KNOWN_PARTS for part in parts)
        and [id(p) for p in parameters] == [id(p) for layer in layers for p in (layer.weight, layer.bias)]
        and not any(getattr(part, hooks) for part in parts for hooks in _HOOKS)
        and not any(p._backward_hooks for p in parameters)
        and all(p.requires_grad and p.dtype == torch.float32 and p.is_contiguous() for p in parameters)
    )


class FusedStep(BaseStep):
    """A `pygan.step.Step` for players that `can_fuse` accepts; its order of random draws is that of `PlainStep`."""

    def __init__(
        self, generator: Generator, discriminator: Discriminator, recipe: Recipe, device: torch.device
    ) -> None:
        self._generator = _GeneratorPasses(generator, recipe)
        self._discriminator = _DiscriminatorPasses(discriminator, recipe)
        optimizers = {"generator": self._generator.optimizer, "discriminator": self._discriminator.optimizer}
        super().__init__(recipe, optimizers, device)

    @torch.no_grad()
    def iterate(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """One iteration -> its row of statistics, on the device; a CUDA graph may capture it."""
        return super().iterate(real, rates)

    def _alternating(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        judge, paint = self._discriminator, self._generator
        for _ in range(self.recipe.k):
            fakes = paint.forward(self._noise())
            logits = judge.forward(self._blurred(real().flatten(1)), self._blurred(fakes))
            d_loss, d_by_logit = _discriminator_loss(logits)
            judge.update(self._discriminator_gradients(d_by_logit), rates.discriminator_lr, rates.momentum)
        g_logits = judge.forward(self._blurred(paint.forward(self._noise())))
        g_loss, g_by_logit = self._generator_loss(g_logits)
        judge.backward()
        paint.update(paint.backward(judge.input_gradient(0, g_by_logit)), rates.generator_lr, rates.momentum)
        return statistics_row(d_loss, g_loss, *logits.chunk(2))

    def _simultaneous(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """Both gradients at the same parameters, from one backward pass through D."""
        judge, paint = self._discriminator, self._generator
        images, fakes = real().flatten(1), paint.forward(self._noise())
        logits = judge.forward(self._blurred(images), self._blurred(fakes))
        real_logits, fake_logits = logits.chunk(2)
        d_loss, d_by_logit = _discriminator_loss(logits)
        g_loss, g_by_logit = self._generator_loss(fake_logits)
        d_gradients = self._discriminator_gradients(d_by_logit)
        g_gradients = paint.backward(judge.input_gradient(len(real_logits), g_by_logit))
        judge.update(d_gradients, rates.discriminator_lr, rates.momentum)
        paint.update(g_gradients, rates.generator_lr, rates.momentum)
        return statistics_row(d_loss, g_loss, real_logits, fake_logits)

    def _discriminator_gradients(self, by_logit: Tensor) -> list[Tensor]:
        gradients = self._discriminator.backward(by_logit)
        if self.recipe.gradient_penalty > 0:
            self._discriminator.penalise(gradients, len(by_logit) // 2, self.recipe.gradient_penalty / 4)
        return gradients

    def _generator_loss(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its derivative by each logit."""
        return torch.ops.pygan.generator_loss(logits, self.recipe.objective == "saturating", True)


def _discriminator_loss(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The authors' loss, half the sum of the two means, and its derivative by each logit; the first half is real."""
    loss, *by_logit = torch.ops.pygan.discriminator_loss(*logits.chunk(2), True)
    return loss / 2, torch.cat(by_logit) / 2


class _Passes:
    """A player's layers as (weight, bias) in the precision of the products, and its optimiser."""

    def __init__(self, player: nn.Module, recipe: Recipe) -> None:
        self.optimizer = make_optimizer(player, recipe)
        self.parameters: list[Tensor] = list(self.optimizer.parameters.values())
        self.operands = self.parameters
        if recipe.precision == "bf16":
            self.operands = [torch.empty_like(p, dtype=torch.bfloat16) for p in self.parameters]
            if isinstance(self.optimizer, Momentum):
                self.optimizer.copies = self.operands
        self._versions: list[int] = []

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Input to output; copies that somebody's change of the parameters has left behind are made anew."""
        versions = [p._version for p in self.parameters]
        if self.operands is not self.parameters and versions != self._versions:
            torch._foreach_copy_(self.operands, self.parameters)
            self._versions = versions
        return list(zip(self.operands[::2], self.operands[1::2], strict=True))

    def update(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        """One step of the optimiser."""
        self.optimizer.step(gradients, lr, momentum)
        if isinstance(self.optimizer, Momentum):
            self._versions = [p._version for p in self.parameters]  # It has kept the copies up to date.


class _GeneratorPasses(_Passes):
    """Forward and backward through ReLU layers and a sigmoid layer."""

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, noise_size] -> images [n, pixels]."""
        *hidden, output = self.layers()
        self.inputs = [noise.to(output[0].dtype)]
        for weight, bias in hidden:
            self.inputs.append(affine(self.inputs[-1], weight, bias, "relu"))
        self.images = affine(self.inputs[-1], *output, "sigmoid")
        return self.images

    def backward(self, grad: Tensor) -> list[Tensor]:
        """Gradient by the images of the last `forward` -> gradients by the parameters, in their order."""
        grad = torch.ops.aten.sigmoid_backward(grad, self.images)
        gradients: list[Tensor] = []
        for depth, (weight, _) in reversed(list(enumerate(self.layers()))):
            x = self.inputs[depth]
            gradients[:0] = [outer(grad, x), grad.sum(0)]
            if depth > 0:
                grad = torch.ops.aten.threshold_backward(times(grad, weight), x, 0)
        return gradients


class _Mask(NamedTuple):
    """One draw of dropout; seed None where nothing is dropped."""

    keep: float
    seed: Tensor | None

    def drop(self, x: Tensor, out: Tensor, first_row: int = 0) -> None:
        """out <- dropout of x [n, width], as rows first_row, first_row + 1, ... of the mask; out may be x."""
        if self.seed is not None:
            drop_into(out, x, self.keep, self.seed, first_row * x.shape[1])
        elif out is not x:
            out.copy_(x)


class _DiscriminatorPasses(_Passes):
    """Forward and backward through dropout, maxout layers, dropout and the logit."""

    def __init__(self, discriminator: Discriminator, recipe: Recipe) -> None:
        super().__init__(discriminator, recipe)
        self.dropouts = [part.dropout for part in discriminator.modules() if isinstance(part, Maxout)]
        self.dropouts.append(discriminator.dropout)

    def forward(self, *parts: Tensor) -> Tensor:
        """Images [n, pixels], in one or more parts, one after the other -> float32 logits [sum of n]."""
        *hidden, output = self.layers()
        self.masks = [self._draw(0)]
        x = parts[0].new_empty(sum(map(len, parts)), parts[0].shape[1], dtype=output[0].dtype)
        first = 0
        for part in parts:
            self.masks[0].drop(part.to(x.dtype).contiguous(), x[first : first + len(part)], first)
            first += len(part)
        self.inputs, self.winners = [x], []
        for depth, (weight, bias) in enumerate(hidden, start=1):
            products = affine(x, weight.flatten(0, 1), bias.flatten())
            x, winner = torch.ops.pygan.maxout_pool(products, weight.shape[1])
            self.masks.append(self._draw(depth))
            self.masks[depth].drop(x, x)
            self.inputs.append(x)
            self.winners.append(winner)
        return linear(x, *output).flatten().float()

    def backward(self, by_logit: Tensor | None = None) -> list[Tensor]:
        """Carry d logit = 1 back to the first layer's units, for `input_gradient`.

        With the derivative of D's loss by the logits of the last `forward`, return its gradients by the parameters.
        """
        *hidden, (weight, _) = self.layers()
        gradients: list[Tensor] = []
        scale = None if by_logit is None else by_logit.to(weight.dtype)
        if scale is not None:
            gradients = [(scale @ self.inputs[-1]).unsqueeze(0), scale.sum(0, keepdim=True)]
        grad = weight.repeat(len(self.inputs[-1]), 1)
        self.units: list[Tensor] = []  # the derivative of each logit by the units of each layer
        for depth, (weight, _) in reversed(list(enumerate(hidden))):
            self.masks[depth + 1].drop(grad, grad)
            self.units.insert(0, grad)
            if scale is not None:
                scaled, winner = grad * scale.unsqueeze(1), self.winners[depth]
                gradients[:0] = torch.ops.pygan.maxout_grad_weight(scaled, self.inputs[depth], winner, weight.shape[1])
            if depth > 0:
                grad = torch.ops.pygan.maxout_grad_input(grad, weight, self.winners[depth])
        return gradients

    def input_gradient(self, first: int, by_logit: Tensor) -> Tensor:
        """Gradient by the images from row `first` on of a loss whose derivative by their logits is `by_logit`."""
        units = self.units[0][first : first + len(by_logit)]
        winners = self.winners[0][first : first + len(by_logit)]
        scaled = units * by_logit.to(units.dtype).unsqueeze(1)
        grad = torch.ops.pygan.maxout_grad_input(scaled, self.layers()[0][0], winners)
        self.masks[0].drop(grad, grad, first)
        return grad

    def penalise(self, gradients: list[Tensor], n: int, weight: float) -> None:
        """Add the gradients of weight / n times the sum, over the first n images, of |d logit / d image|^2.

        The slope d logit / d image is linear in each layer's weight, so the penalty's gradient by a weight is that of
        an ordinary layer whose input is the slope's image under the layers before it, the winning pieces held.
        """
        *hidden, _ = self.layers()
        slope = self.input_gradient(0, self.units[0].new_ones(n))
        tangent = slope * (2 * weight / n)
        self.masks[0].drop(tangent, tangent)
        for depth, (matrix, _) in enumerate(hidden):
            units, pieces, _ = matrix.shape
            winners = self.winners[depth][:n]
            by_weight, _ = torch.ops.pygan.maxout_grad_weight(self.units[depth][:n], tangent, winners, pieces)
            gradients[2 * depth] += by_weight
            products = affine(tangent, matrix.flatten(0, 1), None).view(n, units, pieces)
            tangent = products.gather(2, winners.long().unsqueeze(2)).squeeze(2)
            self.masks[depth + 1].drop(tangent, tangent)
        gradients[-2] += tangent.sum(0)

    def _draw(self, depth: int) -> _Mask:
        rate = self.dropouts[depth]
        return _Mask(1 - rate, draw_seed(self.operands[0].device) if rate > 0 else None)
