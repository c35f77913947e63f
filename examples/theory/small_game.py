"""A game small enough to watch, in plain torch: what the examples of this folder share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import pygan


def gaussian(x: Tensor, mean: float, std: float) -> Tensor:
    """Density of the normal distribution at x."""
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def network(inputs: int, outputs: int = 1, width: int = 32) -> nn.Sequential:
    """Two hidden layers with a smooth activation, as the densities are smooth."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


class Generator(nn.Module):
    """Uniform noise in (0, 1) to the line. At first the samples are normal, but for what a new network adds."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean, self.std, self.correction = mean, std, network(1)

    def forward(self, z: Tensor) -> Tensor:
        """Map noise [n, 1] to samples [n, 1]."""
        normal = torch.special.ndtri(z)
        return self.mean + self.std * normal + self.correction(normal)


def noise(n: int) -> Tensor:
    """Uniform noise, [n, 1], away from 0 and 1, where the normal quantile is infinite."""
    return 0.001 + 0.998 * torch.rand(n, 1)


def train_discriminator(
    discriminator: nn.Module,
    data: Callable[[int], Tensor],
    fake: Callable[[int], Tensor],
    steps: int,
    rate: float = 0.02,
) -> None:
    """Update D alone, on fresh samples of both distributions, at a rate that falls to 0.

    Args:
        discriminator: [n, dimensions] -> [n, 1], logits.
        data: n -> n samples of the data, [n, dimensions].
        fake: n -> n samples of the generator.
        steps: number of updates.
        rate: Adam's learning rate at the start.
    """
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = pygan.ops.discriminator_loss(discriminator(data(1024)), discriminator(fake(1024)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()


def play(generator: nn.Module, discriminator: nn.Module, data: Callable[[int], Tensor], updates: int) -> None:
    """Algorithm 1 with k = 1 and the non-saturating objective, at rates that fall to 0.

    Args:
        generator: noise [n, 1] -> [n, 1].
        discriminator: [n, 1] -> [n, 1], logits.
        data: n -> n samples of the data, [n, 1].
        updates: number of updates of each player.
    """
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.99))
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=0.001, betas=(0.5, 0.99))
    falling = [torch.optim.lr_scheduler.CosineAnnealingLR(o, updates) for o in (optimizer_d, optimizer_g)]
    for _ in range(updates):
        fake = generator(noise(512)).detach()
        loss = pygan.ops.discriminator_loss(discriminator(data(512)), discriminator(fake))
        optimizer_d.zero_grad()
        loss.backward()
        optimizer_d.step()
        loss = pygan.ops.generator_loss(discriminator(generator(noise(512))))
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()
        for schedule in falling:
            schedule.step()


@torch.no_grad()
def stage(title: str, generator: nn.Module, discriminator: nn.Module, x: Tensor, p_data: Tensor) -> pygan.figures.Stage:
    """The game at this moment; the generator's density is a Parzen estimate from its samples."""
    p_g = pygan.ParzenWindow(generator(noise(20_000))).log_density(x[:, None], sigma=0.1).exp()
    d = torch.sigmoid(discriminator(x[:, None])[:, 0])
    seen = p_data + p_g > 0.01 * (p_data + p_g).max()
    best = torch.where(seen, pygan.theory.optimal_discriminator(p_data, p_g), torch.nan)
    z = torch.linspace(0.03, 0.97, 17)
    return pygan.figures.Stage(title, x, p_data, p_g, d, z, generator(z[:, None])[:, 0], best)
