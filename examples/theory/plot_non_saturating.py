"""
What the non-saturating generator descends
==========================================

At D = D* the gradient of -E log D(G(z)) is the gradient of KL(p_g || p_data) - 2 JSD, with D* held fixed. The generator
here is N(m, 1), which cannot match the data, a mixture. So the objectives disagree about the best m: the descent along
the non-saturating gradient, with D* computed anew at every step, ends at the minimum of that divergence, not of JSD.
"""

import torch
from matplotlib import pyplot
from small_game import gaussian

from pygan import theory
from pygan.figures import COLOURS

x = torch.linspace(-12, 12, 2401, dtype=torch.float64)


def mixture(x):
    return 0.65 * gaussian(x, -1, 0.8) + 0.35 * gaussian(x, 2, 0.8)


def gradient(mean, objective):
    """Derivative of the generator's loss with respect to its mean, at D*."""
    return theory.generator_gradient(
        lambda x: mixture(x).log() - gaussian(x, mean, 1).log(), gaussian(x, mean, 1), x, objective
    )


def descend(objective):
    """The mean that gradient descent ends at."""
    mean = 0.0
    for _ in range(400):
        mean -= 0.2 * gradient(mean, objective).item()
    return mean


means = torch.linspace(-3, 3, 121, dtype=torch.float64)
curves = {
    "KL($p_g$ || $p_{data}$)": [theory.kl(gaussian(x, m, 1), mixture(x), x) for m in means],
    "2 JSD": [2 * theory.jsd(mixture(x), gaussian(x, m, 1), x) for m in means],
    "KL($p_g$ || $p_{data}$) - 2 JSD": [
        theory.non_saturating_divergence(mixture(x), gaussian(x, m, 1), x) for m in means
    ],
}
ends = {objective: descend(objective) for objective in ("saturating", "non_saturating")}

# %%

figure = pyplot.figure(figsize=(10, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
for (name, curve), colour, line in zip(
    curves.items(), ("optimal", "other", "discriminator"), ("-.", "--", "-"), strict=True
):
    left.plot(means, curve, line, color=COLOURS[colour], lw=2, label=name)
left.plot(
    ends["saturating"], 2 * theory.jsd(mixture(x), gaussian(x, ends["saturating"], 1), x), "s", color=COLOURS["other"]
)
left.plot(
    ends["non_saturating"],
    theory.non_saturating_divergence(mixture(x), gaussian(x, ends["non_saturating"], 1), x),
    "o",
    color=COLOURS["discriminator"],
)
left.set(
    xlabel="mean m of the generator", ylabel="divergence, nats", ylim=(0, 1.6), title="markers: where descent ends"
)
left.legend(frameon=False)
for objective, name, colour in [("saturating", "2 JSD", "other"), ("non_saturating", "KL - 2 JSD", "discriminator")]:
    curve = curves["2 JSD"] if objective == "saturating" else curves["KL($p_g$ || $p_{data}$) - 2 JSD"]
    (slope,) = torch.gradient(torch.stack(curve), spacing=(means,))
    right.plot(means[1:-1], slope[1:-1], "-", color=COLOURS[colour], lw=2, label=f"derivative of {name}")
    points = means[4:-1:8]
    marker = "s" if objective == "saturating" else "o"
    right.plot(
        points,
        [gradient(m, objective) for m in points],
        marker,
        color=COLOURS[colour],
        mfc="none",
        label=f"{objective.replace('_', '-')} gradient at D*",
    )
right.axhline(0, color="gray", lw=1, ls=":")
right.set(xlabel="mean m of the generator", ylabel="derivative, nats per unit of m", title="the gradients agree")
right.legend(frameon=False, fontsize="small")
