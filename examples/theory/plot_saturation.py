"""
Why the generator maximises log D
=================================

Early in learning D rejects the samples with confidence. Then log(1 - D(G(z))) saturates: its gradient vanishes as D
improves. The gradient of -log D(G(z)) does not (end of section 3). Both are shown here for a D in training and for D*.
"""

import torch
from matplotlib import pyplot
from small_game import gaussian, network

import pygan
from pygan import theory
from pygan.figures import COLOURS

torch.manual_seed(0)
x = torch.linspace(-12, 16, 2801)
p_g = gaussian(x, 7, 1)  # the data are N(0, 1)


def gradients(logit):
    """|derivative of the loss with respect to a shift of the samples| for both objectives."""
    return [theory.generator_gradient(logit, p_g, x, name).abs().item() for name in ("saturating", "non_saturating")]


discriminator = network(1)
optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.003)
found = {}
for update in range(1001):
    if update % 20 == 0:
        found[update] = gradients(lambda x: discriminator(x[:, None])[:, 0])
    loss = pygan.ops.discriminator_loss(discriminator(torch.randn(512, 1)), discriminator(7 + torch.randn(512, 1)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
best = gradients(lambda x: 24.5 - 7 * x)  # the logit of D*, log(p_data / p_g)

# %%

figure = pyplot.figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
d = torch.linspace(0.001, 0.999, 500)
rows = [
    ("saturating, log(1 - D)", COLOURS["other"], "--", d),
    ("non-saturating, -log D", COLOURS["discriminator"], "-", 1 - d),
]
for column, (name, colour, line, slope) in enumerate(rows):
    left.plot(d, slope, line, color=colour, lw=2, label=name)
    right.semilogy(
        found.keys(),
        [pair[column] for pair in found.values()],
        line,
        color=colour,
        lw=2,
        label=f"{name}: D in training",
    )
    right.axhline(best[column], color=colour, lw=1, ls=":", label=f"{name}: D*")
left.set(xlabel="D(G(z))", ylabel="|derivative| with respect to the logit of D", title="one sample")
left.legend(frameon=False)
right.set(
    xlabel="updates of D", ylabel="|derivative| of the loss, nats per unit of x", title="data N(0, 1), samples N(7, 1)"
)
right.legend(frameon=False, fontsize="small")
