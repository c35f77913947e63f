"""The training step in plain torch: the reference for the fast ones, and the one for users' own modules."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import grad

from pygan.ops import discriminator_loss, generator_loss
from pygan.optim import make_optimizer, trainable
from pygan.recipes import Rates, Recipe
from pygan.step.base import BaseStep, statistics_row

__all__ = ["PlainStep"]


class PlainStep(BaseStep):
    """A `pygan.step.Step` by autograd: Algorithm 1 of the paper, or the simultaneous update of its authors' code."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        recipe: Recipe,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        self._g_optimizer = make_optimizer(generator, recipe)
        self._d_optimizer = make_optimizer(discriminator, recipe)
        super().__init__(recipe, {"generator": self._g_optimizer, "discriminator": self._d_optimizer}, device)
        self.generator, self.discriminator, self._shape = generator, discriminator, tuple(shape)

    def _alternating(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """Algorithm 1: k steps of the discriminator, then one of the generator, each on fresh noise."""
        for _ in range(self.recipe.k):
            with torch.no_grad():
                fakes = self._samples()
            real_logits, fake_logits, penalty = self._judge_both(real(), fakes)
            # Half the sum of the two means, as in the authors' code: their learning rate goes with it.
            d_loss = discriminator_loss(real_logits, fake_logits) / 2
            d_gradients = _gradients(d_loss + penalty, self.discriminator)
            self._d_optimizer.step(d_gradients, rates.discriminator_lr, rates.momentum)
        g_loss = generator_loss(self._judge(self._blurred(self._samples())), self.recipe.objective)
        self._g_optimizer.step(_gradients(g_loss, self.generator), rates.generator_lr, rates.momentum)
        return statistics_row(d_loss, g_loss, real_logits, fake_logits)

    def _simultaneous(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """The released code: both gradients at the same parameters, from one batch of samples and one set of masks."""
        real_logits, fake_logits, penalty = self._judge_both(real(), self._samples())
        d_loss = discriminator_loss(real_logits, fake_logits) / 2
        g_loss = generator_loss(fake_logits, self.recipe.objective)
        d_gradients = _gradients(d_loss + penalty, self.discriminator, retain_graph=True)
        g_gradients = _gradients(g_loss, self.generator)
        self._d_optimizer.step(d_gradients, rates.discriminator_lr, rates.momentum)
        self._g_optimizer.step(g_gradients, rates.generator_lr, rates.momentum)
        return statistics_row(d_loss, g_loss, real_logits, fake_logits)

    def _samples(self) -> Tensor:
        noise = self._noise()
        with self._precision():
            return self.generator(noise).reshape(-1, *self._shape)

    def _judge(self, images: Tensor) -> Tensor:
        """Logits, in float32 at least: bfloat16 is for the products, not for the losses and what follows from them."""
        with self._precision():
            logits = self.discriminator(images).flatten()
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _judge_both(self, real: Tensor, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """The logits of both, and the penalty on the discriminator's gradient at the data."""
        real, fakes = self._blurred(real), self._blurred(fakes)
        if self.recipe.gradient_penalty > 0:
            real = real.detach().requires_grad_()
        if getattr(self.discriminator, "independent_examples", False):
            logits = self._judge(torch.cat([real, fakes]))
            real_logits, fake_logits = logits[: len(real)], logits[len(real) :]
        else:  # Batch norm, say, must not mix the two.
            real_logits, fake_logits = self._judge(real), self._judge(fakes)
        if self.recipe.gradient_penalty == 0:
            return real_logits, fake_logits, 0.0
        (slopes,) = grad(real_logits.sum(), real, create_graph=True)
        penalty = self.recipe.gradient_penalty / 4 * slopes.square().sum() / len(real)  # half, as the loss
        return real_logits, fake_logits, penalty

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")


def _gradients(loss: Tensor, player: nn.Module, retain_graph: bool = False) -> Sequence[Tensor]:
    return grad(loss, list(trainable(player).values()), retain_graph=retain_graph, materialize_grads=True)
