"""
Disjoint supports: JSD stops, the Wasserstein distance grows
============================================================

Where p_data and p_g are never both positive, JSD = log 2 however far apart they are, so C(G) gives the generator no
direction. The Wasserstein-1 distance is the shift itself (Arjovsky et al. 2017, Example 1).
"""

import math

import torch
from matplotlib import pyplot

from pygan import theory
from pygan.figures import COLOURS

x = torch.arange(-199.5, 1000, dtype=torch.float64) / 200  # edges lie in the middle between two points


def uniform(start):
    """Density of the uniform distribution on [start, start + 1]."""
    return ((x > start) & (x < start + 1)).double()


# %%
# Both distances, for a generator that is shifted away from the data step by step.

shifts = torch.arange(0, 3.01, 0.05, dtype=torch.float64)
jsd = torch.stack([theory.jsd(uniform(0), uniform(shift), x) for shift in shifts])
distance = torch.stack([theory.wasserstein1(uniform(0), uniform(shift), x) for shift in shifts])

figure = pyplot.figure(figsize=(10, 3.4), layout="constrained")
left, right = figure.subplots(1, 2)
left.fill_between(x, uniform(0), color="gray", alpha=0.4, lw=0, label="data")
for shift, colour, line in [(0.5, "generator", "-"), (2.5, "discriminator", "--")]:
    left.plot(x, uniform(shift), line, color=COLOURS[colour], lw=2, label=f"generator, shift {shift}")
left.set(xlabel="x", ylabel="density", ylim=(0, 1.8))
left.legend(frameon=False, loc="upper center")
right.plot(shifts, distance, "-", color=COLOURS["discriminator"], lw=2, label="Wasserstein-1, unit of x")
right.plot(shifts, jsd, "--", color=COLOURS["other"], lw=2, label="JSD, nats")
right.axhline(math.log(2), color="gray", lw=1, ls=":")
right.annotate("log 2", (3, math.log(2)), xytext=(0, 4), textcoords="offset points", ha="right")
right.set(xlabel="shift of the generator", ylabel="distance from the data")
right.legend(frameon=False)
