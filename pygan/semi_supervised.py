"""Classifying with few labels (section 7.4 of the paper): the discriminator also says which class an image is of.

The method is that of Salimans et al. 2016 (arXiv 1606.03498, sections 3.1 and 5): K logits l, one for each class, and
one more, fixed at 0, for generated images. So D(x) = sum exp(l) / (sum exp(l) + 1) is the sigmoid of logsumexp(l). The
discriminator minimises the cross entropy of the labelled images, and half the usual sum of the two logistic losses.
The generator matches the mean of the discriminator's last hidden layer.

    model = pygan.semi_supervised.train("mnist", labels_per_class=10)
    model.error                    # share of the test images that are classified wrongly
    model.predict(images)          # labels, int64 [n]
    pygan.semi_supervised.repeat("mnist", draws=3, labels_per_class=10)     # the error over three draws of labels

The update differs from the published one. To spare time, both players move from one batch of samples, as in the
released code of the 2014 paper, and an update sees 25 labelled images by default. The generator's rate is five times as
high: at the published rate the generator is far behind for the first thousands of updates, and as long as its samples
are easily told from the data, they hardly help to classify.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.functional import cross_entropy, linear

import pygan.data
from pygan import ops
from pygan._session import forked_randomness
from pygan.batches import Batches
from pygan.checkpoint import Part
from pygan.data import Batch, Data, Splits, as_float, fingerprint
from pygan.data.scaling import Unit
from pygan.evaluate._pixels import check_images
from pygan.fit import Cadence
from pygan.game import evaluating
from pygan.learning import Keeping, LearnerSettings, LearnerWithParts, autocast, learn, settings_from
from pygan.noise import draw_noise
from pygan.optim import AdamSettings, MovingAverage, trainable
from pygan.settings import AT_LEAST_ONE, AT_LEAST_TWO, NOT_NEGATIVE, POSITIVE, SIZES, check_seed, setting, whole_number

__all__ = [
    "ClassDiscriminator",
    "DrawsOfLabels",
    "Generator",
    "SemiSupervised",
    "SemiSupervisedSettings",
    "repeat",
    "train",
]

_NOISE_SIZE = 100
_AT_ONCE = 1000  # images that are classified at a time
_START = 500  # images on which the discriminator's layers are normalised at the start
_MEAN_SOFTPLUS = 0.8  # of a standard normal number
_DARKEST = 0.0005  # and brightest: what the samples of a pixel may start at
_AVERAGING = 0.9999  # of the discriminator's weights; the average classifies


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedSettings(LearnerSettings):
    """The settings of `train`.

    The defaults are those of Salimans et al. 2016 for MNIST, but for the length, `generator_learning_rate` (five times
    the published rate) and `labelled_batch`.
    """

    learning_rate: float = setting(3e-3, "Adam's; it falls linearly to 0 over the last half of the updates", POSITIVE)
    batch_size: int = setting(100, "images without labels in one update", AT_LEAST_TWO)
    generator_learning_rate: float = setting(0.015, "the same for the generator", POSITIVE)
    hidden: tuple[int, ...] = setting((1000, 500, 250, 250, 250), "units of the discriminator's ReLU layers", SIZES)
    generator_hidden: tuple[int, ...] = setting((500, 500), "units of the generator's softplus layers", SIZES)
    input_noise: float = setting(0.3, "standard deviation of the normal noise on the images", NOT_NEGATIVE)
    hidden_noise: float = setting(0.5, "standard deviation of the normal noise on every hidden layer", NOT_NEGATIVE)
    labelled_batch: int = setting(25, "labelled images in one update", AT_LEAST_ONE)
    supervised_only: bool = setting(False, "learn from the labelled images alone: the net to compare with")
    precision: Literal["float32", "bf16"] = setting("float32", "of the matrix products in training")


class NormalisedLinear(nn.Linear):
    """A linear layer whose weight rows have length `gain`, which is learned apart (Salimans and Kingma 2016).

    Args:
        inputs, outputs: sizes.
        learn_gain: whether the gain is learned; else it stays 1.
    """

    def __init__(self, inputs: int, outputs: int, learn_gain: bool = True) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=0.05)
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.ones(outputs), requires_grad=learn_gain)

    def forward(self, input: Tensor) -> Tensor:
        """Values [n, inputs] -> [n, outputs]."""
        return linear(input, torch._weight_norm(self.weight, self.gain[:, None]), self.bias)


class ClassDiscriminator(nn.Module):
    """ReLU layers with weight normalisation, and in training normal noise before each of them -> K logits.

    Args:
        shape: (C, H, W) of the images.
        classes: K.
        hidden: units of each ReLU layer.
        input_noise, hidden_noise: standard deviations of the noise.
    """

    def __init__(
        self, shape: Sequence[int], classes: int, hidden: Sequence[int], input_noise: float, hidden_noise: float
    ) -> None:
        super().__init__()
        self.shape, self.input_noise, self.hidden_noise = tuple(shape), input_noise, hidden_noise
        sizes = pairwise([math.prod(shape), *hidden])
        self.hidden = nn.ModuleList(NormalisedLinear(*pair, learn_gain=False) for pair in sizes)
        self.output = NormalisedLinear(hidden[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] in [0, 1] -> the last hidden layer [n, units]."""
        x, noise = images.flatten(1), self.input_noise
        for layer in self.hidden:
            x, noise = layer(self._with_noise(x, noise)).relu(), self.hidden_noise
        return x

    def logits(self, features: Tensor) -> Tensor:
        """The last hidden layer [n, units] -> logits [n, classes]."""
        return self.output(self._with_noise(features, self.hidden_noise))

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] in [0, 1] -> logits [n, classes]."""
        return self.logits(self.features(images))

    @torch.no_grad()
    def normalise(self, images: Tensor) -> None:
        """Set gains and biases so that each layer's outputs on these images have mean 0 and variance 1."""
        x, noise = images.flatten(1), self.input_noise
        for layer in [*self.hidden, self.output]:
            assert isinstance(layer, NormalisedLinear)
            x, noise = self._with_noise(x, noise), self.hidden_noise
            deviation, mean = torch.std_mean(layer(x), 0)
            layer.gain.div_(deviation + 1e-6)
            layer.bias.copy_(-mean / (deviation + 1e-6))
            x = layer(x).relu()

    def _with_noise(self, x: Tensor, deviation: float) -> Tensor:
        return torch.add(x, torch.randn_like(x), alpha=deviation) if self.training else x


