"""
Samples of runs on Gaussians in the plane, side by side
=======================================================

python examples/games/plot_modes.py PICTURE.png RUN [RUN ...]     # run folders of gaussians8 or gaussians25
"""

import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

import pygan
from pygan.data.densities import DENSITIES
from pygan.evaluate.modes import gaussian_modes

picture, *folders = sys.argv[1:]
figure, axes = pyplot.subplots(1, len(folders), figsize=(3.6 * len(folders), 4), layout="constrained", squeeze=False)
for axis, folder in zip(axes[0], folders, strict=True):
    run = pygan.load(folder, "last")
    density = DENSITIES[run.data["name"]]()
    points = density.from_unit(run.sample(10_000, 1).flatten(1))
    coverage = gaussian_modes(points, density.centres, density.std)
    axis.scatter(*density.centres.T, s=60, facecolors="none", edgecolors="C3", lw=0.8)
    axis.scatter(*points[:3000].T, s=1, alpha=0.5)
    axis.set(xlim=(density.low, density.high), ylim=(density.low, density.high), aspect="equal", xticks=[], yticks=[])
    axis.set_title(
        f"{run.game.objective.name}\n{coverage.near:.0%} near a mode, KL {coverage.kl:.2f}", fontsize="small"
    )
figure.savefig(picture, dpi=80)
