"""One training step of the convolutional game of 2014 (CIFAR-10), beside eager torch.

The eager step has the same players from torch's own parts: `conv2d`, the maximum over pieces by `amax`, `max_pool2d`,
dropout by masks, a linear layer of units * pieces in place of the fused maxout, binary cross-entropy on logits, and
`torch.optim.SGD` for each player. It updates both players from one batch, as the authors' code did, with real and
generated images in one pass of D for D's loss and generated ones in another for G's. Both steps run in turn on the
same random images. Before anything is timed, the two discriminators are compared on the same weights.

    python benchmarks/convolution_step.py
    python benchmarks/convolution_step.py --units 800 --maps 8      a smaller generator: mostly the convolutions
"""

import argparse
from collections.abc import Callable

import torch
from harness import conditions, once, time_interleaved
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, dropout, linear, max_pool2d

from pygan.batches import Batches
from pygan.data import Batch, Splits, as_float, make_scale
from pygan.fast import make_step
from pygan.game import make_game
from pygan.models.maxout_convolutional import ConvolutionalDiscriminator
from pygan.recipes import RECIPES

SHAPE = (3, 32, 32)


class EagerDiscriminator(nn.Module):
    """The discriminator's formula in torch's own parts, on the weights of ours."""

    def __init__(self, ours: ConvolutionalDiscriminator) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.ours.convolutions:
            x = dropout(x, layer.dropout, self.training)
            x = conv2d(x, layer.weight, layer.bias, padding=layer.window.padding)
            x = max_pool2d(x.unflatten(1, (-1, layer.pieces)).amax(2), layer.window.pool, 2, ceil_mode=True)
        hidden = self.ours.hidden
        x = dropout(x.flatten(1), self.ours.dropout, self.training)
        x = linear(x, hidden.weight.flatten(0, 1), hidden.bias.flatten()).unflatten(1, hidden.bias.shape).amax(2)
        return self.ours.output(dropout(x, self.ours.dropout, self.training)).squeeze(1)


def eager_step(images: Tensor, generator: nn.Module, discriminator: nn.Module) -> Callable[[], None]:
    players = (discriminator, generator)
    optimizers = [torch.optim.SGD(player.parameters(), lr=0.004, momentum=0.5) for player in players]
    n = len(images)
    targets = torch.cat([torch.ones(n), torch.zeros(n)])

    def step() -> None:
        fakes = generator(torch.randn(n, 100))
        d_loss = binary_cross_entropy_with_logits(discriminator(torch.cat([images, fakes.detach()])), targets)
        g_loss = binary_cross_entropy_with_logits(discriminator(fakes), torch.ones(n))
        d_gradients = torch.autograd.grad(d_loss, list(discriminator.parameters()))
        g_gradients = torch.autograd.grad(g_loss, list(generator.parameters()))
        for optimizer, player, gradients in zip(optimizers, players, (d_gradients, g_gradients), strict=True):
            for parameter, gradient in zip(player.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=8000, help="of the generator's ReLU layer (default 8000)")
    parser.add_argument("--maps", type=int, default=80, help="of its sigmoid layer, 10x10 each (default 80)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9, help="steps of each at least (default 9)")
    parser.add_argument("--quick", action="store_true", help="two steps each")
    args = parser.parse_args()
    device = torch.device("cpu")
    torch.manual_seed(0)

    pixels = Batch(torch.randint(256, (args.batch, *SHAPE), dtype=torch.uint8))
    splits = Splits("noise", pixels, pixels, pixels, "random images")
    settings = {"relu_units": args.units, "deconvolution_maps": args.maps, "batch_size": args.batch}
    recipe = RECIPES["cifar2014_convolutional"].with_settings(**settings)
    recipes = {"pygan": recipe, "pygan, bf16": recipe.with_settings(precision="bf16")}
    steps: dict[str, Callable[[], None]] = {}

    generator, discriminator = recipe.model.make_generator(SHAPE, 100), recipe.model.make_discriminator(SHAPE)
    eager = EagerDiscriminator(discriminator).eval()
    seen = make_scale(recipe.pixels, pixels).apply(as_float(pixels.images))
    torch.testing.assert_close(eager(seen), discriminator.eval()(seen))
    steps["eager torch"] = eager_step(seen, generator.train(), eager.train())
    for name, used in recipes.items():
        game = make_game(used, splits, 0, {"generator": None, "discriminator": None}, device)
        batches = Batches(splits.train, args.batch, 0, device, game.scale)
        step, rates = make_step(game, used, device), used.rates(0, 1)

        def run(step=step, batches=batches, rates=rates) -> None:
            step(batches, rates)
            step.statistics()

        steps[name] = run

    for name, value in {**conditions(), **vars(args)}.items():
        print(f"{name}: {value}")
    times = time_interleaved({name: once(step) for name, step in steps.items()}, 0, 2 if args.quick else args.rounds)
    base = times["eager torch"]["median"]
    print("\n| step | ms, median | 20 % | 80 % | of eager torch |\n|---|---|---|---|---|")
    for name, of in times.items():
        low, median, high = (of[key] / 1e3 for key in ("p20", "median", "p80"))
        print(f"| {name} | {median:.0f} | {low:.0f} | {high:.0f} | {of['median'] / base:.2f} |")


if __name__ == "__main__":
    main()
