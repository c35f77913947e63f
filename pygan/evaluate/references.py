"""What an estimate is to be read beside: the same estimate for the training data, and for k-means centroids."""

import warnings

import torch
from torch import Tensor

from pygan.evaluate.parzen import ParzenEstimate, ParzenWindow
from pygan.progress import Task
from pygan.settings import check_seed, random_generator, whole_number

__all__ = ["CAVEAT", "centroids", "reference_rows", "result_rows", "training_samples"]

CAVEAT = (
    "A Parzen-window estimate is neither the likelihood nor a measure of how samples look: on MNIST the training data "
    "itself scores lower than k-means centroids of it (Theis et al. 2015, arXiv 1511.01844)."
)
"""What has to be said beside every Parzen-window estimate, in one sentence."""


def reference_rows(
    train: Tensor, valid: Tensor, test: Tensor, *, n_samples: int = 10_000, seed: int = 0
) -> dict[str, ParzenEstimate]:
    """Return estimates for images that no model has made, in place of samples.

    Args:
        train, valid, test: [n, ...] floats. As for a model, sigma is chosen on `valid`, from the authors' grid.
        n_samples: how many training examples, drawn without replacement, and how many centroids stand for samples; as
            many as the model's samples, else the rows are not comparable. At most the training examples there are.
        seed: of the draw and of the centroids' start.

    Returns:
        "training data" and "k-means centroids" (scikit-learn's MiniBatchKMeans), each with its estimate in nats. Read
        them with CAVEAT.
    """
    rows = {
        "training data": training_samples(train, n_samples=n_samples, seed=seed),
        "k-means centroids": centroids(train, n_samples=n_samples, seed=seed),
    }
    return {name: ParzenWindow(samples).fit(valid).score(test) for name, samples in rows.items()}


def training_samples(train: Tensor, *, n_samples: int = 10_000, seed: int = 0) -> Tensor:
    """Return the training examples [n, d] that stand for samples in `reference_rows`. Args: see there."""
    order = torch.randperm(len(train), generator=random_generator("reference_rows: seed", seed))
    n_samples = whole_number("training_samples: n_samples", n_samples, 1)
    return train.flatten(1)[order[: min(n_samples, len(train))].to(train.device)]


def centroids(train: Tensor, *, n_samples: int = 10_000, seed: int = 0) -> Tensor:
    """Return the k-means centroids [n, d] that stand for samples in `reference_rows`. Args: see there."""
    from sklearn.cluster import MiniBatchKMeans

    count, seed = (
        min(whole_number("centroids: n_samples", n_samples, 1), len(train)),
        check_seed("reference_rows: seed", seed) % 2**32,
    )  # as much as it takes
    means = MiniBatchKMeans(count, init="random", n_init=1, batch_size=2 * count, max_iter=10, random_state=seed)
    with Task(f"k-means: {count:,} centroids of {len(train):,} images"):  # scikit-learn tells nothing on its way
        means.fit(train.flatten(1).cpu().numpy())
    return torch.as_tensor(means.cluster_centers_).to(train)


def result_rows(train: Tensor, valid: Tensor, judged: Tensor, *, refine: bool = False) -> dict[str, float]:
    """Return the mean log-likelihood of images in nats, as a run is judged, with other images in place of samples.

    Args:
        train: training images [n, ...], floats, as many as the model's samples, or all.
        valid, judged: [n, ...] floats; sigma is chosen on the first 1000 of `valid`.
        refine: whether sigma is also searched for between and beyond the values of the authors' grid.

    Returns:
        "training images", and "their mean": the mean image alone. Samples that are all alike score as the mean does.
        Good samples score more, about as much as the training images.
    """
    rows, scores = {"training images": train, "their mean": train.mean(0)[None]}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The grid is the run's; its edge is no news here.
        for name, samples in rows.items():
            window = ParzenWindow(samples).fit(valid[:1000], refine=refine)
            assert window.sigma is not None
            scores[name] = window.log_density(judged, window.sigma).double().mean().item()
    return scores
