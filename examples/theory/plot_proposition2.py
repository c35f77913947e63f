"""
Proposition 2: the generator's distribution converges
=====================================================

If D is optimal at every step, and p_g itself is what the generator changes, then C(G) is convex in p_g, and descent
reaches p_data. A step of exponentiated gradient descent keeps p_g a distribution; with rate 1 it halves p_g - p_data.
"""

import math

import torch
from matplotlib import pyplot

from pygan import theory
from pygan.figures import COLOURS

p_data = torch.tensor([0.02, 0.05, 0.1, 0.3, 0.25, 0.05, 0.15, 0.08], dtype=torch.float64)
start = torch.full_like(p_data, 1 / 8)
histories = {rate: theory.descend_criterion(p_data, start, steps=40, rate=rate) for rate in (1.0, 0.5, 0.2)}

# %%
# Left: the distribution after some steps. Right: the distance of C(G) from its minimum, -log 4, for three rates.

figure = pyplot.figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
outcomes = torch.arange(8)
left.bar(outcomes.numpy(), p_data.numpy(), width=0.85, color="lightgray", label="$p_{data}$")
for step, marker, colour in [(0, "o", "other"), (1, "s", "optimal"), (2, "^", "discriminator"), (5, "x", "generator")]:
    left.plot(outcomes, histories[1.0][step], marker, color=COLOURS[colour], label=f"$p_g$, step {step}")
left.set(xlabel="outcome", ylabel="probability", title="eight outcomes, rate 1")
left.legend(frameon=False)
for (rate, history), line, colour in zip(
    histories.items(), ("-", "--", "-."), ("generator", "discriminator", "optimal"), strict=True
):
    gaps = torch.stack([theory.criterion(p_data, p_g) + math.log(4) for p_g in history])
    shown = gaps > 1e-14  # the rest is rounding
    right.semilogy(torch.arange(41)[shown], gaps[shown], line, color=COLOURS[colour], lw=2, label=f"rate {rate:g}")
right.set(xlabel="step", ylabel="C(G) + log 4, nats", title="the criterion falls to its minimum")
right.legend(frameon=False)
