"""
Forward and reverse Kullback-Leibler divergence
===============================================

One normal distribution q is fitted to a mixture p of two. KL(p || q), which maximum likelihood minimises, makes q cover
both modes, and the empty place between them. KL(q || p) makes q take one mode and ignore the other.
"""

import torch
from matplotlib import pyplot
from small_game import gaussian

from pygan import theory
from pygan.figures import COLOURS

x = torch.linspace(-10, 10, 2001, dtype=torch.float64)
p = 0.6 * gaussian(x, -2, 0.8) + 0.4 * gaussian(x, 2.5, 0.6)

# %%
# `fit_gaussian` finds the normal distribution with the least divergence in each direction.

figure = pyplot.figure(figsize=(7, 3.4), layout="constrained")
axes = figure.subplots()
axes.fill_between(x, p, color="gray", alpha=0.4, lw=0, label="p, a mixture")
fits = {direction: theory.fit_gaussian(p, x, direction) for direction in ("forward", "reverse")}
for (direction, (mean, std)), name, colour, line in zip(
    fits.items(), ("KL(p || q)", "KL(q || p)"), ("discriminator", "other"), ("-", "--"), strict=True
):
    q = gaussian(x, mean, std)
    label = f"{direction}, least {name}: q = N({mean:.2f}, {std:.2f}$^2$)\n"
    label += f"KL(p || q) = {theory.kl(p, q, x):.2f}, KL(q || p) = {theory.kl(q, p, x):.2f}"
    axes.plot(x, q, line, color=COLOURS[colour], lw=2, label=label)
axes.set(xlabel="x", ylabel="density", xlim=(-7, 7), ylim=(0, 0.9))
axes.legend(frameon=False, loc="upper center")
