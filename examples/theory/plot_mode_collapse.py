"""
Mode collapse on purpose
========================

For a fixed D the best generator sends all noise to one point, where D is largest. So "G must not be trained too much
without updating D" (section 6): that is the paper's Helvetica scenario. Here D is trained, then G alone. The warning of
pygan's health line sees it. When D is updated again, the samples spread again.
"""

import torch
from matplotlib import pyplot
from small_game import Generator, gaussian, network, noise, play, stage, train_discriminator

import pygan
from pygan.figures import draw_game
from pygan.health import diagnose, spread

torch.manual_seed(0)
x = torch.linspace(-3, 5, 401)
p_data = gaussian(x, 1, 0.7)
generator, discriminator = Generator(mean=1, std=1.5), network(1)


def data(n):
    return 1 + 0.7 * torch.randn(n, 1)


@torch.no_grad()
def measure(epoch):
    """What a run's history holds, and the health line looks at."""
    real, fake = data(1000), generator(noise(1000))
    logits_real, logits_fake = discriminator(real), discriminator(fake)
    return {
        "epoch": epoch,
        "d_real": torch.sigmoid(logits_real).mean().item(),
        "d_fake": torch.sigmoid(logits_fake).mean().item(),
        "d_loss": pygan.ops.discriminator_loss(logits_real, logits_fake).item(),
        "g_loss": pygan.ops.generator_loss(logits_fake).item(),
        "spread": spread([fake]) / spread([real]),
    }


# %%
# First D is trained against samples that are too wide.

train_discriminator(discriminator, data, lambda n: generator(noise(n)).detach(), steps=400)
stages = [stage("D trained", generator, discriminator, x, p_data)]
history = [measure(1)]

# %%
# Then G alone: all its samples move to the place where D is largest.

optimizer = torch.optim.Adam(generator.parameters(), lr=0.005)
for _ in range(400):
    loss = pygan.ops.generator_loss(discriminator(generator(noise(512))))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
stages.append(stage("G alone, 400 updates: collapse", generator, discriminator, x, p_data))
history.append(measure(2))
warnings = diagnose(history)
epoch, sentence = warnings["collapse"]
print(f"epoch {epoch}: {sentence}")

# %%
# When both are updated again, the samples spread again.

play(generator, discriminator, data, updates=800)
stages.append(stage("both, 800 updates", generator, discriminator, x, p_data))
history.append(measure(3))

draw_game(stages, pyplot.figure(figsize=(9, 3.6), layout="constrained"))
