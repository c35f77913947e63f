"""The game: both players, the noise, the objective and the pixel scale."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pygan.data import Splits, as_float
from pygan.data.scaling import Scale, make_scale
from pygan.noise import draw_noise
from pygan.objectives import Judged, Objective

if TYPE_CHECKING:
    from pygan.recipes import Recipe

__all__ = ["Game", "evaluating", "make_game"]

_AT_ONCE = 1000  # samples that are generated in one pass, at most
_NUMBERS_AT_ONCE = 4 << 20  # in the samples of one pass
_MEAN_AT_ONCE = 64 << 20  # numbers of the images whose mean is taken in one pass


@dataclass(eq=False)
class Game:
    """Two players and the rules between them.

    Attributes:
        generator: maps noise [n, noise_size] (and labels [n]) to images, [n, C, H, W] or [n, C * H * W], in `scale`.
        discriminator: maps images [n, C, H, W] in `scale` (and labels [n]) to logits [n] or [n, 1].
        shape: (C, H, W) of the images.
        objective: the losses of both players.
        noise: name of the noise's distribution, see `pygan.noise.NOISES`.
        noise_size: numbers in one noise vector.
        scale: the pixel scale in which both players see images.
        classes: number of classes that both players are conditional on; 0 if they are not.
    """

    generator: nn.Module = field(repr=False)
    discriminator: nn.Module = field(repr=False)
    shape: tuple[int, ...]
    objective: Objective
    noise: str
    noise_size: int
    scale: Scale
    classes: int = 0

    def draw_noise(self, n: int, random: torch.Generator | None = None, device: torch.device | None = None) -> Tensor:
        """Return noise [n, noise_size] from `random`, or from torch's default generator of the device."""
        return draw_noise(self.noise, n, self.noise_size, device=device, random=random)

    def generate(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images [n, C, H, W] in `scale` from noise [n, noise_size]; labels [n] if the game is conditional."""
        images = self.generator(noise, labels) if self.classes else self.generator(noise)
        return images.reshape(-1, *self.shape)

    def judge(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the logits [n] of images [n, C, H, W] in `scale`, float32 or float64.

        bfloat16 is used for the products only, not for the losses.
        """
        logits = self.discriminator(images, labels) if self.classes else self.discriminator(images)
        return logits.flatten().to(torch.promote_types(logits.dtype, torch.float32))

    def judge_both(self, real: Tensor, fakes: Tensor, labels: Tensor | None = None) -> Judged:
        """Judge real and generated images [n, C, H, W] of the same labels.

        They share a pass only where the discriminator has `independent_examples`: batch norm must not mix the two.
        """
        if getattr(self.discriminator, "independent_examples", False):
            both = None if labels is None else labels.repeat(2)
            logits = self.judge(torch.cat([real, fakes]), both)
            return Judged(real, fakes, logits[: len(real)], logits[len(real) :])
        return Judged(real, fakes, self.judge(real, labels), self.judge(fakes, labels))

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, random: torch.Generator | None = None) -> Tensor:
        """Return n samples [n, C, H, W] in `scale`, float32, on the generator's device; it is in eval mode meanwhile.

        See `sample_pieces`.
        """
        pieces = list(self.sample_pieces(n, labels, random))
        if not pieces:
            return torch.empty(0, *self.shape, device=self._device())
        return torch.cat(pieces)

    @torch.no_grad()
    def sample_pieces(
        self, n: int, labels: Tensor | None = None, random: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the samples of `sample` in pieces of at most 1000, and fewer of large images.

        The noise is drawn on the CPU, from `random` or torch's default generator, so that every device gets the same.
        Labels default to the classes in turn, 0, 1, 2, ...
        """
        device = self._device()
        noise = self.draw_noise(n, random).to(device)
        if self.classes and labels is None:
            labels = torch.arange(n) % self.classes
        inputs = [noise] if labels is None else [noise, labels.to(device)]
        size = min(_AT_ONCE, max(1, _NUMBERS_AT_ONCE // math.prod(self.shape)))
        for start in range(0, n, size):
            with evaluating(self.generator):
                piece = self.generate(*(tensor[start : start + size] for tensor in inputs)).float()
            yield piece

    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.generator.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def check(self) -> None:
        """Raise ValueError if the players do not fit each other, the data and the objective.

        That is about shapes, pixel range, logits, and batch norm under a penalty.

        Both are tried in eval mode with noise as in training, since at zero noise a tanh looks like a sigmoid.
        """
        if self.objective.penalises:
            _refuse_batch_norm(self.objective.name, self.discriminator)
        n = 64
        device = self._device()
        noise = self.draw_noise(n, torch.Generator().manual_seed(0)).to(device)
        labels = (torch.arange(n, device=device) % self.classes,) if self.classes else ()
        with evaluating(self.generator), evaluating(self.discriminator):
            task = f"map noise [{n}, {self.noise_size}] to images {[n, *self.shape]} or {[n, math.prod(self.shape)]}"
            given = f"noise {[n, self.noise_size]}, whose size noise_size= sets"
            images = _called("generator", self.generator, given, noise, *labels)
            _refuse("generator", task, images, [(n, *self.shape), (n, math.prod(self.shape))])
            _refuse_range(images, self.scale)
            images = images.float().reshape(n, *self.shape)
            task = f"map images {[n, *self.shape]} to logits [{n}] or [{n}, 1]"
            logits = _called("discriminator", self.discriminator, f"images {[n, *self.shape]}", images, *labels)
            _refuse("discriminator", task, logits, [(n,), (n, 1)])
            signs = torch.where(torch.arange(n, device=device) < n // 2, 1.0, -1.0).reshape(n, 1, 1, 1)
            far = self.discriminator(1e6 * signs * images, *labels)
        at_ends = ((far == 0) | (far == 1)).float().mean() > 0.5 and (far == 1).any()  # 0 alone: weights of 0, say
        if bool(at_ends and (far >= 0).all() and (far <= 1).all()):
            raise ValueError(
                "train: discriminator must give logits, or a critic's values, without bounds, but it seems to end in a "
                "sigmoid, so that it could never leave [0, 1]; remove its last layer"
            )


def make_game(
    recipe: "Recipe",
    splits: Splits,
    classes: int,
    players: Mapping[str, nn.Module | None],
    device: torch.device,
) -> Game:
    """Return the game of a recipe on a data set, on the device and in training mode.

    Args:
        recipe: every setting.
        splits: the data; the generator starts from their mean image.
        classes: number of classes, or 0 for a game that is not conditional.
        players: "generator" and "discriminator", the user's modules; one that is None is made as the recipe says.
        device: where the players are to be.

    Raises:
        ValueError: players that do not fit each other, the data or the recipe, or that have nothing to train.
    """
    scale = make_scale(recipe.pixels, splits.train)
    generator, discriminator = players["generator"], players["discriminator"]
    if generator is None:
        mean_image = _mean_image(splits, scale)
        generator = recipe.model.make_generator(splits.shape, recipe.noise_size, classes, mean_image)
    if discriminator is None:
        discriminator = recipe.model.make_discriminator(splits.shape, classes)
    if players["generator"] is players["discriminator"] is None:  # a user's module may rely on the usual order
        generator, discriminator = (recipe.model.place(player, device) for player in (generator, discriminator))
    generator, discriminator = generator.to(device).train(), discriminator.to(device).train()
    rules = recipe.objective, recipe.noise, recipe.noise_size
    game = Game(generator, discriminator, splits.shape, *rules, scale, classes)
    game.check()
    for role, player in (("generator", generator), ("discriminator", discriminator)):
        if not any(parameter.requires_grad for parameter in player.parameters()):
            raise ValueError(f"train: {role} must have a parameter that requires a gradient, got none")
    return game


def _mean_image(splits: Splits, scale: Scale) -> Tensor:
    """The mean training image [C, H, W] in the scale, float32, without all images in float32 at once."""
    size = max(1, _MEAN_AT_ONCE // math.prod(splits.shape))
    pieces = splits.train.images.split(size)
    if len(pieces) == 1:
        return scale.apply(as_float(pieces[0])).mean(0)
    total = torch.zeros(splits.shape, dtype=torch.float64)
    for piece in pieces:
        total += scale.apply(as_float(piece)).sum(0, dtype=torch.float64)
    return (total / len(splits.train)).float()


def _called(role: str, player: nn.Module, given: str, *inputs: Tensor) -> Any:
    """Return what a player makes of its inputs. Its own errors become one that says what it was given."""
    try:
        return player(*inputs)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        given += f", and labels [{len(inputs[0])}]" if len(inputs) > 1 else ""
        raise ValueError(f"train: {role} failed on {given}: {type(error).__name__}: {error}") from error


def _refuse(player: str, task: str, output: object, shapes: list[tuple[int, ...]]) -> None:
    if not isinstance(output, Tensor):
        raise ValueError(f"train: {player} must {task}, got {type(output).__name__}")
    if tuple(output.shape) not in shapes:
        raise ValueError(f"train: {player} must {task}, got {list(output.shape)}")
    if not output.is_floating_point():
        raise ValueError(f"train: {player} must {task} in floating point, got {output.dtype}")
    if not bool(output.isfinite().all()):
        raise ValueError(f"train: {player} must {task}, got NaN or infinite values from its starting weights")


def _refuse_range(images: Tensor, scale: Scale) -> None:
    if scale.range is None:
        return
    low, high = scale.range
    if bool((images < low).any() or (images > high).any()):
        raise ValueError(
            f"train: generator must give images in [{low:g}, {high:g}], the pixel scale {scale.name!r}, got "
            f"[{images.min():.3g}, {images.max():.3g}]. End it with a sigmoid for pixels='unit', "
            "or with a tanh and pass pixels='signed'; pixels='standard' has no bounds"
        )


def _refuse_batch_norm(objective: str, discriminator: nn.Module) -> None:
    for name, part in discriminator.named_modules():
        if isinstance(part, _BatchNorm):
            raise ValueError(
                f"train: discriminator must have no batch norm, got {type(part).__name__} as {name!r}. The objective "
                f"{objective!r} penalises the slope at each image by itself, and batch norm mixes the images of a "
                "batch; take it out (discriminator_norm='none' in model 'dcgan'), or take layer norm"
            )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode within this context, and restore the mode of each of its parts afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
