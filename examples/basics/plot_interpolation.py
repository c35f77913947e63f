"""
Between two noise vectors
=========================

Figure 3 of the paper: the generator is applied to points on the line between two noise vectors. If it has learned
more than single images, the images change gradually, and those in the middle look like data too.
"""

import tempfile
from pathlib import Path

import torch
from matplotlib import pyplot

import pygan

run = pygan.train("digits", epochs=120, out=Path(tempfile.mkdtemp()) / "digits", progress=False)

# %%
# Each row is a path from one vector to another. On a straight line the vectors in the middle are shorter than those of
# the training; on an arc (`spherical=True`) the length is kept.

start, end = run.noise(4, seed=1), run.noise(4, seed=2)
path = pygan.latent.interpolate(start, end, steps=10, spherical=True)  # [4, 10, noise_size]
images = run.generate(path.flatten(0, 1))

figure, axes = pyplot.subplots(4, 10, figsize=(9, 3.7), layout="constrained")
for axis, image in zip(axes.flat, images, strict=True):
    axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    axis.axis("off")

# %%
# How far does the image move with each step? A jump means that the generator has a steep place there.

steps = images.view(4, 10, -1).diff(dim=1).norm(dim=2)
figure, axis = pyplot.subplots(figsize=(6, 2.8), layout="constrained")
axis.plot(torch.arange(1, 10), steps.T, "o-", label=[f"row {i}" for i in range(1, 5)])
axis.set(xlabel="step", ylabel="distance between images", ylim=(0, None))
axis.legend(frameon=False, ncols=4, loc="lower center")
