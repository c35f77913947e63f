"""
Maxout in a model of your own
=============================

`pygan.nn.Maxout` is an ordinary torch layer: each unit is the maximum of several linear pieces. Here it is used outside
of any GAN, in a small classifier of points in the plane.
"""

import torch
from matplotlib import pyplot
from torch import nn

import pygan

# %%
# A unit with k pieces is a convex function of its input, made of k planes. With one input it can be drawn.

torch.manual_seed(0)
x = torch.linspace(-2, 2, 201)[:, None]
figure, axis = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
for pieces, line in ((2, ":"), (3, "--"), (5, "-")):
    unit = pygan.nn.Maxout(1, units=1, pieces=pieces)
    axis.plot(x, unit(x).detach(), line, label=f"{pieces} pieces")
axis.set(xlabel="x", ylabel="output of one unit")
axis.legend(frameon=False)

# %%
# Two rings, which no straight line separates. The layers are used, trained and compiled like torch's own.

radius = torch.cat([1 + 0.15 * torch.randn(300), 2 + 0.15 * torch.randn(300)])
angle = 2 * torch.pi * torch.rand(600)
points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
labels = torch.cat([torch.zeros(300), torch.ones(300)])

model = nn.Sequential(pygan.nn.Maxout(2, units=8, pieces=4), pygan.nn.Maxout(8, units=8, pieces=4), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(200):
    loss = nn.functional.binary_cross_entropy_with_logits(model(points)[:, 0], labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
accuracy = ((model(points)[:, 0] > 0) == labels.bool()).float().mean().item()

grid = torch.linspace(-3, 3, 201)
plane = torch.cartesian_prod(grid, grid)
probability = torch.sigmoid(model(plane)).detach().view(201, 201).T
figure, axis = pyplot.subplots(figsize=(4.6, 4), layout="constrained")
axis.contourf(grid, grid, probability, levels=11, cmap="RdBu_r", alpha=0.7)
axis.scatter(*points.T, c=labels, cmap="RdBu_r", s=6, edgecolors="k", linewidths=0.2)
axis.set(aspect="equal", title=f"{accuracy:.1%} of the points are right")
