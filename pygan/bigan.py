"""BiGAN: a generator and its inverse, learned together (Donahue et al. 2017, arXiv 1605.09782; section 7.2 of 2014).

    model = pygan.bigan.train("mnist")
    z = model.encode(images)                   # [n, noise_size]
    model.generate(z)                          # images [n, C, H, W]

The discriminator judges pairs: an image with the noise that the encoder gives for it, or noise with the image that the
generator makes of it. If it cannot tell them apart, the encoder inverts the generator. The nets are those of section
4.1, fully connected, so that nothing depends on the order of the pixels; but in the discriminator dropout replaces
batch norm. `pygan.inference` is the other way: it learns an encoder afterwards, for a generator that is fixed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import grad

import pygan.data
from pygan import ops
from pygan.batches import Batches
from pygan.checkpoint import Part
from pygan.data import Data, Splits, as_float, fingerprint
from pygan.data.scaling import Unit
from pygan.evaluate._pixels import check_images
from pygan.fit import Cadence
from pygan.game import evaluating
from pygan.inference import encoder_layers
from pygan.learning import Keeping, LearnerSettings, LearnerWithParts, autocast, in_words, learn, settings_from
from pygan.noise import draw_noise
from pygan.ops._checks import check_shape, check_tensor
from pygan.optim import AdamSettings, MovingAverage, trainable
from pygan.settings import AT_LEAST_ONE, AT_LEAST_TWO, BELOW_ONE, POSITIVE, SIZES, setting

__all__ = ["Bigan", "BiganSettings", "train"]

_AT_ONCE = 1000  # images in one pass


@dataclass(frozen=True, kw_only=True)
class BiganSettings(LearnerSettings):
    """The settings of `train`; noise, rate and batch are those of Donahue et al. 2017 for MNIST."""

    epochs: int = setting(100, "passes over the training images", AT_LEAST_ONE)
    batch_size: int = setting(128, "images in one update, and as many samples", AT_LEAST_TWO)
    learning_rate: float = setting(2e-4, "Adam's; it falls linearly to 0 over the last half of the updates", POSITIVE)
    noise_size: int = setting(50, "numbers in one noise vector, each from U(-1, 1)", AT_LEAST_ONE)
    hidden: tuple[int, ...] = setting((512, 512), "units of the hidden layers of each of the three nets", SIZES)
    precision: Literal["float32", "bf16"] = setting("float32", "of the matrix products in training")
    averaging: float = setting(0.999, "decay an update of the averages of generator and encoder", BELOW_ONE)


@dataclass(eq=False)
class Bigan:
    """A generator and its learned inverse.

    Attributes:
        generator: maps noise [n, noise_size] to images; its weights are averages over the last updates.
        encoder: maps images to noise; averages too.
        shape: (C, H, W) of the images.
        noise_size: numbers in one noise vector.
        history: one dictionary for each epoch: "d_loss", and "ge_loss" of generator and encoder, in nats.
        path: its folder.
    """

    generator: nn.Module
    encoder: nn.Module
    shape: tuple[int, int, int]
    noise_size: int
    history: list[dict[str, Any]]
    path: Path

    def __repr__(self) -> str:
        return in_words(self, self.path, self.shape, self.history)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the noise [n, noise_size] of images [n, C, H, W], uint8 or float32 in [0, 1], on the CPU."""
        check_images("encode", "images", images, self.shape)
        return self._mapped(self.encoder, as_float(images))

    @torch.no_grad()
    def generate(self, noise: Tensor) -> Tensor:
        """Return the images [n, C, H, W] in [0, 1], on the CPU, of noise [n, noise_size]."""
        check_tensor("generate", "noise", noise)
        fits = noise.ndim == 2 and noise.shape[1] == self.noise_size
        check_shape("generate", "noise", noise, f"[n, {self.noise_size}]", fits)
        return self._mapped(self.generator, noise)

    def _mapped(self, net: nn.Module, inputs: Tensor) -> Tensor:
        device = next(net.parameters()).device
        with evaluating(net):
            return torch.cat([net(piece.to(device)).cpu() for piece in inputs.split(_AT_ONCE)])


