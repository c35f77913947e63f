"""One training step of the DCGAN, beside the usual one in plain torch.

The usual step is that of PyTorch's own DCGAN example, written again from the paper's description: its layers at 64
pixels with 64 maps next to the image, its binary cross-entropy on a sigmoid, one batch of samples for both players.
pygan has the same layers, but draws fresh samples for the generator's update (Algorithm 1 of 2014), which is one more
pass of the generator; "with fresh samples" is the usual step with that pass. All contenders run in turn, step by step,
on the same images (MNIST, resized).

    python benchmarks/dcgan.py
    python benchmarks/dcgan.py --side 28 --channels 32 --batch 128
"""

import argparse
from collections.abc import Callable
from itertools import cycle, pairwise

import torch
from harness import conditions, once, time_interleaved
from torch import Tensor, nn

import pygan.data
from pygan.batches import Batches
from pygan.data import as_float
from pygan.data.scaling import Signed
from pygan.fast import make_step
from pygan.game import make_game
from pygan.models.dcgan import DCGANDiscriminator, DCGANGenerator
from pygan.recipes import RECIPES

NOISE = 100


def example_players(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The example's players for gray images of 64 pixels."""
    maps = [8 * channels, 4 * channels, 2 * channels, channels]
    generator: list[nn.Module] = [nn.ConvTranspose2d(NOISE, maps[0], 4, 1, 0, bias=False)]
    for before, after in pairwise([*maps, 1]):
        generator += [nn.BatchNorm2d(before), nn.ReLU(True), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    maps = maps[::-1]
    discriminator: list[nn.Module] = [nn.Conv2d(1, maps[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for before, after in pairwise(maps):
        layer = nn.Conv2d(before, after, 4, 2, 1, bias=False)
        discriminator += [layer, nn.BatchNorm2d(after), nn.LeakyReLU(0.2, True)]
    last = nn.Conv2d(maps[-1], 1, 4, 1, 0, bias=False)
    return nn.Sequential(*generator, nn.Tanh()), nn.Sequential(*discriminator, last, nn.Sigmoid())


class Flat(nn.Module):
    """A generator of ours, from noise [n, noise_size, 1, 1], and a discriminator of ours, to a probability."""

    def __init__(self, player: nn.Module) -> None:
        super().__init__()
        self.player = player

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.player(x.flatten(1) if isinstance(self.player, DCGANGenerator) else x)
        return output if isinstance(self.player, DCGANGenerator) else output.sigmoid()


def usual_step(
    images: Tensor,
    generator: nn.Module,
    discriminator: nn.Module,
    batch: int,
    format: torch.memory_format,
    fresh: bool = False,
) -> Callable[[], None]:
    """The example's step: the discriminator on real images and on samples, the generator on the same or fresh ones."""
    generator, discriminator = generator.to(memory_format=format), discriminator.to(memory_format=format)
    adams = [torch.optim.Adam(p.parameters(), lr=2e-4, betas=(0.5, 0.999)) for p in (discriminator, generator)]
    batches = cycle([some.contiguous(memory_format=format) for some in images.split(batch) if len(some) == batch])
    loss, real, fake = nn.BCELoss(), torch.ones(batch), torch.zeros(batch)

    def step() -> None:
        discriminator.zero_grad()
        loss(discriminator(next(batches)).flatten(), real).backward()
        samples = generator(torch.randn(batch, NOISE, 1, 1))
        loss(discriminator(samples.detach()).flatten(), fake).backward()
        adams[0].step()
        generator.zero_grad()
        if fresh:
            samples = generator(torch.randn(batch, NOISE, 1, 1))
        loss(discriminator(samples).flatten(), real).backward()
        adams[1].step()

    return step


def pygan_step(splits: pygan.data.Splits, **settings) -> Callable[[], None]:
    recipe, device = RECIPES["dcgan"].with_settings(**settings), torch.device("cpu")
    game = make_game(recipe, splits, 0, {"generator": None, "discriminator": None}, device)
    step, batches = make_step(game, recipe, device), Batches(splits.train, recipe.batch_size, 0, device, game.scale)
    rates = recipe.rates(0, 1)

    def run() -> None:
        step(batches, rates)
        step.statistics()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="pixels (default 64, the only size of the example)")
    parser.add_argument("--channels", type=int, default=64, help="maps next to the image (default 64)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15, help="steps of each contender at least (default 15)")
    parser.add_argument("--quick", action="store_true", help="two steps each")
    args = parser.parse_args()
    rounds = 2 if args.quick else args.rounds

    splits = pygan.data.load("mnist", image_size=args.side)
    images = Signed().apply(as_float(splits.train.images[: 20 * args.batch]))
    ours = {"channels": args.channels, "batch_size": args.batch}
    shape, plain, last = (1, args.side, args.side), torch.contiguous_format, torch.channels_last
    steps: dict[str, Callable[[], None]] = {}
    if args.side == 64:
        for name, format in (("example", plain), ("example, channels last", last)):
            steps[name] = usual_step(images, *example_players(args.channels), args.batch, format)
    for name, format, fresh in (
        ("our nets in the usual step", plain, False),
        ("our nets in the usual step, channels last", last, False),
        ("our nets, with fresh samples", plain, True),
        ("our nets, with fresh samples, channels last", last, True),
    ):
        players = DCGANGenerator(shape, NOISE, args.channels), DCGANDiscriminator(shape, args.channels)
        steps[name] = usual_step(images, *map(Flat, players), args.batch, format, fresh)
    steps["pygan"] = pygan_step(splits, **ours)
    steps["pygan, bf16"] = pygan_step(splits, **ours, precision="bf16")

    for name, value in {**conditions(), **vars(args)}.items():
        print(f"{name}: {value}")
    times = time_interleaved({name: once(step) for name, step in steps.items()}, 0, rounds)
    base = next(iter(times.values()))["median"]
    print("\n| step | ms, median | 20 % | 80 % | of the first |\n|---|---|---|---|---|")
    for name, of in times.items():
        low, median, high = (of[key] / 1e3 for key in ("p20", "median", "p80"))
        print(f"| {name} | {median:.0f} | {low:.0f} | {high:.0f} | {of['median'] / base:.2f} |")


if __name__ == "__main__":
    main()
