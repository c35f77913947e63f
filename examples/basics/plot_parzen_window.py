"""
A Parzen window and its bandwidth
=================================

A Parzen window puts a Gaussian of width sigma on every sample. Its mean log-density of test points is the number that
the paper reports. Sigma is chosen on validation data; this page shows why.
"""

import torch
from matplotlib import pyplot

from pygan import ParzenWindow

# %%
# The data are normal numbers, and so are the samples: a perfect generator. A small sigma gives a peak at each sample, a
# large one blurs them.

random = torch.Generator().manual_seed(0)
samples, valid, test = (torch.randn(n, 1, generator=random) for n in (50, 500, 500))
window = ParzenWindow(samples)
x = torch.linspace(-4, 4, 401)[:, None]
densities = window.log_density(x, [0.05, 0.3, 1.0]).exp()  # [3, 401]: all bandwidths from one pass

figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(x, torch.exp(-(x**2) / 2) / (2 * torch.pi) ** 0.5, color="black", label="true density")
for density, sigma, line in zip(densities, (0.05, 0.3, 1.0), ("-", "--", "-."), strict=True):
    left.plot(x, density, line, label=f"sigma {sigma}")
left.plot(samples, torch.full_like(samples, -0.05), "|", color="gray")
left.set(xlabel="x", ylabel="density", ylim=(-0.1, 1.5))
left.legend(frameon=False)

sigmas = torch.logspace(-1.5, 0.5, 40)
right.semilogx(sigmas, window.log_density(valid, sigmas).mean(1))
window.fit(valid, sigmas)
right.axvline(window.sigma, color="gray", ls=":")
right.set(xlabel="sigma", ylabel="nats", title=f"mean log-density of validation points: best at {window.sigma:.2f}")

# %%
# The score of the test points, with its standard error. The true density would score -1.42 nats on average.

print(window.score(test))

# %%
# More samples allow a smaller sigma, and score higher although the generator is the same. So compare only estimates
# from the same number of samples.

for n in (10, 100, 1000, 10_000):
    larger = ParzenWindow(torch.randn(n, 1, generator=random)).fit(valid, sigmas)
    print(f"{n:6} samples: sigma {larger.sigma:.2f}, {larger.score(test).mean:.3f} nats")
