"""
A trained discriminator approaches D*
=====================================

For a fixed generator the best discriminator is D*(x) = p_data(x) / (p_data(x) + p_g(x)), Proposition 1 of the paper.
Here a network learns it from samples alone, on the line and in the plane, and is compared with the formula wherever
p_data + p_g is more than 1 % of its maximum.
"""

import torch
from matplotlib import pyplot
from small_game import gaussian, network, train_discriminator

import pygan
from pygan.figures import COLOURS

torch.manual_seed(0)

# %%
# On the line: the data are a mixture of two normal distributions, the generator's samples are normal.


def data_1d(n):
    return torch.where(torch.rand(n, 1) < 0.5, -1.5 + 0.7 * torch.randn(n, 1), 1 + 0.8 * torch.randn(n, 1))


x = torch.linspace(-5, 5, 1001)
p_data = 0.5 * gaussian(x, -1.5, 0.7) + 0.5 * gaussian(x, 1, 0.8)
p_g = gaussian(x, 0, 1.2)
discriminator = network(1)
train_discriminator(discriminator, data_1d, lambda n: 1.2 * torch.randn(n, 1), steps=1500)

best = pygan.theory.optimal_discriminator(p_data, p_g)
trained = torch.sigmoid(discriminator(x[:, None])[:, 0]).detach()
seen = p_data + p_g > 0.01 * (p_data + p_g).max()
distance = (trained - best)[seen].abs().max().item()
print(f"on the line max |D - D*| = {distance:.3f}")

# %%
# In the plane: the data lie on a ring of six normal distributions, the generator's samples are normal.

angles = torch.arange(6) * torch.pi / 3
centres = 1.5 * torch.stack([angles.cos(), angles.sin()], dim=1)


def data_2d(n):
    return centres[torch.randint(6, (n,))] + 0.5 * torch.randn(n, 2)


line = torch.linspace(-3.5, 3.5, 141)
plane = torch.cartesian_prod(line, line)
ring = torch.stack([gaussian(plane, centre, 0.5).prod(1) for centre in centres]).mean(0)
blob = gaussian(plane, 0, 1.2).prod(1)
discriminator_2d = network(2)
train_discriminator(discriminator_2d, data_2d, lambda n: 1.2 * torch.randn(n, 2), steps=1500)

best_2d = pygan.theory.optimal_discriminator(ring, blob)
trained_2d = torch.sigmoid(discriminator_2d(plane)[:, 0]).detach()
seen_2d = ring + blob > 0.01 * (ring + blob).max()
distance_2d = (trained_2d - best_2d)[seen_2d].abs().max().item()
print(f"in the plane max |D - D*| = {distance_2d:.3f}, mean {(trained_2d - best_2d)[seen_2d].abs().mean():.3f}")

# %%

figure = pyplot.figure(figsize=(11, 3.6), layout="constrained")
left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
left.plot(x, p_data, ":", color=COLOURS["data"], lw=2, label="data")
left.plot(x, p_g, "-", color=COLOURS["generator"], lw=2, label="generator")
left.plot(x[seen], best[seen], color=COLOURS["optimal"], lw=3, label="D*, formula")
left.plot(x[seen], trained[seen], "--", color=COLOURS["discriminator"], lw=2, label="D, trained")
left.set(xlabel="x", ylabel="density;  D(x)", ylim=(0, 1.35), title=f"max |D - D*| = {distance:.3f}")
left.legend(ncols=2, frameon=False, loc="upper center")
for axes, d, title in [(middle, best_2d, "D*, formula"), (right, trained_2d, "D, trained")]:
    d = torch.where(seen_2d, d, torch.nan).view(141, 141).T
    image = axes.pcolormesh(line.numpy(), line.numpy(), d.numpy(), vmin=0, vmax=0.8, cmap="cividis", rasterized=True)
    axes.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
right.set_title(f"D, trained: max |D - D*| = {distance_2d:.3f}")
figure.colorbar(image, ax=(middle, right), label="D(x)", shrink=0.8)
