"""What an estimate is to be read beside: the same estimate for the training data, and for k-means centroids."""

import warnings

import torch
from torch import Tensor

from pygan.evaluate.parzen import ParzenEstimate, ParzenWindow

__all__ = ["CAVEAT", "centroids", "reference_rows", "result_rows", "training_data_row", "training_samples"]

CAVEAT = (
    "A Parzen-window estimate is neither the likelihood nor a measure of how samples look: on MNIST the training data "
    "itself scores lower than k-means centroids of it (Theis et al. 2015, arXiv 1511.01844)."
)


def reference_rows(
    train: Tensor, valid: Tensor, test: Tensor, *, n_samples: int = 10_000, seed: int = 0
) -> dict[str, ParzenEstimate]:
    """Estimates for samples that no model has made.

    Args:
        train, valid, test: [n, ...] floats. As for a model, sigma is chosen on `valid`, from the authors' grid.
        n_samples: how many training examples, drawn without replacement, and how many centroids stand for samples; as
            many as the model's samples, else the rows do not compare. At most the training examples there are.
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
    return _drawn(train, min(n_samples, len(train)), seed)


def centroids(train: Tensor, *, n_samples: int = 10_000, seed: int = 0) -> Tensor:
    """Return the k-means centroids [n, d] that stand for samples in `reference_rows`. Args: see there."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(n_samples, len(train))
    means = MiniBatchKMeans(count, init="random", n_init=1, batch_size=2 * count, max_iter=10, random_state=seed)
    return torch.as_tensor(means.fit(train.flatten(1).cpu().numpy()).cluster_centers_).to(train)


def training_data_row(train: Tensor, valid: Tensor, *, n_samples: int = 10_000, seed: int = 0) -> float:
    """What training examples score on the validation split, in nats, as a model's samples are scored in training.

    Sigma is chosen on the first 1000 of the very images that are judged, as for the model. Args: see `reference_rows`.
    """
    window = ParzenWindow(_drawn(train, min(n_samples, len(train)), seed)).fit(valid[:1000])
    return float(window.log_density(valid).double().mean())


def _drawn(train: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows [count, d] of the training examples [n, ...], without replacement."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return train.flatten(1)[order[:count].to(train.device)]


def result_rows(images: Tensor, valid: Tensor, test: Tensor, *, refine: bool = False) -> dict[str, float]:
    """Return the mean log-likelihood of `test` in nats, as a run is judged, with training images in place of samples.

    Samples that are all alike score as "their mean" does. Good samples score more than that, and about as much as the
    "training images".

    Args:
        images: training images [n, ...], floats, as many as a model's samples or all there are.
        valid, test: [n, ...] floats; sigma is chosen on the first 1000 of `valid`.
        refine: whether sigma is looked for outside of the authors' grid too.
    """
    rows = {"training images": images, "their mean": images.mean(0)[None]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The grid is the run's; its edge is no news here.
        windows = {name: ParzenWindow(samples).fit(valid[:1000], refine=refine) for name, samples in rows.items()}
    return {name: window.score(test).mean for name, window in windows.items()}
