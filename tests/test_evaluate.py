import math
import warnings

import numpy as np
import pytest
import torch

from pygan.evaluate import PAPER_SIGMAS, ParzenEstimate, ParzenWindow


def mixture_log_density(x, samples, sigma):
    """log p(x) by torch.distributions in float64: an independent way to the same number."""
    components = torch.distributions.Independent(torch.distributions.Normal(samples.double(), float(sigma)), 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(len(samples), dtype=torch.float64)), components
    )
    return mixture.log_prob(x.double())


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.rand(*shape, generator=generator)


def test_log_density_is_that_of_the_mixture(draw):
    x, samples = draw(33, 5, 4), draw(70, 5, 4)
    window = ParzenWindow(samples)
    expected = mixture_log_density(x.flatten(1), samples.flatten(1), 0.2)
    torch.testing.assert_close(window.log_density(x, 0.2).double(), expected, rtol=1e-5, atol=1e-4)


def test_sequence_of_sigmas_gives_one_row_each(draw):
    x, window = draw(7, 6), ParzenWindow(draw(20, 6))
    both = window.log_density(x, [0.1, 0.5])
    assert both.shape == (2, 7)
    torch.testing.assert_close(both[1], window.log_density(x, 0.5))
    assert window.log_density(x, 0.5).shape == (7,)


def test_paper_grid():
    np.testing.assert_allclose(PAPER_SIGMAS, np.logspace(-1, 0, 10))


def test_fit_takes_the_best_of_the_grid_and_score_reports_it(draw):
    window = ParzenWindow(draw(50, 8))
    valid, test = draw(40, 8), draw(30, 8)
    grid = [0.05, 0.2, 0.3, 3.0]
    assert window.fit(valid, grid) is window
    best = max(grid, key=lambda sigma: mixture_log_density(valid, window.samples, sigma).mean())
    assert window.sigma == best
    estimate = window.score(test)
    expected = mixture_log_density(test, window.samples, best)
    assert estimate == ParzenEstimate(estimate.mean, estimate.standard_error, best, 30, 50)
    assert estimate.mean == pytest.approx(expected.mean().item(), abs=1e-4)
    assert estimate.standard_error == pytest.approx(expected.std().item() / math.sqrt(30), rel=1e-4)


def test_fit_warns_at_the_edge_of_the_grid(draw):
    window, valid = ParzenWindow(draw(50, 8)), draw(40, 8)
    with pytest.warns(UserWarning, match="edge of the grid"):
        window.fit(valid, [1.0, 2.0, 4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        window.fit(valid)


def test_score_refuses_the_points_that_fit_has_seen(draw):
    data = draw(60, 8)
    window = ParzenWindow(draw(50, 8)).fit(data[:40])
    for seen in (data[:40], data, data[39:], data[:40].clone()):
        with pytest.raises(ValueError, match="use others"):
            window.score(seen)
    window.score(data[40:])


def test_sigma_set_by_hand(draw):
    window = ParzenWindow(draw(5, 3))
    with pytest.raises(RuntimeError, match="fit"):
        window.score(draw(4, 3))
    window.sigma = 0.3
    assert window.score(draw(4, 3)).sigma == 0.3


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (torch.zeros(0, 3), ValueError, "at least one sample"),
        (torch.zeros(3), ValueError, "samples must have shape"),
        (torch.zeros(3, 3, dtype=torch.uint8), TypeError, "floating-point"),
    ],
)
def test_bad_samples(samples, error, message):
    with pytest.raises(error, match=message):
        ParzenWindow(samples)


def test_bad_arguments(draw):
    window = ParzenWindow(draw(5, 3))
    with pytest.raises(ValueError, match="3 values a row"):
        window.log_density(draw(2, 4), 0.1)
    for sigma in (0.0, -1.0, math.nan, [0.1, math.inf]):
        with pytest.raises(ValueError, match="sigma must be positive"):
            window.log_density(draw(2, 3), sigma)
