"""
Samples of runs on Gaussians in the plane, side by side
=======================================================

Which of the modes does a generator find, and how evenly? Circles are the centres of the Gaussians, dots are samples.
"""

import tempfile
from pathlib import Path

from matplotlib import pyplot

import pygan
from pygan.data.densities import DENSITIES
from pygan.evaluate import gaussian_modes

# %%
# Put the folders of your own runs on gaussians8 or gaussians25 here. If there are none, two short ones are trained,
# with fewer updates than the objectives need.

RUNS: list[str | Path] = []
if not RUNS:
    RUNS = [Path(tempfile.mkdtemp()) / objective for objective in ("saturating", "relativistic")]
    for folder in RUNS:
        pygan.train(
            "gaussians8",
            "relativistic",
            objective=folder.name,
            epochs=3,
            out=folder,
            progress=False,
            evaluation_samples=1000,
            noise="uniform",
            noise_size=2,
            generator_lr=2e-3,
            discriminator_lr=2e-3,
            lr_anneal="linear",
            lr_floor=0.0,
            averaging=0.0,
            adam_beta1=0.5,
            adam_beta2=0.9,
            generator_hidden=(64, 64),
            discriminator_hidden=(64, 64),
        )

# %%
# A sample is near a mode if it lies within three standard deviations of its centre. KL is the divergence, in nats, of
# the distribution of samples over the modes from the uniform one: 0 if all modes are found equally often.

figure, axes = pyplot.subplots(1, len(RUNS), figsize=(3.6 * len(RUNS), 4), layout="constrained", squeeze=False)
for axis, folder in zip(axes[0], RUNS, strict=True):
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
