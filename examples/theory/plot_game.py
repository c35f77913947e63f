"""
Figure 1 of the paper, from a live game
=======================================

A generator and a discriminator play on the line. The noise is uniform, the data are normal. The stages are those of the
paper: (a) soon after the start; (b) D alone is trained, and approaches D*; (c) G has followed the gradient of D towards
the data; (d) at the end p_g is near p_data, and D is near 1/2 wherever there is probability.
"""

import torch
from matplotlib import pyplot
from small_game import Generator, gaussian, network, noise, play, stage, train_discriminator

import pygan

torch.manual_seed(0)
x = torch.linspace(-3, 4, 351)
p_data = gaussian(x, 1, 0.7)


def data(n):
    return 1 + 0.7 * torch.randn(n, 1)


# %%
# The four stages, one after another. `play` is Algorithm 1 and `train_discriminator` updates D alone; both are a few
# lines of plain torch in `small_game.py`.

generator, discriminator = Generator(mean=-0.4, std=0.5), network(1)
play(generator, discriminator, data, updates=10)
stages = [stage("(a) after 10 updates", generator, discriminator, x, p_data)]
train_discriminator(discriminator, data, lambda n: generator(noise(n)).detach(), steps=400)
stages.append(stage("(b) D alone, 400 more", generator, discriminator, x, p_data))
play(generator, discriminator, data, updates=100)
stages.append(stage("(c) both, 100 more", generator, discriminator, x, p_data))
play(generator, discriminator, data, updates=1000)
stages.append(stage("(d) both, 1000 more", generator, discriminator, x, p_data))

# %%
# Arrows lead from the noise z to x = G(z). The Jensen-Shannon divergence says how far p_g is from p_data.

pygan.figures.draw_game(stages, pyplot.figure(figsize=(11, 3.6), layout="constrained"))
distances = [pygan.theory.jsd(p_data, s.p_g, x).item() for s in stages]
print("JSD(p_data, p_g) in nats:", ", ".join(f"{distance:.4f}" for distance in distances))
