"""
The value of the game and the criterion C(G)
============================================

For a fixed generator the value V(G, D) is largest at D = D*. That maximum is C(G) = -log 4 + 2 JSD(p_data, p_g). It is
smallest, -log 4, where p_g = p_data, and nowhere else (Theorem 1).
"""

import math

import torch
from matplotlib import pyplot
from small_game import gaussian

from pygan import theory
from pygan.figures import COLOURS

x = torch.linspace(-10, 10, 2001, dtype=torch.float64)
p_data = gaussian(x, 0, 1)

# %%
# The generator is normal. Left: D has the logit s log(p_data / p_g); s = 1 is D*. Right: C(G) as the generator moves.

scales = torch.linspace(0, 2, 41, dtype=torch.float64)
shifts = torch.linspace(-3, 3, 121, dtype=torch.float64)
figure = pyplot.figure(figsize=(10, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
for shift, colour, line in [(0.5, "generator", "-"), (1, "discriminator", "--"), (1.5, "optimal", "-.")]:
    p_g = gaussian(x, shift, 1)
    logit = shift**2 / 2 - shift * x  # log(p_data / p_g)
    values = [theory.value(torch.sigmoid(scale * logit), p_data, p_g, x) for scale in scales]
    left.plot(scales, values, line, color=COLOURS[colour], lw=2, label=f"$p_g = N({shift}, 1)$")
    left.plot(1, theory.criterion(p_data, p_g, x), "o", color=COLOURS[colour])
left.plot([], [], "o", color="gray", label="C(G)")
left.axhline(-math.log(4), color="gray", lw=1, ls=":")
left.set(
    xlabel="scale s of the logit of D",
    ylabel="V(G, D), nats",
    title="V(G, D) is largest at D*, s = 1",
    ylim=(-1.9, -0.7),
)
left.legend(frameon=False, loc="lower left")
for std, colour, line in [(1, "generator", "-"), (0.5, "discriminator", "--"), (1.5, "optimal", "-.")]:
    values = [theory.criterion(p_data, gaussian(x, shift, std), x) for shift in shifts.tolist()]
    right.plot(shifts, values, line, color=COLOURS[colour], lw=2, label=f"$p_g = N(m, {std}^2)$")
right.axhline(-math.log(4), color="gray", lw=1, ls=":")
right.annotate("-log 4", (-3, -math.log(4)), xytext=(0, 4), textcoords="offset points")
right.set(
    xlabel="mean m of the generator", ylabel="C(G), nats", title="C(G) is -log 4 only at $p_g = p_{data} = N(0, 1)$"
)
right.legend(frameon=False, loc="upper center")
