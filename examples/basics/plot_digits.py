"""
Train on digits
===============

The shortest complete use: train on scikit-learn's handwritten digits, look at samples, and compute the log-likelihood
of test images.
"""

import tempfile
from pathlib import Path

from matplotlib import pyplot

import pygan

folder = Path(tempfile.mkdtemp())  # without out=, the run is in runs/digits

# %%
# One call trains both players, evaluates the generator every few epochs, and keeps the best one.

run = pygan.train("digits", out=folder / "digits", progress=False)

# %%
# Above, samples, with the same noise for the same seed. Below, images of the training set.

figure, axes = pyplot.subplots(2, 10, figsize=(10, 2.4), layout="constrained")
samples = run.sample(10, seed=0)
real = pygan.data.as_float(run.splits.train.images[:10])
for column, pair in enumerate(zip(samples, real, strict=True)):
    for axis, image in zip(axes[:, column], pair, strict=True):
        axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("samples")
axes[1, 0].set_ylabel("data")

# %%
# `run.history` has an entry for each epoch. The log-likelihood is that of validation images, in nats; the dotted line
# is the score of training images in place of samples. The losses do not tell how good the samples are: each player is
# measured against an opponent that changes.

judged = [entry for entry in run.history if entry["log_likelihood"] is not None]
figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
left.plot([entry["epoch"] for entry in judged], [entry["log_likelihood"] for entry in judged], "o-")
left.axhline(judged[-1]["reference"], color="gray", ls=":")
left.set(xlabel="epoch", ylabel="log-likelihood, nats", title="on the validation split")
for key, label in (("d_real", "D(x)"), ("d_fake", "D(G(z))")):
    right.plot([entry["epoch"] for entry in run.history], [entry[key] for entry in run.history], label=label)
right.set(xlabel="epoch", ylim=(0, 1), title="what D makes of data and of samples")
right.legend(frameon=False)

# %%
# The number of the paper: the mean log-likelihood of the test split under a Parzen window on samples.

print(run.log_likelihood())
