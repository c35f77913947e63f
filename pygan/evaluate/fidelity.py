"""FID and KID by torch-fidelity, on the published Inception network: for comparison with other people's tables.

    pip install ".[metrics]"

The weights (91 MiB) are downloaded once into the user's cache. On a machine without a network, put the file where the
error message says. The network was trained on photographs, so on digits the two numbers mean little:
`pygan.evaluate.classifier_distances` is made for those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pygan.data.files import Remote, download, locate, verify
from pygan.data.splits import as_float
from pygan.evaluate._pixels import check_pixels

__all__ = ["InceptionDistances", "inception_distances"]

_FOLDER = "inception"
_WEIGHTS = Remote(
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    limit=1 << 27,
)


@dataclass(frozen=True)
class InceptionDistances:
    """Distances on the 2,048 features of the Inception network of 2015, as torch-fidelity computes them.

    Attributes:
        fid: Frechet Inception distance (Heusel et al. 2017), >= 0. Published values take 50,000 samples; fewer give a
            larger number.
        kid: kernel Inception distance (Binkowski et al. 2018), mean over 100 subsets of `kid_subset` images.
        kid_spread: its standard deviation over the subsets.
        kid_subset: images per subset, 1,000 unless there are fewer.
    """

    fid: float
    kid: float
    kid_spread: float
    kid_subset: int


def inception_distances(
    real: Tensor, fake: Tensor, *, root: str | Path | None = None, device: torch.device | str = "cpu"
) -> InceptionDistances:
    """Return FID and KID between two sets of images.

    Args:
        real, fake: [n, C, H, W] and [m, C, H, W], n and m at least 2, C = 1 or 3, uint8 or float32 in [0, 1]. Grey
            images are repeated in three channels. All are resized to 299 x 299 by torch-fidelity.
        root: folder that holds `inception/` with the weights; default $PYGAN_DATA, then the user's cache.
        device: "cpu" or "cuda".

    Raises:
        ImportError: torch-fidelity is not installed; the message says how to install it.
        FileNotFoundError: the weights are not here and cannot be downloaded; the message says which file to put where.
        ValueError: images of another shape or out of [0, 1], or weights with another sha256 than the published ones.
    """
    inputs = _Pixels("real", real), _Pixels("fake", fake)
    try:
        import torch_fidelity
    except ImportError as error:
        raise ImportError(
            'inception_distances: FID and KID need the package torch-fidelity; install it by pip install ".[metrics]" '
            "in the folder of pygan. classifier_distances needs neither package nor weights"
        ) from error
    # torch-fidelity unpickles this file. Its sha256 shows that it is the published one.
    (weights,) = locate(_FOLDER, [_WEIGHTS.name], root, _fetch)
    verify(weights, _WEIGHTS.sha256)
    subset = min(1000, len(real), len(fake))
    found = torch_fidelity.calculate_metrics(
        input1=inputs[0],
        input2=inputs[1],
        fid=True,
        kid=True,
        kid_subset_size=subset,
        feature_extractor_weights_path=str(weights),
        cuda=torch.device(device).type == "cuda",
        cache=False,
        save_cpu_ram=True,  # no worker processes: the images are in memory
        verbose=False,
    )
    return InceptionDistances(
        found["frechet_inception_distance"],
        found["kernel_inception_distance_mean"],
        found["kernel_inception_distance_std"],
        subset,
    )


class _Pixels(Dataset[Tensor]):
    """Images in the form that torch-fidelity takes: uint8 [3, H, W] each."""

    def __init__(self, name: str, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) < 2:
            raise ValueError(
                f"inception_distances: {name} must have shape [n >= 2, 1 or 3, H, W], got {list(images.shape)}"
            )
        check_pixels("inception_distances", name, images)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = as_float(self.images[index].cpu()).mul(255).round().to(torch.uint8)
        return image.expand(3, -1, -1).contiguous()


def _fetch(folder: Path) -> None:
    download(_FOLDER, _WEIGHTS, folder)