class _PairDiscriminator(nn.Module):
    """Images and noise side by side -> a logit for each pair, by leaky ReLU layers with dropout, as D's of 2014."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers = [
            nn.Sequential(nn.Linear(*pair), nn.LeakyReLU(0.2), nn.Dropout(0.5)) for pair in pairwise([inputs, *hidden])
        ]
        self.layers = nn.Sequential(nn.Dropout(0.2), *layers, nn.Linear(hidden[-1], 1))

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat([images.flatten(1), noise], 1))
        return logits.squeeze(1)


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
) -> Bigan:
    """Train a generator and an encoder together, against a discriminator of pairs.

    The discriminator minimises -mean log D(x, E(x)) - mean log(1 - D(G(z), z)); generator and encoder minimise the same
    with the two kinds of pairs exchanged, which has stronger gradients than the negative loss (section 3.4 of their
    paper). All three move from the same batch.

    Args:
        data: see `pygan.data.load`.
        out: the folder; None makes runs/<data>-bigan, and so on.
        device, seed, progress, root, threads: as in `pygan.train`.
        resume: continue from the last checkpoint in the folder; a finished one is returned. With `out`, seed and
            settings that are not passed stay as they were; those that are must be the same.
        **settings: fields of `BiganSettings`: epochs (100), batch_size (128), learning_rate, noise_size (50), hidden,
            precision, averaging.

    Raises:
        TypeError, ValueError: an unknown or impossible setting, a folder that holds something else.
        RuntimeError, pygan.health.NonFiniteError, KeyboardInterrupt: as in `pygan.train`.
    """
    keeping = Keeping(out=out, device=device, seed=seed, resume=resume, progress=progress, threads=threads)
    chosen = settings_from(BiganSettings, settings, keeping.begun)
    with keeping.own_defaults():
        splits = pygan.data.load(data, root=root, seed=keeping.known_seed)
    if len(splits.train) < 2:
        raise ValueError("train: data must have at least 2 training images, since batch norm needs them, got 1")

    def make(on: torch.device) -> _Learner:
        return _Learner(splits, chosen, keeping.known_seed, on)

    learner, fit = learn("bigan", f"{splits.name}-bigan", make, chosen, fingerprint.describe(splits), keeping)
    pair = learner.average.module.eval()
    assert isinstance(pair, nn.ModuleList)
    generator, encoder = pair
    return Bigan(generator, encoder, splits.shape, chosen.noise_size, fit.history, fit.folder.path)


class _Learner(LearnerWithParts):
    """The three nets on their way."""

    def __init__(self, splits: Splits, settings: BiganSettings, seed: int, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.batches = Batches(splits.train, min(settings.batch_size, len(splits.train)), seed, device, Unit())
        numbers, size = math.prod(splits.shape), settings.noise_size
        self.generator = _generator(splits.shape, size, settings.hidden).to(device)
        self.encoder = encoder_layers([numbers, *settings.hidden, size]).to(device)
        self.discriminator = _PairDiscriminator(numbers + size, settings.hidden).to(device)
        pair = nn.ModuleList([self.generator, self.encoder])
        self.players = (self.discriminator, pair)
        self.optimizers = [AdamSettings().make(player) for player in self.players]
        self.average = MovingAverage(pair, settings.averaging)
        names = ("discriminator", "generator_and_encoder", "discriminator_optimizer", "generator_and_encoder_optimizer")
        parts: dict[str, Part] = dict(zip(names, (*self.players, *self.optimizers), strict=True))
        parts["average"] = self.average
        cadence = Cadence(epochs=settings.epochs, updates_per_epoch=self.batches.per_epoch)
        super().__init__(parts, ("d_loss", "ge_loss"), cadence)

    def update(self, number: int) -> None:
        self.batches.position = number
        real = self.batches().images
        noise = draw_noise("unit_uniform", len(real), self.settings.noise_size, device=self.device)
        with autocast(self.settings.precision, self.device):
            images = torch.cat([real, self.generator(noise).float()])
            codes = torch.cat([self.encoder(real).float(), noise])
            real_logits, fake_logits = self.discriminator(images, codes).float().chunk(2)
        losses = ops.discriminator_loss(real_logits, fake_logits), ops.discriminator_loss(fake_logits, real_logits)
        wanted = [list(trainable(player).values()) for player in self.players]
        gradients = [grad(losses[0], wanted[0], retain_graph=True), grad(losses[1], wanted[1])]
        rate = self.settings.rate(number, self.batches.per_epoch)
        for optimizer, of in zip(self.optimizers, gradients, strict=True):
            optimizer.step(of, rate, 0.0)
        self.average.update(self.players[1])
        self.rows.append(torch.stack(losses).detach().double())


def _generator(shape: Sequence[int], noise_size: int, hidden: Sequence[int]) -> nn.Sequential:
    """ReLU layers with batch norm, then a sigmoid for each number of the image."""
    layers = [
        nn.Sequential(nn.Linear(*pair, bias=False), nn.BatchNorm1d(pair[1]), nn.ReLU())
        for pair in pairwise([noise_size, *hidden])
    ]
    output = nn.Linear(hidden[-1], math.prod(shape))
    return nn.Sequential(*layers, output, nn.Sigmoid(), nn.Unflatten(1, tuple(shape)))
