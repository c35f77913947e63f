"""A small convolutional classifier, trained here, that judges samples: classes, modes, distances between features.

    classifier = train_classifier(images, labels, name="mnist")     # half a minute of CPU time for MNIST
    classifier.accuracy(test_images, test_labels)
    classifier_distances(classifier, test_images, samples)          # {"mnist_classifier_frechet": ..., ...}

Its distances are not FID and KID, which are taken on the features of one published network, and they compare only with
distances by the very same classifier.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from pygan._session import own_defaults
from pygan.data.splits import as_float
from pygan.evaluate._pixels import check_pixels
from pygan.evaluate.distances import frechet_distance, kernel_distance
from pygan.progress import Task
from pygan.settings import check_seed, whole_number

__all__ = ["Classifier", "classifier_distances", "train_classifier"]

_CHUNK = 1000  # images that are classified at a time
_WIDTH, _FEATURES = 16, 128


class Classifier(nn.Module):
    """Two 3x3 convolutions with 2x2 max pooling, one hidden layer of 128 ReLU units, then a logit for each class.

    Args:
        shape: (C, H, W) of the images, H and W at least 4.
        classes: number of classes; labels are 0..classes - 1.
        name: of what it was trained on, such as "mnist"; it begins the names of `classifier_distances`.
    """

    def __init__(self, shape: Sequence[int], classes: int, name: str) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.classes, self.name = (channels, height, width), classes, name
        self.body = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * _WIDTH * (height // 4) * (width // 4), _FEATURES),
            nn.ReLU(),
        )
        self.output = nn.Linear(_FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W], float32 in [0, 1] -> logits [n, classes]."""
        return self.output(self.body(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the hidden layer, float32 [n, 128], for images [n, C, H, W], uint8 or float32 in [0, 1].

        As in `predict` and `accuracy`, images are taken to the classifier's device in pieces, the result is there, and
        images of another shape than the classifier's, or out of [0, 1], raise a ValueError.
        """
        return self._in_pieces(self.body, images)

    def predict(self, images: Tensor) -> Tensor:
        """Return the most likely class of each image, int64 [n]."""
        return self._in_pieces(self, images).argmax(1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the share of images whose most likely class is their label, int [n]: in [0, 1].

        Of samples that a conditional generator made for `labels`, it is the share that shows what was asked for.
        """
        if len(images) == 0:
            raise ValueError("accuracy: needs at least one image, got 0")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"accuracy: labels must have shape [{len(images)}], got {list(labels.shape)}")
        predicted = self.predict(images)
        return float((predicted == labels.to(predicted.device)).double().mean())

    @torch.no_grad()
    def _in_pieces(self, net: nn.Module, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1:] != self.shape:
            raise ValueError(f"classifier: images must have shape {['n', *self.shape]}, got {list(images.shape)}")
        check_pixels("classifier", "images", images)
        device = self.output.weight.device
        return torch.cat([net(as_float(piece.to(device))) for piece in images.split(_CHUNK)])

    def save(self, path: str | Path) -> None:
        """Write the classifier to one safetensors file, replaced as a whole."""
        from safetensors.torch import save_file

        path = Path(path)
        description = json.dumps({"shape": self.shape, "classes": self.classes, "name": self.name})
        part = path.with_name(path.name + ".part")
        save_file(self.state_dict(), part, {"pygan_classifier": description})
        os.replace(part, path)

    @classmethod
    @own_defaults(torch.device("cpu"))
    def load(cls, path: str | Path) -> Self:
        """Return the classifier that `save` wrote, on the CPU. Raises ValueError if the file holds anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                classifier = cls(**json.loads((file.metadata() or {})["pygan_classifier"]))
                classifier.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: expected a file written by Classifier.save, got: {error!r}") from error
        return classifier.eval()


@own_defaults(torch.device("cpu"))
def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    name: str = "own",
    classes: int | None = None,
    epochs: int = 3,
    batch_size: int = 100,
    learning_rate: float = 3e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Train a classifier by Adam with one cycle of the learning rate (Smith and Topin 2019).

    Everything random comes from `seed`: on the CPU, the same call with the same number of threads gives the same
    weights. torch's default generators are left as they were.

    Args:
        images: [N, C, H, W], uint8 or float32 in [0, 1]; H and W at least 4.
        labels: int64 [N] in 0..classes - 1.
        name: of the data, such as "mnist"; it is saved, and begins the names of `classifier_distances`.
        classes: number of classes; default: the largest label plus 1.
        epochs: passes over the images. Three give 99 % on MNIST; small or colour data need more.
        batch_size: images per step.
        learning_rate: its largest value.
        seed: of the weights at the start and of the order of the images.
        device: where it is trained, and stays.

    Raises:
        TypeError: images that are neither uint8 nor float32, or labels that are not integers.
        ValueError: wrong shapes, images or labels out of range, a setting that is not positive, or a learning rate at
            which the weights did not stay finite.
    """
    classes = _check_training(images, labels, classes)
    op = "train_classifier"
    epochs, batch_size = whole_number(f"{op}: epochs", epochs, 1), whole_number(f"{op}: batch_size", batch_size, 1)
    seed = check_seed(f"{op}: seed", seed)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"{op}: learning_rate must be greater than 0 and finite, got {learning_rate}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = Classifier(tuple(images.shape[1:]), classes, name).to(device)
    optimizer = torch.optim.Adam(classifier.parameters())
    steps = epochs * -(-len(images) // batch_size)
    # Two steps at least: the rate of the first would be that of the last, almost nothing.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(2, steps))
    with Task(f"training the classifier {name}", steps) as task:
        for rows in _batches(len(images), batch_size, epochs, seed):
            logits = classifier(as_float(images[rows].to(device)))
            loss = nn.functional.cross_entropy(logits, labels[rows].long().to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            task.advance()
    if not all(bool(weight.isfinite().all()) for weight in classifier.parameters()):
        raise ValueError(
            f"{op}: the weights are not finite after training; choose a learning_rate below {learning_rate}"
        )
    return classifier.eval()


def classifier_distances(classifier: Classifier, real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return the Frechet and the kernel distance between the classifier's features of real and fake images.

    Args:
        classifier: whose hidden layer gives the features.
        real, fake: images [n, C, H, W] and [m, C, H, W], uint8 or float32 in [0, 1]; at least 2 of each, and for the
            Frechet distance many more than the 128 features.

    Returns:
        "<name>_classifier_frechet" (see `frechet_distance`; its bias grows as 1 / n, so compare equal n) and
        "<name>_classifier_kernel" (see `kernel_distance`; unbiased), with the classifier's name. Lower is closer.
    """
    features = classifier.features(real), classifier.features(fake)
    return {
        f"{classifier.name}_classifier_frechet": frechet_distance(*features),
        f"{classifier.name}_classifier_kernel": kernel_distance(*features),
    }


def _batches(n: int, batch_size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(n, generator=generator).split(batch_size)


def _check_training(images: Tensor, labels: Tensor, classes: int | None) -> int:
    """Check the data; return the number of classes."""
    if images.ndim != 4 or len(images) == 0 or min(images.shape[2:]) < 4:
        raise ValueError(f"train_classifier: images must have shape [N, C, H >= 4, W >= 4], got {list(images.shape)}")
    check_pixels("train_classifier", "images", images)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"train_classifier: labels must have shape [{len(images)}], got {list(labels.shape)}")
    if labels.is_floating_point():
        raise TypeError(f"train_classifier: labels must be integers, got {labels.dtype}")
    least, most = int(labels.min()), int(labels.max())
    classes = most + 1 if classes is None else classes
    if least < 0 or most >= classes:
        raise ValueError(f"train_classifier: labels must be in 0..{classes - 1}, got {least}..{most}")
    return classes
