"""The training step for the 2014 players: the numbers of `pygan.algorithm`, to rounding, in far less time.

The backward passes are written out, to use what autograd cannot know: the derivative of a logit with respect to
everything in D is needed only once, whichever player asks for it. The discriminator's backward pass starts from
d logit = 1 for each example. A weight's gradient is a sum over examples, so each row is scaled there by the derivative
of D's loss with respect to its logit. At D's input each row is scaled by that of G's loss. One pass thus serves both
players of a simultaneous update, and no number is ever divided by another. It holds because D treats examples
separately and both players see the same masks.

The rest is plain: real and generated images in one pass, the fastest products, and those that leave zeros out where a
generator's layer is mostly silent, maxout gradients through the winning pieces only, dropout masks drawn again instead
of stored, one call for all updates of a player. What each of these is worth is in docs/training_step.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pygan import _core
from pygan._build import build_info
from pygan.algorithm import ALGORITHMS, alternating, simultaneous
from pygan.distributed import Share
from pygan.fast.products import Layer, Library, Products, faster_library
from pygan.fast.sparse_products import SparseProducts, is_sparse
from pygan.game import Game
from pygan.models.fully_connected import Activation
from pygan.models.maxout_mlp import Discriminator, Generator
from pygan.models.relu_sigmoid_mlp import DeepenedGenerator, ReluSigmoidGenerator
from pygan.nn import Maxout
from pygan.objectives import NonSaturating, Saturating
from pygan.ops.adversarial_loss import discriminator_loss_op, generator_loss_op
from pygan.ops.dropout import draw_seed, drop_into
from pygan.ops.maxout import maxout_grad_input_op, maxout_grad_weight_op, maxout_pool_op
from pygan.optim import Momentum, Optimizer, Rates
from pygan.step import BaseStep, NextBatch

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["FusedStep", "can_fuse", "choose_products"]


_GENERATORS = Generator | ReluSigmoidGenerator | DeepenedGenerator
_KNOWN_PARTS = (
    *(*get_args(_GENERATORS), nn.Sequential, nn.ReLU, nn.Sigmoid),
    *(Discriminator, Maxout, nn.Linear, nn.ModuleList),
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_fuse(game: Game, recipe: "Recipe", device: torch.device) -> bool:
    """Whether this step knows everything that the game and its recipe name; what it does not know, it does not guess.

    Both players must be exactly those of 2014, with no part hooked, frozen or replaced. The optimiser is asked through
    its interface only, so that any will do.
    """
    generator, discriminator = game.generator, game.discriminator
    if not isinstance(generator, _GENERATORS) or not isinstance(discriminator, Discriminator):
        return False
    parts = [*generator.modules(), *discriminator.modules()]
    if not all(type(part) in _KNOWN_PARTS for part in parts):
        return False
    try:
        painting = [layer for layer, _ in generator.layers()]
    except (KeyError, TypeError, ValueError):  # other parts than those that it was made of
        return False
    judging = list(discriminator.hidden)
    layers = [*painting, *judging, discriminator.output]
    kinds = [nn.Linear] * len(painting) + [Maxout] * len(judging) + [nn.Linear]
    parameters = [*generator.parameters(), *discriminator.parameters()]
    return (
        len(judging) > 0
        and [type(layer) for layer in layers] == kinds
        and type(game.objective) in (NonSaturating, Saturating)
        and ALGORITHMS.get(recipe.updates) in (alternating, simultaneous)
        and game.classes == 0
        and (device.type == "cpu" or (device.type == "cuda" and build_info()["cuda"] is not None))
        and all(part.impl != "reference" for part in parts if isinstance(part, Maxout))
        and [id(p) for p in parameters] == [id(p) for layer in layers for p in (layer.weight, layer.bias)]
        and not any(getattr(part, hooks) for part in parts for hooks in _HOOKS)
        and not any(p._backward_hooks for p in parameters)
        and all(p.requires_grad and p.dtype == torch.float32 and p.is_contiguous() for p in parameters)
    )


def choose_products(
    game: Game, recipe: "Recipe", device: torch.device, before: Mapping[str, Any] | None = None
) -> Library:
    """Return the library of a game's matrix products: on the CPU the setting `products`, or the faster one for "auto".

    A run that was begun before (`before`, its config.toml) keeps its library. Only `FusedStep` has a choice.
    """
    if device.type != "cpu" or recipe.step == "plain" or not can_fuse(game, recipe, device):
        return "torch"
    bf16 = recipe.precision == "bf16"
    asked = recipe.products
    if before is not None:  # runs of version 0.1 went by the processor's vendor
        asked = before.get("products", "onednn" if bf16 or _core.amd_family() > 0 else "torch")
    assert isinstance(game.generator, _GENERATORS)
    assert isinstance(game.discriminator, Discriminator)
    n = recipe.batch_size
    painted = 2 * n if ALGORITHMS[recipe.updates] is alternating else n  # see `FusedStep._alternating`
    layers = [Layer(painted, *_sizes(layer), backward=n) for layer, _ in game.generator.layers()]
    layers += [Layer(2 * n, *_sizes(layer), backward=0) for layer in game.discriminator.hidden]
    return faster_library(asked, tuple(layers), torch.bfloat16 if bf16 else torch.float32)


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a layer; a maxout layer has one output for each piece."""
    *outputs, inputs = layer.get_parameter("weight").shape
    return inputs, math.prod(outputs)


