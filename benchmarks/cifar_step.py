"""One training step of the two CIFAR-10 games of 2014, fully connected and convolutional, beside eager torch.

The eager step has the same players from torch's own parts: `conv2d`, the maximum over pieces by `amax`, `max_pool2d`,
dropout by masks, a linear layer of units * pieces in place of the fused maxout, binary cross-entropy on logits, and
`torch.optim.SGD` for each player. It updates both players from one batch, as the authors' code did, with real and
generated images in one pass of D for D's loss and generated ones in another for G's. All steps run in turn on the
same random images. Before anything is timed, the two discriminators are compared on the same weights.

    python benchmarks/cifar_step.py
    python benchmarks/cifar_step.py --recipe cifar2014 --units 800    one game, with a smaller generator
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
from pygan.models import Discriminator
from pygan.models.maxout_convolutional import ConvolutionalDiscriminator
from pygan.nn import Maxout
from pygan.recipes import RECIPES, Recipe

SHAPE = (3, 32, 32)
SIZES = {  # of the generator, for --units: those of the recipe have 8000
    "cifar2014": lambda units: {"relu_units": units, "sigmoid_units": units},
    "cifar2014_convolutional": lambda units: {"relu_units": units, "deconvolution_maps": -(-units // 100)},
}


class EagerDiscriminator(nn.Module):
    """The discriminator's formula in torch's own parts, on the weights of ours."""

    def __init__(self, ours: Discriminator | ConvolutionalDiscriminator) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.ours, ConvolutionalDiscriminator):
            for layer in self.ours.convolutions:
                x = dropout(x, layer.dropout, self.training)
                x = conv2d(x, layer.weight, layer.bias, padding=layer.window.padding)
                x = max_pool2d(x.unflatten(1, (-1, layer.pieces)).amax(2), layer.window.pool, 2, ceil_mode=True)
            hidden = [self.ours.hidden]
        else:
            hidden = list(self.ours.hidden)
        x = x.flatten(1)
        for layer in hidden:
            x = self._maxout(layer, x)
        return self.ours.output(dropout(x, self.ours.dropout, self.training)).squeeze(1)

    def _maxout(self, layer: Maxout, x: Tensor) -> Tensor:
        x = dropout(x, layer.dropout, self.training)
        return linear(x, layer.weight.flatten(0, 1), layer.bias.flatten()).unflatten(1, layer.bias.shape).amax(2)


def eager_step(
    images: Tensor, generator: nn.Module, discriminator: nn.Module, lr: float, bf16: bool
) -> Callable[[], None]:
    players = (discriminator, generator)
    optimizers = [torch.optim.SGD(player.parameters(), lr=lr, momentum=0.5) for player in players]
    n = len(images)
    targets = torch.cat([torch.ones(n), torch.zeros(n)])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            fakes = generator(torch.randn(n, 100))
            logits = discriminator(torch.cat([images, fakes.detach()])), discriminator(fakes)
        d_loss = binary_cross_entropy_with_logits(logits[0].float(), targets)
        g_loss = binary_cross_entropy_with_logits(logits[1].float(), torch.ones(n))
        d_gradients = torch.autograd.grad(d_loss, list(discriminator.parameters()))
        g_gradients = torch.autograd.grad(g_loss, list(generator.parameters()))
        for optimizer, player, gradients in zip(optimizers, players, (d_gradients, g_gradients), strict=True):
            for parameter, gradient in zip(player.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

    return step


def steps(recipe: Recipe, splits: Splits) -> dict[str, Callable[[], None]]:
    """The eager steps and ours, in both precisions; all of them have players of their own."""
    device, cases = torch.device("cpu"), {}
    for precision in ("float32", "bf16"):
        used = recipe.with_settings(precision=precision)
        torch.manual_seed(0)
        generator, discriminator = recipe.model.make_generator(SHAPE, 100), recipe.model.make_discriminator(SHAPE)
        eager = EagerDiscriminator(discriminator).eval()
        seen = make_scale(recipe.pixels, splits.train).apply(as_float(splits.train.images))
        torch.testing.assert_close(eager(seen), discriminator.eval()(seen))
        cases[f"eager torch, {precision}"] = eager_step(
            seen, generator.train(), eager.train(), recipe.generator_lr, precision == "bf16"
        )
        game = make_game(used, splits, 0, {"generator": None, "discriminator": None}, device)
        batches = Batches(splits.train, recipe.batch_size, 0, device, game.scale)
        step, rates = make_step(game, used, device), used.rates(0, 1)

        def run(step=step, batches=batches, rates=rates) -> None:
            step(batches, rates)
            step.statistics()

        cases[f"pygan, {precision}"] = run
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=SIZES, help="one of the two games; default: both, one after the other")
    parser.add_argument("--units", type=int, help="of each hidden layer of the generator (default 8000)")
    parser.add_argument("--batch", type=int, help="default: that of the recipe, 100 or 128")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each at least (default 9)")
    parser.add_argument("--quick", action="store_true", help="two steps each, 800 units")
    args = parser.parse_args()
    args.units = args.units or (800 if args.quick else 8000)

    for name, value in {**conditions(), **vars(args)}.items():
        print(f"{name}: {value}")
    for name in [args.recipe] if args.recipe else SIZES:
        recipe = RECIPES[name].with_settings(**SIZES[name](args.units))
        recipe = recipe.with_settings(batch_size=args.batch or recipe.batch_size)
        torch.manual_seed(0)
        pixels = Batch(torch.randint(256, (recipe.batch_size, *SHAPE), dtype=torch.uint8))
        cases = steps(recipe, Splits("noise", pixels, pixels, pixels, "random images"))
        repeated = {case: once(step) for case, step in cases.items()}
        times = time_interleaved(repeated, 0, 2 if args.quick else args.rounds)
        print(f"\n| {name} | ms, median | 20 % | 80 % | of eager torch, same precision |\n|---|---|---|---|---|")
        for case, of in times.items():
            low, median, high = (of[key] / 1e3 for key in ("p20", "median", "p80"))
            base = times[f"eager torch, {case.split(', ')[1]}"]["median"]
            print(f"| {case} | {median:.0f} | {low:.0f} | {high:.0f} | {of['median'] / base:.2f} |")


if __name__ == "__main__":
    main()