class Generator(nn.Module):
    """Softplus layers with batch norm, then a sigmoid for each number of the image from weight rows of length 1.

    Args:
        shape: (C, H, W) of the images.
        hidden: units of each softplus layer.
        mean_image: [C, H, W] in [0, 1]; the samples start near it.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], mean_image: Tensor) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(*pair, bias=False), nn.BatchNorm1d(pair[1]), nn.Softplus())
                for pair in pairwise([_NOISE_SIZE, *hidden])
            )
        )
        self.output = NormalisedLinear(hidden[-1], math.prod(shape))
        self.shape = tuple(shape)
        with torch.no_grad():
            usual = self.output(torch.full((1, hidden[-1]), _MEAN_SOFTPLUS))[0]
            self.output.bias.copy_(mean_image.flatten().clamp(_DARKEST, 1 - _DARKEST).logit() - usual)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise [n, 100] from U(-1, 1) -> images [n, C, H, W] in [0, 1]."""
        return self.output(self.hidden(noise)).sigmoid().unflatten(1, self.shape)


@dataclass(eq=False)
class SemiSupervised:
    """A classifier that was trained with few labels.

    Attributes:
        discriminator: classifies; its weights are averages over the training.
        generator: its opponent, or None if only labelled images were used.
        error: share of the test images that are classified wrongly, in [0, 1].
        labelled: indices into the training split of the images whose labels were used, int64 [n].
        history: one dictionary for each epoch; "valid_error" is the error on the validation split.
        path: its folder.
    """

    discriminator: ClassDiscriminator
    generator: Generator | None
    error: float
    labelled: Tensor
    history: list[dict[str, Any]]
    path: Path

    def __repr__(self) -> str:
        return f"SemiSupervised({str(self.path)!r}: {len(self.labelled)} labels, error {self.error:.2%})"

    def predict(self, images: Tensor) -> Tensor:
        """Return the most likely class of each image, int64 [n] on the discriminator's device.

        Args:
            images: [n, C, H, W], uint8 or float32 in [0, 1].
        """
        check_images("predict", "images", images, self.discriminator.shape)
        return _predict(self.discriminator, images)


class DrawsOfLabels(NamedTuple):
    """The errors over several draws of labels.

    Attributes:
        mean: of the errors, in [0, 1].
        deviation: their standard deviation, which is how much one draw differs from another; NaN for one draw.
        errors: of each draw, on the same test images.
    """

    mean: float
    deviation: float
    errors: tuple[float, ...]


