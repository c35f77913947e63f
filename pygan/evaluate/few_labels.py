"""How good are features? A linear classifier on them, trained with few labels and with many.

    curves = few_label_curves(run)                         # of a run on data with labels
    curves["discriminator"][0].accuracy                    # with 10 labels for each class
    few_label_curve(features, labels, test_features, test_labels)      # of any features

The classifier is scikit-learn's linear L2-SVM, as in Radford et al. 2016 (arXiv 1511.06434, section 5).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pygan._session import forked_randomness, own_defaults
from pygan.data.splits import as_float
from pygan.ops._checks import check_dtype, check_finite, check_shape, check_tensor
from pygan.progress import Task
from pygan.settings import check_seed, value_of_type, whole_number

if TYPE_CHECKING:
    from pygan.data import Batch
    from pygan.run import Run

__all__ = ["FewLabels", "few_label_curve", "few_label_curves"]

_PENALTIES = (0.1, 1.0, 10.0)  # values of C that are tried
_USUAL = (10, 100, 1000)  # labels of each class
_FOR_PENALTY = 2000  # labelled points that they are tried on, at most


@dataclass(frozen=True)
class FewLabels:
    """The accuracy of a linear classifier with so many labels.

    Attributes:
        per_class: labels of each class.
        accuracy: share of the test points that are classified rightly, in [0, 1]; mean over the draws of labels.
        deviation: standard deviation over the draws; 0 for one draw.
    """

    per_class: int
    accuracy: float
    deviation: float


@own_defaults(torch.device("cpu"))
def few_label_curve(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    per_class: Sequence[int] | None = None,
    draws: int = 3,
    seed: int = 0,
) -> list[FewLabels]:
    """Return the test accuracy of a linear SVM for each number of labels.

    Each feature is standardised by the labelled points. The penalty C is that of .1, 1 and 10 which does best on
    one fifth of the labelled points after training on the others, of at most 2000 points in all, to spare time; then
    all labelled points train the classifier.

    Args:
        features: floats [n, F].
        labels: int64 [n].
        test_features: floats [m, F].
        test_labels: int64 [m].
        per_class: labels of each class, drawn at random; each at least 5, and no more than there are. None: those of
            10, 100 and 1000 that each class has.
        draws: of the labels, at least 1.
        seed: of the draws.

    Raises:
        TypeError: features that are not a tensor of floats.
        ValueError: wrong shapes, features that are not finite, or a number of labels or draws that cannot be.
    """
    op = "few_label_curve"
    draws, seed = whole_number(f"{op}: draws", draws, 1), check_seed(f"{op}: seed", seed)
    for name, points, given in (("features", features, labels), ("test_features", test_features, test_labels)):
        check_tensor(op, name, points)
        check_dtype(op, name, points)
        check_tensor(op, name.replace("features", "labels"), given)
        fits = points.ndim == 2 and given.ndim == 1 and len(points) == len(given) > 0
        check_shape(op, name, points, f"[n, F], n >= 1, with labels [n], here {list(given.shape)},", fits)
        check_finite(op, name, points)
    width = features.shape[1]
    check_shape(op, "test_features", test_features, f"[m, {width}]", test_features.shape[1] == width)
    features, test_features = _for_numpy(features), _for_numpy(test_features)
    labels, test_labels = labels.cpu(), test_labels.cpu()
    counts = _counts(op, per_class, labels)
    random = torch.Generator().manual_seed(seed)
    curve = []
    with Task("classifying with few labels", draws * len(counts)) as task:
        for count in counts:
            scores = []
            for _ in range(draws):
                drawn = _draw(labels, count, random)
                scores.append(_accuracy(features[drawn], labels[drawn], test_features, test_labels))
                task.advance()
            curve.append(FewLabels(count, statistics.fmean(scores), statistics.stdev(scores) if draws > 1 else 0.0))
    return curve


@own_defaults(torch.device("cpu"))
def few_label_curves(
    run: Run, per_class: Sequence[int] | None = None, draws: int = 3, seed: int = 0
) -> dict[str, list[FewLabels]]:
    """Return the curves of three kinds of features of a run's images, with the labels of its data.

    Args:
        run: on data with labels, trained with a model of the recipe's as the discriminator.
        per_class, draws, seed: see `few_label_curve`.

    Returns:
        "pixels"; "random weights", the features of the same discriminator before any training, by `seed`; and
        "discriminator", those of `run.features`.

    Raises:
        ValueError: no labels, or see `few_label_curve`.
    """
    op = "few_label_curves"
    train, test = run.splits.train, run.splits.test
    labels, test_labels = train.labels, test.labels
    if labels is None or test_labels is None:
        raise ValueError(f"{op}: the data of the run must have labels")
    draws, seed = whole_number(f"{op}: draws", draws, 1), check_seed(f"{op}: seed", seed)
    counts = _counts(op, per_class, labels)
    with forked_randomness(torch.device("cpu")):
        torch.manual_seed(seed)
        untrained = run.recipe.model.make_discriminator(run.shape, run.game.classes).eval()
    random = replace(run, game=replace(run.game, discriminator=untrained))
    kept = _draw(labels, draws * max(counts), torch.Generator().manual_seed(seed))  # enough for draws that differ

    def curve(of: Run | None) -> list[FewLabels]:
        points = [_points(of, batch) for batch in (train[kept], test)]
        return few_label_curve(points[0], labels[kept], points[1], test_labels, counts, draws, seed)

    return {"pixels": curve(None), "random weights": curve(random), "discriminator": curve(run)}


def _for_numpy(points: Tensor) -> Tensor:
    return points.detach().to("cpu", torch.promote_types(points.dtype, torch.float32))


def _counts(op: str, per_class: Sequence[int] | None, labels: Tensor) -> tuple[int, ...]:
    """Return the numbers of labels that are asked for, or the usual ones; each class must have so many points."""
    of_class = labels.unique(return_counts=True)[1]
    if len(of_class) < 2:
        raise ValueError(f"{op}: labels must have at least 2 classes, got {len(of_class)}")
    least = int(of_class.min())
    if per_class is None:
        per_class = [count for count in _USUAL if count <= least] or [least]
    counts: tuple[int, ...] = value_of_type(f"{op}: per_class", per_class, tuple[int, ...])
    for count in counts:
        if not 5 <= count <= least:
            raise ValueError(f"{op}: per_class must be in 5..{least}, the points of the smallest class, got {count}")
    return counts


def _points(run: Run | None, batch: Batch) -> Tensor:
    return as_float(batch.images).flatten(1) if run is None else run.features(batch.images)


def _draw(labels: Tensor, per_class: int, random: torch.Generator) -> Tensor:
    """Return the indices of at most so many points of each class, mixed: int64 [n]."""
    order = torch.randperm(len(labels), generator=random)
    drawn = [order[labels[order] == label][:per_class] for label in labels.unique()]
    together = torch.cat(drawn)
    return together[torch.randperm(len(together), generator=random)]


def _accuracy(points: Tensor, labels: Tensor, test_points: Tensor, test_labels: Tensor) -> float:
    """Return the accuracy on the test points of the SVM whose penalty does best on a fifth of the labelled ones."""
    from sklearn.svm import LinearSVC  # here, because importing scikit-learn takes a second

    deviation, mean = torch.std_mean(points, 0)
    constant = deviation <= 1e-5 * mean.abs().clamp_min(0.1)  # up to rounding, which must not become a feature
    scale = deviation.masked_fill(constant, torch.inf) * points.shape[1] ** 0.5  # a point has a norm of about 1
    seen, asked = ((x - mean).div(scale).numpy() for x in (points, test_points))
    known, wanted = labels.numpy(), test_labels.numpy()
    used = min(len(known), _FOR_PENALTY)
    held = used // 5

    def fitted(of: slice, penalty: float) -> LinearSVC:
        few = len(seen[of]) < seen.shape[1]  # then the dual problem is the smaller one
        return LinearSVC(C=penalty, dual=few, tol=1e-2, max_iter=10_000, random_state=0).fit(seen[of], known[of])

    def score(penalty: float) -> float:
        return fitted(slice(held, used), penalty).score(seen[:held], known[:held])

    return float(fitted(slice(None), max(_PENALTIES, key=score)).score(asked, wanted))
