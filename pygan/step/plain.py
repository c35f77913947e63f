"""The training step in plain torch: the reference for the fast ones, and the one for users' own modules."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import grad

from pygan.models import sample_noise
from pygan.ops import discriminator_loss, generator_loss
from pygan.optim import make_optimizer, trainable, with_prefix
from pygan.recipes import Rates, Recipe

__all__ = ["PlainStep", "statistics_row"]


class PlainStep:
    """A `pygan.step.Step` by autograd: Algorithm 1 of the paper, or the simultaneous update of its authors' code."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        recipe: Recipe,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        self.generator, self.discriminator, self.recipe = generator, discriminator, recipe
        self._shape, self._device = tuple(shape), device
        self._g_optimizer = make_optimizer(generator, recipe)
        self._d_optimizer = make_optimizer(discriminator, recipe)
        self._rows: list[Tensor] = []

    def __call__(self, real: Callable[[], Tensor], rates: Rates) -> None:
        """One iteration; see `pygan.step.Step`."""
        self._rows.append(self.iterate(real, rates))

    def iterate(self, real: Callable[[], Tensor], rates: Rates) -> Tensor:
        """One iteration -> its row of statistics, on the device; a CUDA graph may capture it."""
        update = self._simultaneous if self.recipe.updates == "simultaneous" else self._alternating
        return update(real, rates)

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
        noise = sample_noise(self.recipe.batch_size, self.recipe.noise_size, self.recipe.noise, device=self._device)
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

    def _blurred(self, images: Tensor) -> Tensor:
        if self.recipe.instance_noise == 0:
            return images
        return images + self.recipe.instance_noise * torch.randn_like(images)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def statistics(self) -> Tensor:
        """See `pygan.step.Step`."""
        rows, self._rows = self._rows, []
        return torch.stack(rows).cpu() if rows else torch.empty(0, 4, dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        """See `pygan.step.Step`."""
        players = {"generator": self._g_optimizer, "discriminator": self._d_optimizer}
        return {
            f"{player}.{name}": t for player, optimizer in players.items() for name, t in optimizer.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `pygan.step.Step`."""
        self._g_optimizer.load_state_dict(with_prefix(state, "generator."))
        self._d_optimizer.load_state_dict(with_prefix(state, "discriminator."))


def _gradients(loss: Tensor, player: nn.Module, retain_graph: bool = False) -> Sequence[Tensor]:
    return grad(loss, list(trainable(player).values()), retain_graph=retain_graph, materialize_grads=True)


@torch.no_grad()
def statistics_row(d_loss: Tensor, g_loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """One row of `Step.statistics`."""
    return torch.stack([d_loss, g_loss, real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]).double()