def train(
    data: Data,
    labels_per_class: int = 10,
    *,
    out: str | Path | None = None,
    device: str | torch.device = "auto",
    seed: int | None = None,
    resume: bool = False,
    progress: bool = True,
    root: str | Path | None = None,
    threads: int | None = None,
    **settings: Any,
) -> SemiSupervised:
    """Train a classifier from a few labelled images and all images of the training split without their labels.

    The test split is used once, at the end. The validation split is only looked at.

    Args:
        data: with labels; see `pygan.data.load`.
        labels_per_class: labelled images of each class, drawn at random by `seed`.
        out: the folder; None makes runs/<data>-semi_supervised, and so on.
        device, progress, root, threads: as in `pygan.train`.
        seed: of the draw of labels, the weights and everything else that is random.
        resume: continue from the last checkpoint in the folder; a finished one is returned. With `out`, seed and
            settings that are not passed stay as they were; those that are must be the same.
        **settings: fields of `SemiSupervisedSettings`: epochs (30), batch_size, learning_rate, hidden,
            generator_hidden, input_noise, hidden_noise, labelled_batch, supervised_only, precision.

    Raises:
        TypeError, ValueError: an unknown or impossible setting, data without labels, a class with too few images, a
            folder that holds something else.
        RuntimeError, pygan.health.NonFiniteError, KeyboardInterrupt: as in `pygan.train`.
    """
    keeping = Keeping(out=out, device=device, seed=seed, resume=resume, progress=progress, threads=threads)
    chosen = settings_from(SemiSupervisedSettings, settings, keeping.begun)
    labels_per_class = whole_number("train: labels_per_class", labels_per_class, 1)
    with keeping.own_defaults():
        splits = pygan.data.load(data, root=root, seed=0)  # always the same test images, whatever the draw of labels
    labelled = _draw_labels(splits, labels_per_class, keeping.known_seed)
    _require_labels(splits.valid, "valid")
    _require_labels(splits.test, "test")
    facts = fingerprint.describe(splits, labelled=True) | {"labels_per_class": labels_per_class}
    task, name = "semi_supervised", f"{splits.name}-semi_supervised"

    def make(on: torch.device) -> _Learner:
        return _Learner(splits, labelled, chosen, keeping.known_seed, on)

    learner, fit = learn(task, name, make, chosen, facts, keeping)
    net = learner.average.module.eval()
    assert isinstance(net, ClassDiscriminator)
    generator = None if chosen.supervised_only else learner.generator.eval()
    error = _error(net, splits.test)
    return SemiSupervised(net, generator, error, labelled, fit.history, fit.folder.path)


def repeat(
    data: Data,
    draws: int = 3,
    labels_per_class: int = 10,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    **arguments: Any,
) -> DrawsOfLabels:
    """Return the errors of `train` over several draws of labels, with the seeds seed, seed + 1, ...

    Args:
        data, labels_per_class, seed: as in `train`.
        draws: at least 1.
        out: a folder for all of them: draw number i is kept in out/<seed + i>.
        **arguments: other arguments and settings of `train`.
    """
    draws, seed = whole_number("repeat: draws", draws, 1), check_seed("repeat: seed", seed)
    if arguments.get("resume") and out is None:
        raise ValueError("repeat: resume=True needs out=, the folder of all draws")
    errors = tuple(
        train(
            data,
            labels_per_class,
            out=None if out is None else Path(out) / str(seed + draw),
            seed=seed + draw,
            **arguments,
        ).error
        for draw in range(draws)
    )
    return DrawsOfLabels(statistics.fmean(errors), statistics.stdev(errors) if draws > 1 else math.nan, errors)


