"""`pygan evaluate`: the log-likelihood of test images, as the paper estimates it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pygan.data
from pygan._session import find_device
from pygan.commands.parser import CHECKPOINT, DEVICE, ROOT, Parser, path, seed
from pygan.commands.train import DATA_HELP
from pygan.data import Splits, as_float
from pygan.data.arrays import from_array, read_npy, read_npz
from pygan.evaluate import ParzenWindow
from pygan.run import SIGMA_POINTS, load

__all__ = ["SUMMARY", "parser", "run"]

SUMMARY = "estimate the log-likelihood"
_DESCRIPTION = """\
Estimate the log-likelihood of test images as the paper did: under a Gaussian
Parzen window on samples, its bandwidth chosen on validation images.

examples:
  pygan evaluate runs/mnist            a run, on the data that it was trained on
  pygan evaluate samples.npy mnist     samples from somewhere else

Compare the figure only with others made in exactly this way, from as many
samples: in high dimension it says little about the true likelihood or about how
the samples look (Theis, van den Oord and Bethge 2015, arXiv 1511.01844).
"""
_PAPER_SAMPLES = 10_000


def run(words: Sequence[str]) -> None:
    """Run the command."""
    of = parser()
    options = of.parse(words)
    source: Path = options.samples
    if not source.exists():
        raise FileNotFoundError(f"evaluate: there is no run or file {source}")
    device = find_device(options.device)
    if source.is_dir():
        of.refuse_useless("--seed", why="is for samples in a file; those of a run have the run's seed")
        trained = load(source, checkpoint=options.checkpoint)
        if options.data is not None:
            size = trained.data.get("sources", {}).get("image_size")
            trained.splits = pygan.data.load(options.data, root=options.root, image_size=size, seed=trained.seed)
            _refuse_other_size(str(source), trained.shape, trained.splits)
        elif options.root is not None and "sources" in trained.data:
            trained.data = {**trained.data, "sources": {**trained.data["sources"], "root": options.root}}
        trained.generator.to(device)
        window, scaled = trained.window(), trained.density_images
        assert trained.splits is not None  # or window() would have raised
        splits = trained.splits
        estimate = window.score(scaled(splits.test))
    elif options.data is not None:
        of.refuse_useless("--checkpoint", why="is for a run, and these samples are in a file")
        array = read_npz(source)[0] if source.suffix.lower() == ".npz" else read_npy(source)
        samples = from_array(array, str(source))
        splits = pygan.data.load(options.data, root=options.root, seed=options.seed)
        _refuse_other_size(str(source), tuple(samples.shape[1:]), splits)
        window = ParzenWindow(as_float(samples).to(device)).fit(as_float(splits.valid.images[:SIGMA_POINTS]))
        estimate = window.score(as_float(splits.test.images))
    else:
        of.error("samples in a file need data to be judged by, as in: pygan evaluate samples.npy mnist")
    print(
        f"log-likelihood  {estimate.mean:.2f} +- {estimate.standard_error:.2f} nats on {estimate.n_test:,} test images"
    )
    few = estimate.n_samples < _PAPER_SAMPLES
    remark = f"; published figures have {_PAPER_SAMPLES:,} and are not comparable: fewer score lower" if few else ""
    print(f"window          {estimate.n_samples:,} samples{remark}")
    print(f"sigma           {estimate.sigma:.4f}, chosen on {min(SIGMA_POINTS, len(splits.valid)):,} validation images")
    print(f"data            {splits.protocol}")


def parser() -> Parser:
    """Return the parser."""
    of = Parser("evaluate RUN|FILE [DATA] [options]", _DESCRIPTION)
    of.option(
        "samples",
        type=path,
        metavar="RUN|FILE",
        help="run folder, or .npy or .npz file of samples [N, ...], floats in [0, 1] or uint8",
    )
    of.option("data", nargs="?", metavar="DATA", help=f"{DATA_HELP} (default: those of the run)")
    of.option("--device", **DEVICE)
    of.option("--seed", type=seed, default=0, metavar="N", help="of the split, for samples in a file (default: 0)")
    of.option("--root", **ROOT)
    of.option("--checkpoint", **CHECKPOINT)
    return of


def _refuse_other_size(source: str, shape: tuple[int, ...], splits: Splits) -> None:
    """Raise ValueError unless samples of this shape have as many values as the images of the data."""
    values, expected = math.prod(shape), math.prod(splits.shape)
    if values != expected:
        raise ValueError(
            f"evaluate: the samples of {source} must have {expected:,} values each, as the images of {splits.name} "
            f"({' x '.join(map(str, splits.shape))}), got {values:,}"
        )
