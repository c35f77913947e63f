"""Learned inference (section 7.2 of the paper): a net that predicts the noise z from the image x.

    run = pygan.load("runs/mnist")
    encoder = pygan.inference.train(run)
    z = encoder(images)                        # [n, noise_size]
    z = encoder.refine(images, steps=100)      # gradient steps on z, from there
    encoder.reconstruction_error(images, z)    # mean of (G(z) - x)^2

The generator is fixed. The net sees its samples G(z) and is to give z, which is the sleep phase of wake-sleep and what
Donahue et al. 2017 (arXiv 1605.09782) call the latent regressor. It also sees the training images, whose predicted
noise is to give them back through the generator, as in an autoencoder with a fixed decoder (`reconstruction`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import grad

from pygan.batches import Batches
from pygan.checkpoint import digest, state_of
from pygan.data import Batch, as_float
from pygan.evaluate._pixels import check_images
from pygan.fit import Cadence
from pygan.game import Game, evaluating
from pygan.learning import Keeping, LearnerSettings, LearnerWithParts, autocast, learn, settings_from
from pygan.noise import clamp_noise
from pygan.ops._checks import check_shape
from pygan.optim import Adam, AdamSettings, trainable
from pygan.progress import Task
from pygan.run import Run
from pygan.settings import AT_LEAST_ONE, AT_LEAST_TWO, NOT_NEGATIVE, SIZES, setting, whole_number

__all__ = ["Encoder", "InferenceSettings", "train"]

_AT_ONCE = 1000  # images in one pass


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(LearnerSettings):
    """The settings of `train`."""

    epochs: int = setting(40, "times updates_per_epoch, whatever the size of the data set", AT_LEAST_ONE)
    updates_per_epoch: int = setting(500, "updates that are called an epoch", AT_LEAST_ONE)
    batch_size: int = setting(100, "samples in one update", AT_LEAST_TWO)
    hidden: tuple[int, ...] = setting((1024, 1024), "units of the hidden layers", SIZES)
    input_noise: float = setting(
        0.6, "standard deviation of the normal noise on the samples and images that it learns from", NOT_NEGATIVE
    )
    reconstruction: float = setting(
        5.0,
        "weight of the mean squared difference between training images, in the run's pixel scale, and what the "
        "generator makes of their noise; 0: samples alone",
        NOT_NEGATIVE,
    )
    precision: Literal["float32", "bf16"] = setting("float32", "of the encoder's matrix products in training")


class Encoder(nn.Module):
    """Predicts the noise from which a generator makes an image: leaky ReLU layers with batch norm, then a linear one.

    Args:
        game: whose generator it inverts.
        hidden: units of each hidden layer.

    Attributes:
        history: one dictionary for each epoch of its training.
        path: the folder in which it is kept; None before the training.
    """

    def __init__(self, game: Game, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [game.shape[0] * game.shape[1] * game.shape[2], *hidden]
        self.layers = encoder_layers([*sizes, game.noise_size])
        self._game = [game]  # in a list, because the players are no part of this module
        self.history: list[dict[str, Any]] = []
        self.path: Path | None = None

    @property
    def game(self) -> Game:
        """The game whose generator it inverts."""
        return self._game[0]

    def forward(self, images: Tensor) -> Tensor:
        """Return the noise [n, noise_size] that is predicted for images [n, C, H, W], uint8 or float32 in [0, 1].

        In training mode the batch norm is that of these images; `train` returns the encoder in eval mode.
        """
        return self.predict(self.game.scale.apply(as_float(images)))

    def predict(self, values: Tensor) -> Tensor:
        """Return the same for images in the pixel scale of the game."""
        noise: Tensor = self.layers(values)
        return noise

    def encode(self, images: Tensor) -> Tensor:
        """Return the noise of many images, in pieces, without a graph: as `forward`, but on the CPU."""
        check_images("encode", "images", images, self.game.shape)
        return self._encode(images)

    def _encode(self, images: Tensor) -> Tensor:
        device = next(self.parameters()).device
        with evaluating(self), torch.no_grad():
            return torch.cat([self(piece.to(device)).cpu() for piece in images.split(_AT_ONCE)])

    def refine(self, images: Tensor, steps: int = 100, learning_rate: float = 0.05) -> Tensor:
        """Return noise [n, noise_size], on the CPU: gradient steps on z, from the prediction towards the images.

        Each step is one of Adam on the squared difference between G(z) and the image; z stays within what the noise's
        distribution can give. Of each image the best z on the way is kept, so that no step makes it worse.

        Args:
            images: [n, C, H, W], uint8 or float32 in [0, 1].
            steps: at least 0.
            learning_rate: Adam's.
        """
        check_images("refine", "images", images, self.game.shape)
        steps = whole_number("refine: steps", steps, 0)
        with Task("refining noise", (steps + 1) * len(images)) as task:
            return torch.cat([self._refine(piece, steps, learning_rate, task) for piece in images.split(_AT_ONCE)])

    def _refine(self, images: Tensor, steps: int, learning_rate: float, task: Task) -> Tensor:
        game, device = self.game, next(self.parameters()).device
        target = game.scale.apply(as_float(images.to(device)))
        start = clamp_noise(game.noise, self._encode(images).to(device))
        noise, best = nn.Parameter(start), start.clone()
        least = torch.full((len(images),), torch.inf, device=device)
        optimizer = torch.optim.Adam([noise], lr=learning_rate)
        with evaluating(game.generator), torch.enable_grad():
            for step in range(steps + 1):
                errors = (game.generate(noise) - target).square().flatten(1).mean(1)
                better = errors.detach() < least
                least = torch.where(better, errors.detach(), least)
                best = torch.where(better[:, None], noise.detach(), best)
                task.advance(len(images))
                if step < steps:
                    (noise.grad,) = grad(errors.sum(), [noise])
                    optimizer.step()
                    noise.data = clamp_noise(game.noise, noise.data)
        return best.cpu()

    @torch.no_grad()
    def reconstruct(self, noise: Tensor) -> Tensor:
        """Return the images [n, C, H, W] in [0, 1], on the CPU, that the generator makes of noise [n, noise_size]."""
        device = next(self.parameters()).device
        with evaluating(self.game.generator):
            pieces = [self.game.generate(piece.to(device)).float() for piece in noise.split(_AT_ONCE)]
        return self.game.scale.invert(torch.cat(pieces)).cpu()

    def reconstruction_error(self, images: Tensor, noise: Tensor | None = None) -> float:
        """Return the mean squared difference between images and what the generator makes of their noise, per pixel.

        Args:
            images: [n, C, H, W], uint8 or float32 in [0, 1].
            noise: [n, noise_size]; None is the prediction.
        """
        op = "reconstruction_error"
        check_images(op, "images", images, self.game.shape)
        check_shape(op, "images", images, "[n >= 1, ...]", len(images) > 0)
        if noise is None:
            noise = clamp_noise(self.game.noise, self._encode(images))
        expected = [len(images), self.game.noise_size]
        check_shape(op, "noise", noise, str(expected), list(noise.shape) == expected)
        return float((self.reconstruct(noise) - as_float(images.cpu())).square().double().mean())


def encoder_layers(sizes: Sequence[int]) -> nn.Sequential:
    """Return leaky ReLU layers with batch norm and a linear one: images -> vectors [n, sizes[-1]].

    `sizes` are the numbers of an image, the units of each hidden layer, and the numbers of a vector.
    """
    hidden = [
        nn.Sequential(nn.Linear(*pair, bias=False), nn.BatchNorm1d(pair[1]), nn.LeakyReLU(0.2))
        for pair in pairwise(sizes[:-1])
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-2], sizes[-1]))


def train(
    run: Run,
    *,
    out: str | Path | None = None,
    device: str | torch.device = "auto",
    seed: int | None = None,
    resume: bool = False,
    progress: bool = True,
    threads: int | None = None,
    **settings: Any,
) -> Encoder:
    """Train an encoder for the generator of a run, which stays as it is.

    The loss is the mean squared difference between z and what is predicted from G(z), `z_error` in the history, and
    `reconstruction` times that between training images x and G of what is predicted from x, `pixel_error`.

    Args:
        run: a finished run, not conditional; its data are read, unless `reconstruction` is 0. Its generator is moved to
            the device.
        out: the folder; None makes runs/<data>-inference, and so on.
        device, seed, progress, threads: as in `pygan.train`.
        resume: continue from the last checkpoint in the folder; a finished one is returned. With `out`, seed and
            settings that are not passed stay as they were; those that are must be the same.
        **settings: fields of `InferenceSettings`: epochs (40), updates_per_epoch (500), batch_size, learning_rate,
            hidden, input_noise (.6), reconstruction (5), precision.

    Raises:
        TypeError, ValueError: an unknown or impossible setting, a conditional run, a folder that holds something else
            or an encoder for another generator.
        RuntimeError: as `pygan.train`, and if the run's data were only in memory (see `Run.splits`).
        pygan.health.NonFiniteError, KeyboardInterrupt: as in `pygan.train`.
    """
    keeping = Keeping(out=out, device=device, seed=seed, resume=resume, progress=progress, threads=threads)
    chosen = settings_from(InferenceSettings, settings, keeping.begun)
    if not isinstance(run, Run):
        raise TypeError(f"train: run must be a pygan.Run, got {type(run).__name__}; pygan.load returns one")
    if run.game.classes:
        raise ValueError("train: run must not be conditional: its samples depend on labels too")
    weights = {name: tensor.cpu().contiguous() for name, tensor in state_of({"generator": run.generator}).items()}
    facts = {"generator": digest(weights, "")}
    images = run.splits.train if chosen.reconstruction > 0 else None

    def make(on: torch.device) -> _Learner:
        return _Learner(run.game, images, chosen, keeping.known_seed, on)

    learner, fit = learn("inference", f"{run.data['name']}-inference", make, chosen, facts, keeping)
    encoder = learner.encoder.eval()
    encoder.history, encoder.path = fit.history, fit.folder.path
    return encoder


class _Learner(LearnerWithParts):
    """An encoder on its way."""

    def __init__(
        self, game: Game, images: Batch | None, settings: InferenceSettings, seed: int, device: torch.device
    ) -> None:
        self.game, self.settings, self.device = game, settings, device
        game.generator.to(device)
        self.encoder = Encoder(game, settings.hidden).to(device)
        self.optimizer: Adam = AdamSettings(adam_beta1=0.9).make(self.encoder)
        self.batches: Batches | None = None
        if images is not None:
            self.batches = Batches(images, min(settings.batch_size, len(images)), seed, device, game.scale)
        statistics = ("z_error",) if images is None else ("z_error", "pixel_error")
        cadence = Cadence(epochs=settings.epochs, updates_per_epoch=settings.updates_per_epoch)
        super().__init__({"encoder": self.encoder, "optimizer": self.optimizer}, statistics, cadence)

    def update(self, number: int) -> None:
        with evaluating(self.game.generator):
            errors = [self._z_error()]
            loss = errors[0]
            if self.batches is not None:
                self.batches.position = number
                errors.append(self._pixel_error(self.batches().images))
                loss = loss + self.settings.reconstruction * errors[1]
            gradients = grad(loss, list(trainable(self.encoder).values()))
        self.optimizer.step(gradients, self.settings.rate(number, self.settings.updates_per_epoch), 0.0)
        self.rows.append(torch.stack(errors).detach().double())

    def _z_error(self) -> Tensor:
        noise = self.game.draw_noise(self.settings.batch_size, device=self.device)
        with torch.no_grad():
            values = self.game.generate(noise)
        with autocast(self.settings.precision, self.device):
            return (self._predict(values) - noise).square().mean()

    def _pixel_error(self, values: Tensor) -> Tensor:
        with autocast(self.settings.precision, self.device):
            return (self.game.generate(self._predict(values)) - values).square().mean()

    def _predict(self, values: Tensor) -> Tensor:
        noisy = torch.add(values, torch.randn_like(values), alpha=self.settings.input_noise)
        return self.encoder.predict(noisy).float()