class _Learner(LearnerWithParts):
    """Both players on their way."""

    rates = ("learning_rate", "generator_learning_rate")

    def __init__(
        self, splits: Splits, labelled: Tensor, settings: SemiSupervisedSettings, seed: int, device: torch.device
    ) -> None:
        self.settings, self.device, self.splits = settings, device, splits
        self.batches = Batches(splits.train, min(settings.batch_size, len(splits.train)), seed, device, Unit())
        self.labelled = splits.train[labelled].to(device)
        net = ClassDiscriminator(
            splits.shape, splits.class_count(), settings.hidden, settings.input_noise, settings.hidden_noise
        )
        self.discriminator = net.to(device)
        first = self.labelled.images if settings.supervised_only else splits.train.images[:_START]
        net.normalise(as_float(first.to(device)))
        mean = as_float(splits.train.images[:_AT_ONCE]).mean(0)
        self.generator = Generator(splits.shape, settings.generator_hidden, mean).to(device)
        self.average = MovingAverage(net, _AVERAGING)
        self.optimizers = [AdamSettings().make(player) for player in (self.discriminator, self.generator)]
        parts: dict[str, Part] = {"discriminator": net, "generator": self.generator, "average": self.average}
        parts |= dict(zip(("discriminator_optimizer", "generator_optimizer"), self.optimizers, strict=True))
        names = ("supervised_loss",) if settings.supervised_only else ("supervised_loss", "d_loss", "g_loss")
        per_epoch = self.batches.per_epoch
        super().__init__(parts, names, Cadence(epochs=settings.epochs, updates_per_epoch=per_epoch))

    def update(self, number: int) -> None:
        share = self.settings.rate(number, self.batches.per_epoch) / self.settings.learning_rate
        rates = share * self.settings.learning_rate, share * self.settings.generator_learning_rate
        known = self.labelled[torch.randint(len(self.labelled), (self.settings.labelled_batch,), device=self.device)]
        if self.settings.supervised_only:
            with autocast(self.settings.precision, self.device):
                logits = self.discriminator(as_float(known.images))
            losses = [cross_entropy(logits.float(), _labels(known))]
            self.optimizers[0].step(grad(losses[0], list(trainable(self.discriminator).values())), rates[0], 0.0)
        else:
            losses = self._play(known, number, rates)
        self.average.update(self.discriminator)
        self.rows.append(torch.stack(losses).detach().double())

    def _play(self, known: Batch, number: int, rates: tuple[float, float]) -> list[Tensor]:
        """One update of both players, from the same samples; return the losses."""
        self.batches.position = number
        real = self.batches().images
        with autocast(self.settings.precision, self.device):
            noise = draw_noise("unit_uniform", len(real), _NOISE_SIZE, device=self.device)
            images = torch.cat([as_float(known.images), real, self.generator(noise)])
            features = self.discriminator.features(images)
            logits = self.discriminator.logits(features).float()
        sizes = [len(known), len(real), len(noise)]
        _, real_features, fake_features = features.float().split(sizes)
        known_logits, real_logits, fake_logits = logits.split(sizes)
        supervised = cross_entropy(known_logits, _labels(known))
        d_loss = ops.discriminator_loss(real_logits.logsumexp(1), fake_logits.logsumexp(1)) / 2
        g_loss = (real_features.detach().mean(0) - fake_features.mean(0)).square().mean()
        nets = [list(trainable(player).values()) for player in (self.discriminator, self.generator)]
        d_gradients = grad(supervised + d_loss, nets[0], retain_graph=True)
        g_gradients = grad(g_loss, nets[1])
        for optimizer, gradients, rate in zip(self.optimizers, (d_gradients, g_gradients), rates, strict=True):
            optimizer.step(gradients, rate, 0.0)
        return [supervised, d_loss, g_loss]

    def end_epoch(self, epoch: int, last: bool) -> dict[str, Any]:
        with forked_randomness(self.device):
            net = self.average.module
            assert isinstance(net, ClassDiscriminator)
            return {"valid_error": _error(net, self.splits.valid)}


def _labels(batch: Batch) -> Tensor:
    assert batch.labels is not None
    return batch.labels


def _draw_labels(splits: Splits, per_class: int, seed: int) -> Tensor:
    """Return the indices of so many training images of each class, drawn by the seed: int64 [classes * per_class]."""
    if splits.classes is None or splits.train.labels is None:
        raise ValueError(f"train: data must have labels, and {splits.name!r} has none; pass a pair (images, labels)")
    if len(splits.classes) < 2:
        raise ValueError("train: data must have at least 2 classes, got 1: there is nothing to tell apart")
    random = torch.Generator().manual_seed(seed)
    drawn = []
    for label, name in enumerate(splits.classes):
        of_class = torch.nonzero(splits.train.labels == label).flatten()
        if len(of_class) < per_class:
            raise ValueError(
                f"train: labels_per_class must be at most {len(of_class)}, the number of training images of class "
                f"{name!r}, got {per_class}"
            )
        drawn.append(of_class[torch.randperm(len(of_class), generator=random)[:per_class]])
    return torch.cat(drawn)


@torch.no_grad()
def _predict(net: ClassDiscriminator, images: Tensor) -> Tensor:
    device = net.output.weight.device
    with evaluating(net):
        return torch.cat([net(as_float(piece.to(device))).argmax(1) for piece in images.split(_AT_ONCE)])


def _require_labels(batch: Batch, split: str) -> None:
    if batch.labels is None:
        raise ValueError(f"train: the {split} split must have labels, of the classes of the training split")


def _error(net: ClassDiscriminator, batch: Batch) -> float:
    return float((_predict(net, batch.images).cpu() != _labels(batch)).double().mean())
