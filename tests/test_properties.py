"""What holds for all numbers. In a file of its own, so that the others run without hypothesis."""

import math

import pytest
import torch
from tolerances import assert_no_worse_than_torch

from pygan.ops import discriminator_loss, generator_loss, maxout_pool, parzen_logsumexp, reference

hypothesis = pytest.importorskip("hypothesis")
example, given, settings, st = hypothesis.example, hypothesis.given, hypothesis.settings, hypothesis.strategies
OPS = torch.ops.pygan


@settings(max_examples=50, deadline=None)
@given(
    real=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    fake=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
)
def test_losses(real: list[float], fake: list[float]) -> None:
    r, f = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    d = discriminator_loss(r, f)
    non_saturating, saturating = generator_loss(f), generator_loss(f, "saturating")
    assert d >= 0
    assert non_saturating >= 0
    assert saturating <= 0
    assert torch.isclose(d, generator_loss(r) - saturating, rtol=1e-12)  # the parts make the whole
    assert torch.equal(discriminator_loss(-f, -r), discriminator_loss(r, f)) or torch.isclose(
        discriminator_loss(-f, -r), d, rtol=1e-14
    )  # swapping the players' labels changes nothing


@settings(max_examples=60, deadline=None)
@given(data=st.data(), batch=st.integers(1, 3), units=st.integers(1, 20), pieces=st.integers(1, 6))
def test_maxout_pool(data, batch: int, units: int, pieces: int) -> None:
    numbers = st.floats(-100, 100, width=32) | st.sampled_from([0.0, 1.0, -math.inf, math.inf])
    count = batch * units * pieces
    z = torch.tensor(data.draw(st.lists(numbers, min_size=count, max_size=count))).view(batch, units * pieces)
    y, index = OPS.maxout_pool(z, pieces)
    per_piece = z.view(batch, units, pieces)
    assert torch.equal(y, per_piece.amax(2))
    assert torch.equal(per_piece.gather(2, index.long().unsqueeze(2)).squeeze(2), y)
    earlier = torch.arange(pieces) < index.long().unsqueeze(2)
    assert not (earlier & (per_piece >= y.unsqueeze(2))).any()
    order = torch.randperm(pieces)
    assert torch.equal(maxout_pool(per_piece[:, :, order].reshape(batch, -1), pieces), y)
    grad = torch.randn(batch, units)
    assert torch.equal(OPS.maxout_spread(grad, index, pieces).view(batch, units, pieces).sum(2), grad)


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-15, 1e15),
    shift=st.floats(-1e3, 1e3),
    sigma=st.floats(1e-3, 1e3),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(0, 12)),
    seed=st.integers(0, 1000),
)
def test_parzen_logsumexp(scale: float, shift: float, sigma: float, sizes: tuple[int, int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, count, d = sizes
    x, samples = ((torch.randn(m, d, generator=generator) + shift) * scale for m in (n, count))
    values = parzen_logsumexp(x, samples, [sigma * scale, 2 * sigma * scale])
    assert not values.isnan().any()
    assert (values <= math.log(count) + 1e-5).all()
    assert (values[1] >= values[0]).all()
    twice = parzen_logsumexp(x, samples.repeat(2, 1), [sigma * scale, 2 * sigma * scale])
    finite = values.isfinite()
    torch.testing.assert_close(twice[finite], values[finite] + math.log(2), rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 200), st.sampled_from([1, 2, 3, 17, 100])),
    centres=st.integers(1, 12),
    distance=st.sampled_from([0.0, 1.0, 30.0, 1e3]),
    width=st.floats(-6, 1),
    sigmas=st.lists(st.floats(-7, 3), min_size=1, max_size=4),
)
@example(seed=268435455, sizes=(1, 180, 2), centres=7, distance=0.0, width=-4.36098099618675, sigmas=[-4.78125])
def test_parzen_is_as_exact_as_torch_for_clusters_of_any_kind(
    seed: int, sizes: tuple[int, int, int], centres: int, distance: float, width: float, sigmas: list[float]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, count, d = sizes
    middles = distance * torch.randn(centres, d, generator=generator)
    x, samples = (
        middles[torch.arange(m) % centres] + 10**width * torch.randn(m, d, generator=generator) for m in (n, count)
    )
    together = parzen_logsumexp(x, samples, [10**sigma for sigma in sigmas])
    for sigma, ours in zip(sigmas, together, strict=True):
        torchs, exact = (
            reference.parzen_logsumexp(x.to(t), samples.to(t), [10**sigma]) for t in (x.dtype, torch.float64)
        )
        # A squared distance from products is what is left of larger norms, mostly up to twice as large, and the result
        # what is left of the largest exponent and the logarithm of a sum.
        assert_no_worse_than_torch(ours[None], torchs, exact, largest=2 * exact.abs() + math.log(count))