class FusedStep(BaseStep):
    """A `pygan.step.Step` for games that `can_fuse` accepts; its order of random draws is that of `PlainStep`.

    Raises ValueError for any other game.
    """

    def __init__(self, game: Game, recipe: "Recipe", device: torch.device, share: Share | None = None) -> None:
        if not can_fuse(game, recipe, device):
            raise ValueError(
                "FusedStep: does not know this game, its players, objective, algorithm or device; "
                "make_step chooses a step that does"
            )
        assert isinstance(game.generator, _GENERATORS)
        assert isinstance(game.discriminator, Discriminator)
        assert isinstance(game.objective, NonSaturating | Saturating)
        optimizers = (recipe.optimizer.make(game.generator), recipe.optimizer.make(game.discriminator))
        super().__init__(game, recipe, optimizers, device, share)
        half_precision = recipe.precision == "bf16"
        products = Products(choose_products(game, recipe, device))
        self._painter = _Painter(self.g_optimizer, half_precision, products, self.share, game.generator)
        self._judge = _Judge(self.d_optimizer, half_precision, products, self.share, game.discriminator)
        self._objective = game.objective
        self._pixels = math.prod(game.shape)
        self._update = self._alternating if ALGORITHMS[recipe.updates] is alternating else self._simultaneous

    @torch.no_grad()
    def iterate(self, real: NextBatch, rates: Rates) -> Tensor:
        """One iteration -> its row of statistics, on the device. A CUDA graph may capture it."""
        return self._update(real, rates)

    def reload(self) -> None:
        """See `pygan.step.Step`."""
        self._painter.refresh()
        self._judge.refresh()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `pygan.step.Step`."""
        super().load_state_dict(state)
        self.reload()

    def _alternating(self, real: NextBatch, rates: Rates) -> Tensor:
        """`pygan.algorithm.alternating`. The images of the last update of D and of that of G come from one pass."""
        judge, painter = self._judge, self._painter
        for _ in range(self.recipe.k - 1):
            draw = self._draw(real().images.flatten(1))
            self._update_discriminator(draw, painter.forward(draw.noise).images, rates)
        draw, last = self._draw(real().images.flatten(1)), self._draw()
        painted = painter.forward(torch.cat([draw.noise, last.noise]))
        fakes, shown = painted.images.chunk(2)
        d_loss, logits = self._update_discriminator(draw, fakes, rates)
        seen = judge.forward(last.masks, last.blurred(shown))
        g_loss, g_slopes = self._generator_loss(seen.logits)
        image_gradient = judge.image_gradient(seen, judge.logit_slopes(seen), 0, g_slopes)
        painter.update(painter.gradients(painted.last(len(shown)), image_gradient), rates.generator_lr, rates.momentum)
        return self._objective.row(d_loss, g_loss, *logits.chunk(2))

    def _update_discriminator(self, draw: "_Draw", fakes: Tensor, rates: Rates) -> tuple[Tensor, Tensor]:
        """One update of D alone -> its loss and its logits, of real images first."""
        judged = self._judge.forward(draw.masks, *draw.real, draw.blurred(fakes))
        slopes = self._judge.logit_slopes(judged)
        d_loss, d_slopes = self._discriminator_loss(judged.logits)
        gradients = self._discriminator_gradients(judged, slopes, d_slopes)
        self._judge.update(gradients, rates.discriminator_lr, rates.momentum)
        return d_loss, judged.logits

    def _simultaneous(self, real: NextBatch, rates: Rates) -> Tensor:
        """`pygan.algorithm.simultaneous`: both gradients at the same parameters, from one backward pass through D."""
        judge, painter = self._judge, self._painter
        draw = self._draw(real().images.flatten(1))
        painted = painter.forward(draw.noise)
        judged = judge.forward(draw.masks, *draw.real, draw.blurred(painted.images))
        slopes = judge.logit_slopes(judged)
        real_logits, fake_logits = judged.logits.chunk(2)
        d_loss, d_slopes = self._discriminator_loss(judged.logits)
        g_loss, g_slopes = self._generator_loss(fake_logits)
        d_gradients = self._discriminator_gradients(judged, slopes, d_slopes)
        image_gradient = judge.image_gradient(judged, slopes, len(real_logits), g_slopes)
        g_gradients = painter.gradients(painted, image_gradient)
        judge.update(d_gradients, rates.discriminator_lr, rates.momentum)
        painter.update(g_gradients, rates.generator_lr, rates.momentum)
        return self._objective.row(d_loss, g_loss, real_logits, fake_logits)

    def _draw(self, *real: Tensor) -> "_Draw":
        """Draw for one update; real images [n, pixels], if D sees any in it."""
        noise = self.noise()
        seen = [self.blurred(images) for images in real]
        blur = None
        if self.recipe.instance_noise > 0:
            blur = self.instance_noise(noise.new_empty(len(noise), self._pixels, dtype=self._painter.dtype))
        return _Draw(noise, seen, blur, self._judge.masks())

    def _discriminator_gradients(self, judged: "_Judging", slopes: list[Tensor], d_slopes: Tensor) -> list[Tensor]:
        gradients = self._judge.weight_gradients(judged, slopes, d_slopes)
        if self._objective.gradient_penalty > 0:
            weight = self._objective.scale * self._objective.gradient_penalty / 2
            self._judge.add_penalty(gradients, judged, slopes, len(d_slopes) // 2, weight)
        return gradients

    def _discriminator_loss(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its derivative with respect to each logit; the first half of them is of real images."""
        loss, *slopes = discriminator_loss_op(*logits.chunk(2), True)
        return self._objective.scale * loss, self._objective.scale * torch.cat(slopes)

    def _generator_loss(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its derivative with respect to each logit."""
        return generator_loss_op(logits, isinstance(self._objective, Saturating), True)


class _Layers:
    """A player's layers as (weight, bias) in the precision of the products, and its optimiser.

    Whoever changes the parameters brings the bfloat16 copies up to date: the momentum kernel by itself, `update` for
    every other optimiser, `refresh` for everybody else.
    """

    def __init__(self, optimizer: Optimizer, half_precision: bool, products: Products, share: Share) -> None:
        self._optimizer, self._products, self._share = optimizer, products, share
        self._parameters: list[Tensor] = list(optimizer.parameters.values())
        self._operands = self._parameters
        if half_precision:
            self._operands = [torch.empty_like(p, dtype=torch.bfloat16) for p in self._parameters]
            if type(optimizer) is Momentum:
                optimizer.copies = self._operands
        self._copies_follow = type(optimizer) is Momentum
        self.refresh()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the products, and of what the player computes."""
        return self._operands[0].dtype

    def refresh(self) -> None:
        """Copy the parameters to the operands, if these are copies."""
        if self._operands is not self._parameters:
            torch._foreach_copy_(self._operands, self._parameters)

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Input to output."""
        return list(zip(self._operands[::2], self._operands[1::2], strict=True))

    def update(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        """One step of the optimiser; the gradients are of this process's share of the batch."""
        self._optimizer.step(self._share.mean(gradients, self._parameters), lr, momentum)
        if not self._copies_follow:
            self.refresh()


class _Draw(NamedTuple):
    """What one update draws at random, all of it before anything is computed, in the order of `PlainStep`.

    Attributes:
        noise: for G, [n, noise_size].
        real: the real images that D sees in this update, [n, pixels], if any.
        blur: the instance noise of the generated ones, if there is any.
        masks: of D's dropout.
    """

    noise: Tensor
    real: list[Tensor]
    blur: Tensor | None
    masks: list["_Mask"]

    def blurred(self, fakes: Tensor) -> Tensor:
        """Generated images as D sees them."""
        return fakes if self.blur is None else fakes + self.blur


class _Painting(NamedTuple):
    """One pass of the generator.

    Attributes:
        values: the noise, then the output of each layer; the last are the images [n, pixels].
        products: for each of them the products with it, and with the gradient with respect to what it was made of.
    """

    values: list[Tensor]
    products: list[Products | SparseProducts]

    @property
    def images(self) -> Tensor:
        return self.values[-1]

    def last(self, n: int) -> "_Painting":
        """The last n rows of it."""
        return _Painting([value[-n:] for value in self.values], self.products)


class _Painter(_Layers):
    """The generator: linear layers, each with its activation."""

    def __init__(
        self,
        optimizer: Optimizer,
        half_precision: bool,
        products: Products,
        share: Share,
        generator: _GENERATORS,
    ) -> None:
        super().__init__(optimizer, half_precision, products, share)
        self._activations = [activation for _, activation in generator.layers()]

    def forward(self, noise: Tensor) -> _Painting:
        """Noise [n, noise_size] -> images [n, pixels]."""
        values = [noise.to(self.dtype)]
        products: list[Products | SparseProducts] = [self._products]
        for (weight, bias), activation in zip(self.layers(), self._activations, strict=True):
            values.append(products[-1].affine(values[-1], weight, bias, activation))
            silent = activation == "relu" and is_sparse(values[-1])
            products.append(SparseProducts() if silent else self._products)
        return _Painting(values, products)

    def gradients(self, painted: _Painting, grad: Tensor) -> list[Tensor]:
        """Gradient with respect to the images [n, pixels] -> gradients with respect to the parameters, in order."""
        gradients: list[Tensor] = []
        for depth, (weight, _) in reversed(list(enumerate(self.layers()))):
            x, y = painted.values[depth : depth + 2]
            grad = _before(self._activations[depth], grad, y)
            products = painted.products[depth + 1]  # the gradient is zero wherever a ReLU's output is
            gradients[:0] = [products.outer(grad, x), grad.sum(0)]
            if depth > 0:
                grad = products.times(grad, weight)
        return gradients


def _before(activation: Activation, grad: Tensor, output: Tensor) -> Tensor:
    """The gradient with respect to an activation's output -> that with respect to its input."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad, output, 0)
    return torch.ops.aten.sigmoid_backward(grad, output) if activation == "sigmoid" else grad


class _Mask(NamedTuple):
    """One draw of dropout, for whole batches; seed None where nothing is dropped."""

    keep: float
    seed: Tensor | None
    share: Share

    def drop(self, x: Tensor, out: Tensor, first_row: int = 0) -> None:
        """out <- dropout of x [n, width], as rows first_row, first_row + 1, ... of this process; out may be x."""
        if self.seed is not None:
            for row, (piece, into) in self.share.pieces(first_row, x, out):
                drop_into(into, piece, self.keep, self.seed, row * x.shape[1])
        elif out is not x:
            out.copy_(x)


class _Judging(NamedTuple):
    """One pass of the discriminator over n images.

    Attributes:
        masks: of the dropout before each layer.
        inputs: of each layer, after dropout, [n, in].
        winners: the winning piece of each maxout unit, layer by layer, uint8 [n, units].
        logits: float32 [n].
    """

    masks: list[_Mask]
    inputs: list[Tensor]
    winners: list[Tensor]
    logits: Tensor


class _Judge(_Layers):
    """The discriminator: dropout, maxout layers, dropout, the logit."""

    def __init__(
        self,
        optimizer: Optimizer,
        half_precision: bool,
        products: Products,
        share: Share,
        discriminator: Discriminator,
    ) -> None:
        super().__init__(optimizer, half_precision, products, share)
        self._droppers = [*discriminator.hidden, discriminator]  # somebody may change their rates and modes

    def masks(self) -> list[_Mask]:
        """Draw the masks for one pass: of the dropout before each layer."""
        masks = []
        for dropper in self._droppers:
            rate = dropper.dropout if dropper.training else 0.0
            seed = draw_seed(self._operands[0].device) if rate > 0 else None
            masks.append(_Mask(1 - rate, seed, self._share))
        return masks

    def forward(self, masks: list[_Mask], *parts: Tensor) -> _Judging:
        """Judge images [n, pixels], given in one or more parts, one after the other."""
        *hidden, output = self.layers()
        x = parts[0].new_empty(sum(map(len, parts)), parts[0].shape[1], dtype=output[0].dtype)
        first = 0
        for part in parts:
            masks[0].drop(part.to(x.dtype).contiguous(), x[first : first + len(part)], first)
            first += len(part)
        inputs, winners = [x], []
        for depth, (weight, bias) in enumerate(hidden, start=1):
            pieces = self._products.affine(x, weight.flatten(0, 1), bias.flatten())
            x, winner = maxout_pool_op(pieces, weight.shape[1])
            masks[depth].drop(x, x)
            inputs.append(x)
            winners.append(winner)
        return _Judging(masks, inputs, winners, linear(x, *output).flatten().float())

    def logit_slopes(self, judged: _Judging) -> list[Tensor]:
        """Return the derivative of each logit with respect to the units of each maxout layer, [n, units] each."""
        *hidden, (weight, _) = self.layers()
        grad = weight.repeat(len(judged.inputs[-1]), 1)
        slopes: list[Tensor] = []
        for depth, (weight, _) in reversed(list(enumerate(hidden))):
            judged.masks[depth + 1].drop(grad, grad)
            slopes.insert(0, grad)
            if depth > 0:
                grad = maxout_grad_input_op(grad, weight, judged.winners[depth])
        return slopes

    def weight_gradients(self, judged: _Judging, slopes: list[Tensor], loss_slopes: Tensor) -> list[Tensor]:
        """Return the gradients, in the parameters' order, of a loss whose derivative by each logit is `loss_slopes`."""
        gradients: list[Tensor] = []
        scale = loss_slopes.to(judged.inputs[-1].dtype)
        for (weight, _), grad, x, winner in zip(self.layers(), slopes, judged.inputs, judged.winners, strict=False):
            scaled = grad * scale.unsqueeze(1)
            gradients += maxout_grad_weight_op(scaled, x, winner, weight.shape[1])
        return [*gradients, (scale @ judged.inputs[-1]).unsqueeze(0), scale.sum(0, keepdim=True)]

    def image_gradient(self, judged: _Judging, slopes: list[Tensor], first: int, loss_slopes: Tensor) -> Tensor:
        """Return the gradient of a loss with respect to the images from row `first` on, [len(loss_slopes), pixels]."""
        rows = slice(first, first + len(loss_slopes))
        scaled = slopes[0][rows] * loss_slopes.to(slopes[0].dtype).unsqueeze(1)
        grad = maxout_grad_input_op(scaled, self.layers()[0][0], judged.winners[0][rows])
        judged.masks[0].drop(grad, grad, first)
        return grad

    def add_penalty(
        self, gradients: list[Tensor], judged: _Judging, slopes: list[Tensor], n: int, weight: float
    ) -> None:
        """Add the gradients of weight / n times the sum, over the first n images, of |d logit / d image|^2.

        The slope d logit / d image is linear in each layer's weight. The penalty's gradient with respect to a weight is
        thus that of an ordinary layer whose input is the slope's image under the layers before it, with the winning
        pieces held.
        """
        *hidden, _ = self.layers()
        slope = self.image_gradient(judged, slopes, 0, slopes[0].new_ones(n))
        tangent = slope * (2 * weight / n)
        judged.masks[0].drop(tangent, tangent)
        for depth, (matrix, _) in enumerate(hidden):
            units, pieces, _ = matrix.shape
            winners = judged.winners[depth][:n]
            by_weight, _ = maxout_grad_weight_op(slopes[depth][:n], tangent, winners, pieces)
            gradients[2 * depth] += by_weight
            by_piece = self._products.affine(tangent, matrix.flatten(0, 1), None).view(n, units, pieces)
            tangent = by_piece.gather(2, winners.long().unsqueeze(2)).squeeze(2)
            judged.masks[depth + 1].drop(tangent, tangent)
        gradients[-2] += tangent.sum(0)
