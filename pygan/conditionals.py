"""All conditionals p(x_S given the rest) by one net (section 7.3 of the paper): it fills in any part of an image.

    model = pygan.conditionals.train("mnist")
    known = pygan.conditionals.known_part("left", model.shape)      # True where the image is given
    model.fill(images, known, n=8)                                  # eight completions of each image

The generator gets noise, the known pixels and which they are, and makes an image; the known pixels then replace its
own. The discriminator gets an image and which pixels were given. Both are the fully connected players of 2014, with
these inputs. In training the known part of each image is drawn anew: single pixels at any rate, or a rectangle's inside
or outside, so that one set of weights serves every subset S.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import grad

import pygan.data
from pygan import ops, pictures
from pygan.batches import Batches
from pygan.checkpoint import Part
from pygan.data import Data, Splits, as_float, fingerprint
from pygan.data.scaling import Unit
from pygan.evaluate._pixels import check_images
from pygan.fit import Cadence
from pygan.learning import Keeping, LearnerSettings, LearnerWithParts, autocast, in_words, learn, settings_from
from pygan.models.maxout_mlp import Discriminator, Generator
from pygan.noise import draw_noise
from pygan.ops._checks import check_shape, check_tensor
from pygan.optim import AdamSettings, MovingAverage, trainable
from pygan.progress import Task
from pygan.settings import (
    AT_LEAST_ONE,
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    SIZES,
    find,
    random_generator,
    setting,
    whole_number,
)

__all__ = ["KNOWN", "Conditionals", "ConditionalsSettings", "known_part", "log_density_of_missing", "train"]

KNOWN = ("left", "right", "pixels", "box")
"""The parts that `known_part` knows by name."""
_GRAY = 0.5  # shown where nothing is known
_AT_ONCE = 1000  # images in one pass
_LEAST_SQUARE = 1e-12  # of a distance: its root has a finite derivative


@dataclass(frozen=True, kw_only=True)
class ConditionalsSettings(LearnerSettings):
    """The settings of `train`; the defaults are for images of 8x8 pixels."""

    epochs: int = setting(250, "passes over the training images", AT_LEAST_ONE)
    batch_size: int = setting(50, "images in one update", AT_LEAST_ONE)
    learning_rate: float = setting(1e-3, "Adam's; it falls linearly to 0 over the last half of the updates", POSITIVE)
    noise_size: int = setting(100, "numbers in one noise vector", AT_LEAST_ONE)
    generator_hidden: tuple[int, ...] = setting((200, 200), "units of the generator's ReLU layers", SIZES)
    discriminator_hidden: tuple[int, ...] = setting((100, 100), "units of the discriminator's maxout layers", SIZES)
    energy_score: float = setting(1.0, "weight of the energy score in the generator's loss", NOT_NEGATIVE)
    precision: Literal["float32", "bf16"] = setting("float32", "of the matrix products in training")
    averaging: float = setting(0.999, "decay an update of the generator's average, which fills in", BELOW_ONE)


@dataclass(eq=False)
class Conditionals:
    """A generator that fills in what is missing.

    Attributes:
        generator: maps noise, known pixels and the mask, side by side, to images; its weights are averages.
        shape: (C, H, W) of the images.
        noise_size: numbers in one noise vector.
        history: one dictionary for each epoch: "d_loss" and "g_loss", in nats, and the "energy_score".
        path: its folder.
    """

    generator: Generator
    shape: tuple[int, int, int]
    noise_size: int
    history: list[dict[str, Any]]
    path: Path

    def __repr__(self) -> str:
        return in_words(self, self.path, self.shape, self.history)

    @torch.no_grad()
    def fill(self, images: Tensor, known: Tensor, n: int = 1, seed: int | None = None) -> Tensor:
        """Return n completions of each image, [len(images), n, C, H, W], float32 in [0, 1], on the CPU.

        The known pixels are those of the images, exactly.

        Args:
            images: [m, C, H, W], uint8 or float32 in [0, 1]; what they hold outside of the known part has no effect.
            known: bool, True where the image is given: [H, W], [1, H, W] or [C, H, W] for all images alike, or
                [m, 1, H, W] or [m, C, H, W].
            n: completions, at least 1.
            seed: the same completions for the same seed; None for new ones.

        Raises:
            TypeError: a mask that is not bool.
            ValueError: wrong shapes, or n < 1.
        """
        check_images("fill", "images", images, self.shape)
        n = whole_number("fill: n", n, 1)
        mask = _expanded(known, images)
        given = as_float(images.cpu())
        random = random_generator("fill: seed", seed)
        device = next(self.generator.parameters()).device
        wanted = [tensor.repeat_interleave(n, 0).split(_AT_ONCE) for tensor in (given, mask)]
        pieces = []
        with Task("completing images", n * len(images)) as task:
            for some, part in zip(*wanted, strict=True):
                noise = draw_noise("uniform", len(some), self.noise_size, random=random).to(device)
                made = self.generator(_inputs(noise, some.to(device), part.to(device))).cpu()
                pieces.append(torch.where(part, some, made))
                task.advance(len(some))
        return torch.cat(pieces).unflatten(0, (len(images), n)) if pieces else given.new_empty(0, n, *self.shape)

    def save_picture(self, path: str | Path, images: Tensor, known: Tensor, n: int = 8, seed: int | None = 0) -> None:
        """Write a picture with a row for each image: the image, what is known of it, and n completions.

        The arguments are those of `fill`.
        """
        path = pictures.png_path(path)
        check_images("save_picture", "images", images, self.shape)
        mask, whole = _expanded(known, images), as_float(images.cpu())
        shown = torch.where(mask, whole, torch.full_like(whole, _GRAY))
        cells = torch.cat([whole[:, None], shown[:, None], self.fill(images, known, n, seed)], 1)
        pictures.save_png(path, cells.flatten(0, 1), columns=n + 2)


def known_part(kind: str, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Return a mask, bool [1, H, W], True where an image of shape (C, H, W) is given.

    Args:
        kind: "left" or "right", that half; "pixels", one of four at random; "box", all but a square in the middle of
            half the image's side.
        shape: (C, H, W).
        seed: of the pixels.
    """
    find("kind", kind, KNOWN)
    _, height, width = shape
    if kind == "pixels":
        return torch.rand(1, height, width, generator=random_generator("known_part: seed", seed)) < 0.25
    known = torch.full((1, height, width), kind == "box")
    if kind == "box":
        known[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = False
    elif kind == "left":
        known[:, :, : width // 2] = True
    else:
        known[:, :, width // 2 :] = True
    return known


def log_density_of_missing(images: Tensor, known: Tensor, completions: Tensor, sigma: float) -> Tensor:
    """Return the log density of the missing pixels of each image, in nats, under a Parzen window on its completions.

    Args:
        images: [m, C, H, W], uint8 or float32 in [0, 1].
        known: see `Conditionals.fill`.
        completions: [m, n, C, H, W], as `Conditionals.fill` returns them, or any others: the mean image, for one.
        sigma: the window's bandwidth, in the unit of the pixels.

    Returns:
        float64 [m]: log mean_i N(x_S; c_i, sigma^2), over the pixels S that are not known.
    """
    op = "log_density_of_missing"
    if not 0 < sigma < math.inf:
        raise ValueError(f"{op}: sigma must be greater than 0 and finite, got {sigma}")
    check_tensor(op, "images", images)
    check_shape(op, "images", images, "[m, C, H, W]", images.ndim == 4)
    check_tensor(op, "completions", completions)
    fits = completions.ndim == 5 and completions.shape[1] > 0 and completions[:, 0].shape == images.shape
    expected = f"[{len(images)}, n >= 1, {', '.join(map(str, images.shape[1:]))}]"
    check_shape(op, "completions", completions, expected, fits)
    if not completions.is_floating_point():
        raise TypeError(f"{op}: completions must be floating point, in [0, 1], got {completions.dtype}")
    missing = ~_expanded(known, images)
    differences = (completions.double() - as_float(images.cpu()).double()[:, None]) * missing[:, None]
    exponents = differences.square().flatten(2).sum(2) / (-2 * sigma**2)
    normaliser = missing.flatten(1).sum(1) * math.log(sigma * math.sqrt(2 * math.pi))
    return exponents.logsumexp(1) - math.log(completions.shape[1]) - normaliser


def train(
    data: Data,
    *,
    out: str | Path | None = None,
    device: str | torch.device = "auto",
    seed: int | None = None,
    resume: bool = False,
    progress: bool = True,
    root: str | Path | None = None,
    threads: int | None = None,
    **settings: Any,
) -> Conditionals:
    """Train a generator that fills in any missing part of an image, against a discriminator.

    Args:
        data: see `pygan.data.load`.
        out: the folder; None makes runs/<data>-conditionals, and so on.
        device, seed, progress, root, threads: as in `pygan.train`.
        resume: continue from the last checkpoint in the folder; a finished one is returned. With `out`, seed and
            settings that are not passed stay as they were; those that are must be the same.
        **settings: fields of `ConditionalsSettings`: epochs (250), batch_size (50), learning_rate, noise_size,
            generator_hidden, discriminator_hidden, energy_score, precision, averaging.

    Raises:
        TypeError, ValueError: an unknown or impossible setting, a folder that holds something else.
        RuntimeError, pygan.health.NonFiniteError, KeyboardInterrupt: as in `pygan.train`.
    """
    keeping = Keeping(out=out, device=device, seed=seed, resume=resume, progress=progress, threads=threads)
    chosen = settings_from(ConditionalsSettings, settings, keeping.begun)
    with keeping.own_defaults():
        splits = pygan.data.load(data, root=root, seed=keeping.known_seed)

    def make(on: torch.device) -> _Learner:
        return _Learner(splits, chosen, keeping.known_seed, on)

    task, facts = "conditionals", fingerprint.describe(splits)
    learner, fit = learn(task, f"{splits.name}-{task}", make, chosen, facts, keeping)
    generator = learner.average.module.eval()
    assert isinstance(generator, Generator)
    return Conditionals(generator, splits.shape, chosen.noise_size, fit.history, fit.folder.path)


class _Learner(LearnerWithParts):
    """Both players on their way."""

    def __init__(self, splits: Splits, settings: ConditionalsSettings, seed: int, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.batches = Batches(splits.train, min(settings.batch_size, len(splits.train)), seed, device, Unit())
        channels, height, width = splits.shape
        inputs = settings.noise_size + 2 * math.prod(splits.shape)
        mean = as_float(splits.train.images[:_AT_ONCE]).mean(0)
        self.generator = Generator(splits.shape, inputs, settings.generator_hidden, mean_image=mean).to(device)
        judge = Discriminator((2 * channels, height, width), settings.discriminator_hidden)
        self.discriminator = judge.to(device)
        self.average = MovingAverage(self.generator, settings.averaging)
        self.players = (self.discriminator, self.generator)
        self.optimizers = [AdamSettings().make(player) for player in self.players]
        names = ("discriminator", "generator", "discriminator_optimizer", "generator_optimizer", "average")
        parts: dict[str, Part] = dict(zip(names, (*self.players, *self.optimizers, self.average), strict=True))
        cadence = Cadence(epochs=settings.epochs, updates_per_epoch=self.batches.per_epoch)
        super().__init__(parts, ("d_loss", "g_loss", "energy_score"), cadence)

    def update(self, number: int) -> None:
        """Both players move from one batch of completions, as in the released code of 2014.

        Of each image a second completion is made, for the energy score alone.
        """
        self.batches.position = number
        real = self.batches().images
        known = _draw_known(real)
        masks, twice = known.to(real.dtype), torch.cat([real, real])
        noise = draw_noise("uniform", len(twice), self.settings.noise_size, device=self.device)
        with autocast(self.settings.precision, self.device):
            made = self.generator(_inputs(noise, twice, torch.cat([known, known]))).float()
            fakes, others = torch.where(torch.cat([known, known]), twice, made).chunk(2)
            pairs = torch.cat([torch.cat([images, masks], 1) for images in (real, fakes)])
            real_logits, fake_logits = self.discriminator(pairs).float().chunk(2)
        losses = ops.discriminator_loss(real_logits, fake_logits), ops.generator_loss(fake_logits)
        score = energy_score(real, fakes, others)
        wanted = [list(trainable(player).values()) for player in self.players]
        g_loss = losses[1] + self.settings.energy_score * score
        gradients = [grad(losses[0], wanted[0], retain_graph=True), grad(g_loss, wanted[1])]
        rate = self.settings.rate(number, self.batches.per_epoch)
        for optimizer, of in zip(self.optimizers, gradients, strict=True):
            optimizer.step(of, rate, 0.0)
        self.average.update(self.generator)
        self.rows.append(torch.stack([*losses, score]).detach().double())


def energy_score(images: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the mean energy score of two completions of each image, a scalar, in the unit of the pixels.

    It is (|x - a| + |x - b| - |a - b|) / 2 for an image x and its completions a and b, all [n, C, H, W], where |.| is
    the Euclidean length. Its expectation is least if the completions are distributed as x is, given the known pixels
    (a strictly proper score: Gneiting and Raftery 2007, section 4.3). So completions differ as much as they should. A
    discriminator that sees one image at a time does not notice it if the noise is ignored.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().flatten(1).sum(1) + _LEAST_SQUARE).sqrt()

    return (distance(images, first) + distance(images, second) - distance(first, second)).mean() / 2


def _inputs(noise: Tensor, images: Tensor, known: Tensor) -> Tensor:
    """What the generator sees: noise, known pixels (0 elsewhere) and the mask, side by side: [n, size]."""
    return torch.cat([noise, torch.where(known, images, 0).flatten(1), known.flatten(1).to(images.dtype)], 1)


def _draw_known(images: Tensor) -> Tensor:
    """Draw what is known of each image, bool [n, C, H, W], the same in all channels.

    A third each: single pixels at a rate from U(0, 1); the inside of a rectangle with random corners; its outside.
    """
    (n, channels, height, width), device = images.shape, images.device
    pixels = torch.rand(n, height, width, device=device) < torch.rand(n, 1, 1, device=device)
    rows, columns = _between(n, height, device)[:, :, None], _between(n, width, device)[:, None, :]
    inside = rows & columns
    kind = torch.randint(3, (n, 1, 1), device=device)
    known = torch.where(kind == 0, pixels, torch.where(kind == 1, inside, ~inside))
    return known[:, None].expand(n, channels, height, width)


def _between(n: int, size: int, device: torch.device) -> Tensor:
    """Draw n intervals of 0..size - 1, as masks [n, size]. Half of their ends are ends of the whole."""
    inwards = (torch.rand(n, 2, device=device) * 2 - 1).clamp_min(0)
    ends = torch.stack([inwards[:, 0], 1 - inwards[:, 1]], 1).sort(1).values * size
    positions = torch.arange(size, device=device) + 0.5
    return (positions > ends[:, :1]) & (positions < ends[:, 1:])


def _expanded(known: Tensor, images: Tensor) -> Tensor:
    """Return the user's mask as bool [m, C, H, W] on the CPU."""
    if not isinstance(known, Tensor) or known.dtype != torch.bool:
        got = known.dtype if isinstance(known, Tensor) else type(known).__name__
        raise TypeError(f"known: must be a bool tensor, True where the image is given, got {got}")
    try:
        if known.ndim < 2 or known.shape[-2:] != images.shape[-2:]:
            raise RuntimeError
        return known.cpu().expand(images.shape)
    except RuntimeError:
        _, channels, height, width = images.shape
        raise ValueError(
            f"known: must have shape [{height}, {width}], [{channels}, {height}, {width}] or {list(images.shape)}, "
            f"got {list(known.shape)}"
        ) from None
