"""pygan.theory against quadrature and closed forms, and the demonstrations of examples/theory by what they find."""

import itertools
import math
import runpy
from pathlib import Path

import pytest
import torch

from pygan import theory

integrate = pytest.importorskip("scipy.integrate")
optimize = pytest.importorskip("scipy.optimize")
stats = pytest.importorskip("scipy.stats")

EXAMPLES = Path(__file__).parents[1] / "examples" / "theory"
X = torch.linspace(-12, 12, 4801, dtype=torch.float64)
LOG2, LOG4 = math.log(2), math.log(4)


def normal(mean, std):
    return lambda x: math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def laplace(centre, scale):
    return lambda x: math.exp(-abs(x - centre) / scale) / (2 * scale)


def mixture(x):
    return 0.3 * normal(-2, 0.5)(x) + 0.7 * normal(1, 0.8)(x)


PAIRS = {
    "near": (normal(0, 1), normal(0.3, 1.1)),
    "far": (normal(-3, 0.7), normal(3, 0.7)),
    "mixture": (mixture, normal(0, 1.5)),
    "kinks": (laplace(0, 0.6), laplace(1, 0.5)),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """Two densities as functions of a number."""
    return PAIRS[request.param]


@pytest.fixture
def error(pair):
    """What the trapezoidal rule may miss: nearly nothing, but at a kink h^2 / 12 times the jump of the slope."""
    return 3e-5 if pair is PAIRS["kinks"] else 1e-6


def on_grid(density, x=X):
    return torch.tensor([density(point) for point in x.tolist()], dtype=torch.float64)


def quadrature(integrand):
    """The integral over the width of the grid, in pieces, so that no peak is missed."""
    pieces = [-12, -6, -3, -2, -1, 0, 0.5, 1, 2, 3, 6, 12]
    return sum(integrate.quad(integrand, a, b, limit=200, epsabs=1e-12)[0] for a, b in itertools.pairwise(pieces))


def x_log_ratio(p, q, r):
    """p log(q / r), and 0 where p is 0."""
    return p * math.log(q / r) if p > 0 else 0.0


def random_probabilities(n=7):
    return torch.rand(n, dtype=torch.float64).softmax(0)


# D*, V, C(G)


def test_the_optimal_discriminator_is_the_share_of_the_data():
    p_data, p_g = torch.tensor([[0.0, 1, 3], [2, 0, 1e-30]]), torch.tensor([[1.0, 1, 1], [0, 0, 1e-30]])
    assert theory.optimal_discriminator(p_data, p_g).tolist() == [[0, 0.5, 0.75], [1, 0.5, 0.5]]
    assert theory.optimal_discriminator(torch.tensor([3e38]), torch.tensor([3e38])).item() == 0.5


def test_no_discriminator_is_better_than_the_optimal_one():
    """For every p_data and p_g the maximum of V over D, found by a search at each point, is at D* (Proposition 1)."""
    p_data, p_g = random_probabilities(), random_probabilities()
    best = theory.optimal_discriminator(p_data, p_g)
    d = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)[:, None]
    searched = d[(p_data * d.log() + p_g * torch.log1p(-d)).argmax(0), 0]
    torch.testing.assert_close(searched, best, atol=0.001, rtol=0)
    for _ in range(20):
        other = (best + 0.1 * torch.randn(7, dtype=torch.float64)).clamp(0.01, 0.99)
        assert theory.value(other, p_data, p_g) < theory.value(best, p_data, p_g)


def test_the_value_of_any_discriminator_against_quadrature(pair, error):
    p_data, p_g = pair
    expected = quadrature(
        lambda x: -p_data(x) * math.log1p(math.exp(-x / 2)) - p_g(x) * math.log1p(math.exp(x / 2))
    )  # D = sigmoid(x / 2)
    found = theory.value(torch.sigmoid(X / 2), on_grid(p_data), on_grid(p_g), X)
    assert found.item() == pytest.approx(expected, abs=error)


def test_the_criterion_against_quadrature(pair, error):
    p_data, p_g = pair

    def integrand(x):
        p, q = p_data(x), p_g(x)
        return x_log_ratio(p, p, p + q) + x_log_ratio(q, q, p + q)

    assert theory.criterion(on_grid(p_data), on_grid(p_g), X).item() == pytest.approx(quadrature(integrand), abs=error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_criterion_is_the_value_at_the_optimal_discriminator(pair, dtype):
    """Also in the tails, where D* rounds to 1: log(1 - D*) would be -inf there."""
    p_data, p_g = ((p / torch.trapezoid(p, X)).to(dtype) for p in map(on_grid, pair))
    best = theory.optimal_discriminator(p_data, p_g)
    found, expected = theory.value(best, p_data, p_g, X.to(dtype)), theory.criterion(p_data, p_g, X.to(dtype))
    torch.testing.assert_close(found, expected, atol=100 * torch.finfo(dtype).eps, rtol=0)


def test_a_discriminator_that_is_certain_and_wrong_has_value_minus_infinity():
    half = torch.tensor([0.5, 0.5])
    for d in ([1.0, 0.5], [0.0, 0.5]):
        assert theory.value(torch.tensor(d), half, half).item() == -math.inf
    outside = torch.tensor([0.0, 1.0])
    assert theory.value(torch.tensor([0.0, 0.5]), outside, outside).item() == pytest.approx(-LOG4)


def test_the_criterion_has_its_minimum_exactly_at_the_data(pair):
    for density in pair:
        p = on_grid(density)
        assert abs(theory.criterion(p, p, X).item() + LOG4) <= 1e-12
        assert abs(theory.value(torch.full_like(X, 0.5), p, p, X).item() + LOG4) <= 1e-12
    p_data = on_grid(pair[0])
    for step in (1e-3, 1e-2, 0.1, 1):
        p_g = (1 - step) * p_data + step * on_grid(pair[1])
        assert theory.criterion(p_data, p_g, X).item() > -LOG4


# Divergences


def test_kl_against_quadrature(pair, error):
    p, q = pair
    expected = quadrature(lambda x: x_log_ratio(p(x), p(x), q(x)))
    assert theory.kl(on_grid(p), on_grid(q), X).item() == pytest.approx(expected, abs=error)


def test_jsd_is_the_mean_of_two_kl(pair):
    p, q = (on_grid(density) for density in pair)
    expected = (theory.kl(p, (p + q) / 2, X) + theory.kl(q, (p + q) / 2, X)) / 2
    torch.testing.assert_close(theory.jsd(p, q, X), expected, atol=1e-12, rtol=0)
    assert theory.jsd(p, q, X) == theory.jsd(q, p, X)


def test_wasserstein1_against_quadrature(pair):
    p, q = pair
    a, b = on_grid(p), on_grid(q)
    samples = X.numpy()
    expected = stats.wasserstein_distance(samples, samples, a.numpy(), b.numpy())
    assert theory.wasserstein1(a, b, X).item() == pytest.approx(expected, abs=1e-4)


def test_wasserstein1_of_a_shift_is_the_shift():
    for shift in (0.5, 3.0):
        p, q = on_grid(normal(-1, 0.7)), on_grid(normal(-1 + shift, 0.7))
        assert theory.wasserstein1(p, q, X).item() == pytest.approx(shift, abs=1e-9)


def test_what_equals_has_no_distance(pair):
    p = on_grid(pair[0])
    for distance in (theory.kl, theory.jsd, theory.wasserstein1, theory.non_saturating_divergence):
        assert distance(p, p, X).item() == 0


def test_inequalities_hold_on_any_grid():
    """The grid need not resolve the densities: on it they are discrete distributions."""
    x = torch.tensor([-3.0, -1, -0.5, 2, 2.1, 5], dtype=torch.float64)
    for _ in range(50):
        p, q = (density / torch.trapezoid(density, x) for density in torch.rand(2, 6, dtype=torch.float64))
        assert theory.kl(p, q, x) > 0
        assert 0 < theory.jsd(p, q, x) < LOG2
        assert -LOG4 < theory.criterion(p, q, x) < 0
        assert theory.non_saturating_divergence(p, q, x) > 0


def test_kl_is_infinite_where_only_q_is_zero():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert theory.kl(p, q).item() == math.inf
    assert theory.kl(q, p).item() == pytest.approx(LOG2)
    assert theory.non_saturating_divergence(q, p).item() == math.inf


# What the generator descends


def log_density(mean, std=1.0):
    return lambda x: -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


def log_mixture(x):
    return torch.logaddexp(math.log(0.3) + log_density(-2, 0.5)(x), math.log(0.7) + log_density(1, 0.8)(x))


@pytest.mark.parametrize("objective", ["saturating", "non_saturating"])
def test_the_generator_gradient_against_quadrature(objective):
    def softplus(t):
        return max(t, 0) + math.log1p(math.exp(-abs(t)))

    def loss(shift):  # the logit of D is sin(2 x) - x / 2
        sign = -1 if objective == "saturating" else 1
        return quadrature(lambda x: sign * mixture(x) * softplus(-sign * (math.sin(2 * (x + shift)) - (x + shift) / 2)))

    found = theory.generator_gradient(lambda x: torch.sin(2 * x) - x / 2, on_grid(mixture), X, objective)
    assert found.item() == pytest.approx((loss(1e-3) - loss(-1e-3)) / 2e-3, abs=1e-6)


def slope(function, at):
    return ((function(at + 1e-4) - function(at - 1e-4)) / 2e-4).item()


@pytest.mark.parametrize("mean", [-2.0, -0.5, 1.0, 2.5])
def test_at_the_optimal_discriminator_the_gradients_are_those_of_two_divergences(mean):
    """Saturating: 2 JSD. Non-saturating: KL(p_g || p_data) - 2 JSD. D* is held fixed in one, and not in the other."""
    p_data = log_mixture(X).exp()

    def p_g(mean):
        return log_density(mean)(X).exp()

    def at_best(objective):
        return theory.generator_gradient(
            lambda x: log_mixture(x) - log_density(mean)(x), p_g(mean), X, objective
        ).item()

    two_jsd = slope(lambda m: 2 * theory.jsd(p_data, p_g(m), X), mean)
    divergence = slope(lambda m: theory.kl(p_g(m), p_data, X) - 2 * theory.jsd(p_data, p_g(m), X), mean)
    assert at_best("saturating") == pytest.approx(two_jsd, abs=1e-7)
    assert at_best("non_saturating") == pytest.approx(divergence, abs=1e-7)


def test_the_non_saturating_divergence_is_reverse_kl_minus_two_jsd(pair):
    p_data, p_g = (on_grid(density) for density in pair)
    expected = theory.kl(p_g, p_data, X) - 2 * theory.jsd(p_data, p_g, X)
    torch.testing.assert_close(theory.non_saturating_divergence(p_data, p_g, X), expected, atol=1e-12, rtol=1e-12)


def test_the_non_saturating_gradient_leads_to_the_minimum_of_that_divergence():
    example = run_example("non_saturating")
    for objective, name in (("saturating", "2 JSD"), ("non_saturating", "KL($p_g$ || $p_{data}$) - 2 JSD")):
        least = example["means"][torch.stack(example["curves"][name]).argmin()].item()
        assert example["ends"][objective] == pytest.approx(least, abs=0.03)  # the means are 0.05 apart
    assert abs(example["ends"]["saturating"] - example["ends"]["non_saturating"]) > 0.2


# Proposition 2


def test_at_rate_one_the_distance_halves():
    p_data, start = random_probabilities(), random_probabilities()
    history = theory.descend_criterion(p_data, start, steps=10)
    assert history.shape == (11, 7)
    torch.testing.assert_close(history[0], start)
    for step, p_g in enumerate(history):
        torch.testing.assert_close(p_g - p_data, (start - p_data) / 2**step, atol=1e-15, rtol=0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_every_step_lowers_the_criterion_and_the_last_ones_reach_the_data(rate):
    p_data, start = random_probabilities(), torch.tensor([0.94] + [0.01] * 6, dtype=torch.float64)
    history = theory.descend_criterion(p_data, start, steps=300, rate=rate)
    values = torch.stack([theory.criterion(p_data, p_g) for p_g in history])
    assert (values.diff() <= 1e-15).all()
    torch.testing.assert_close(history.sum(1), torch.ones(301, dtype=torch.float64))
    torch.testing.assert_close(history[-1], p_data, atol=1e-6, rtol=0)


def test_a_step_follows_the_gradient_of_the_criterion():
    """log(p_g) moves by -rate times the derivative of C(G), but for the constant that keeps the sum."""
    p_data, start = random_probabilities(), random_probabilities()
    probabilities = start.clone().requires_grad_()
    share = p_data / (p_data + probabilities)
    (p_data * share.log() + probabilities * (1 - share).log()).sum().backward()
    moved = (theory.descend_criterion(p_data, start, steps=1, rate=0.3)[1] / start).log() + 0.3 * probabilities.grad
    torch.testing.assert_close(moved, moved[:1].expand(7), atol=1e-13, rtol=0)


def test_gradients_where_both_densities_are_zero():
    """An outcome that neither has adds nothing, to the gradients of the others neither."""
    p, q = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.tensor([0.2, 0.5, 0.3, 0.0])
    for measure in (theory.criterion, theory.jsd, theory.kl):
        gradients = []
        for outcomes in (4, 3):
            wanted = p[:outcomes].double().requires_grad_()
            (gradient,) = torch.autograd.grad(measure(wanted, q[:outcomes].double()), wanted)
            gradients.append(gradient)
        torch.testing.assert_close(gradients[0][:3], gradients[1])
        assert gradients[0].isfinite().all()


# Forward and reverse KL


def test_the_forward_fit_has_the_mean_and_the_variance():
    mean, std = theory.fit_gaussian(on_grid(mixture), X, "forward")
    assert mean == pytest.approx(-0.6 + 0.7, abs=1e-9)
    assert std**2 == pytest.approx(0.3 * (4 + 0.25) + 0.7 * (1 + 0.64) - 0.01, abs=1e-9)


def test_the_reverse_fit_against_quadrature():
    def reverse_kl(parameters):
        mean, log_std = parameters
        q = normal(mean, math.exp(log_std))
        return quadrature(lambda x: x_log_ratio(q(x), q(x), mixture(x)))

    mean, std = theory.fit_gaussian(on_grid(mixture), X, "reverse")
    best = reverse_kl((mean, math.log(std)))
    for step in ((1e-2, 0), (-1e-2, 0), (0, 1e-2), (0, -1e-2)):
        assert best < reverse_kl((mean + step[0], math.log(std) + step[1]))
    assert best < reverse_kl((-2, math.log(0.5))), "the smaller mode is a local minimum"


def test_a_normal_distribution_is_its_own_fit():
    for direction in ("forward", "reverse"):
        assert theory.fit_gaussian(on_grid(normal(-0.7, 1.3)), X, direction) == pytest.approx((-0.7, 1.3), abs=1e-5)


# Bad input

HALF = torch.tensor([0.5, 0.5])
LINE = torch.tensor([0.0, 2.0])


@pytest.mark.parametrize(
    ("call", "expected", "message"),
    [
        (lambda: theory.kl([0.5, 0.5], HALF), TypeError, "kl: p must be a tensor, got list"),
        (lambda: theory.kl(HALF, [0.5, 0.5]), TypeError, "kl: q must be a tensor, got list"),
        (lambda: theory.jsd(HALF.half(), HALF), TypeError, "jsd: p must be float32 or float64, got torch.float16"),
        (lambda: theory.jsd(HALF, HALF.double()), TypeError, "jsd: q must have the dtype of p"),
        (lambda: theory.kl(HALF, torch.ones(3) / 3), ValueError, r"kl: q must have shape \[2\] as p, got \[3\]"),
        (lambda: theory.kl(HALF[None], HALF[None]), ValueError, r"kl: p must have shape \[n\], n >= 1, got \[1, 2\]"),
        (lambda: theory.kl(HALF, 3 * HALF), ValueError, r"kl: q must sum to 1 \(within 0.01\), got 3"),
        (lambda: theory.kl(HALF, HALF, 2 * LINE), ValueError, "p must integrate to 1 over x .within 0.01., got 2"),
        (lambda: theory.kl(HALF, HALF, LINE.flip(0)), ValueError, "x must be at least two increasing numbers, got"),
        (lambda: theory.criterion(HALF, torch.tensor([1.5, -0.5])), ValueError, "p_g must be a density.*got -0.5"),
        (lambda: theory.criterion(torch.tensor([1, math.nan]), HALF), ValueError, "p_data must be a density.*got nan"),
        (lambda: theory.optimal_discriminator(HALF, HALF[:1]), ValueError, r"p_g must have shape \[2\] as p_data"),
        (lambda: theory.value(2 * HALF + 0.5, HALF, HALF), ValueError, r"d must be in \[0, 1\], got values in \[1.5"),
        (lambda: theory.value(HALF[:1], HALF, HALF), ValueError, r"value: d must have shape \[2\] as p_data, got"),
        (lambda: theory.wasserstein1(HALF, HALF, None), TypeError, "wasserstein1: x must be a tensor, got NoneType"),
        (
            lambda: theory.generator_gradient(lambda x: x, HALF, LINE, "wasserstein"),
            ValueError,
            "objective must be 'saturating' or 'non_saturating', got 'wasserstein'",
        ),
        (
            lambda: theory.generator_gradient(lambda x: x[:, None], HALF, LINE),
            ValueError,
            r"logit\(x\) must have shape \[2\], got \[2, 1\]",
        ),
        (lambda: theory.descend_criterion(HALF, HALF, -1), ValueError, "steps must be at least 0, got -1"),
        (lambda: theory.descend_criterion(HALF, HALF, 1, rate=1.5), ValueError, r"rate must be in \(0, 1\], got 1.5"),
        (lambda: theory.descend_criterion(HALF, torch.tensor([1.0, 0]), 1), ValueError, "p_g must be positive where"),
        (lambda: theory.fit_gaussian(HALF, LINE, "backward"), ValueError, "direction must be 'forward' or 'reverse'"),
        (
            lambda: theory.fit_gaussian(torch.tensor([0.0, 1, 0]), torch.arange(3.0), "reverse"),
            ValueError,
            "p must be positive on the whole grid for 'reverse'",
        ),
    ],
)
def test_bad_input_is_refused(call, expected, message):
    with pytest.raises(expected, match=message):
        call()


# The demonstrations of examples/theory


def run_example(name):
    """The names that a demonstration leaves behind."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        try:
            return runpy.run_path(str(EXAMPLES / f"plot_{name}.py"))
        finally:
            matplotlib.pyplot.close("all")


def test_a_trained_discriminator_is_near_the_optimal_one(one_thread):
    example = run_example("optimal_discriminator")
    assert example["seen"].sum() > 600, "of 1001 points from -5 to 5"
    assert example["distance"] < 0.05
    assert example["distance_2d"] < 0.15


def test_the_game_converges(one_thread):
    example = run_example("game")
    stages, distances = example["stages"], example["distances"]
    assert distances[3] < 0.02 < 0.3 < distances[0]
    on_data = stages[3].p_data > 0.1 * stages[3].p_data.max()
    assert (stages[3].d[on_data] - 0.5).abs().max() < 0.15
    density = stages[1].p_data + stages[1].p_g
    assert (stages[1].d - stages[1].d_optimal)[density > 0.1 * density.max()].abs().max() < 0.1


def test_a_generator_that_is_trained_alone_collapses_and_the_health_line_says_so(one_thread):
    example = run_example("mode_collapse")
    before, collapsed, after = (entry["spread"] for entry in example["history"])
    assert before > 1.5
    assert collapsed < 0.1
    assert "the generator collapses" in example["sentence"]
    d, samples = example["stages"][1].d, example["stages"][1].g_z
    assert (samples - example["x"][d.argmax()]).abs().max() < 0.3, "all at the maximum of D"
    assert after > 0.4


def test_the_saturating_gradient_dies_as_the_discriminator_improves(one_thread):
    example = run_example("saturation")
    (saturating, non_saturating), best = example["found"][1000], example["best"]
    assert saturating < 0.5 * example["found"][20][0]
    assert non_saturating > 2 * example["found"][20][1]
    assert non_saturating > 300 * saturating
    assert best[1] > 1000 * best[0]


def test_jsd_of_disjoint_supports_is_log_2_while_wasserstein1_grows():
    example = run_example("disjoint_supports")
    apart = example["shifts"] >= 1 - 1e-9
    torch.testing.assert_close(example["jsd"][apart], torch.full_like(example["jsd"][apart], LOG2), atol=1e-12, rtol=0)
    torch.testing.assert_close(example["distance"], example["shifts"], atol=1e-9, rtol=0)


def test_forward_kl_covers_both_modes_and_reverse_kl_takes_one():
    fits = run_example("kl_directions")["fits"]
    assert fits["forward"] == pytest.approx((-0.2, 2.321), abs=1e-3)
    assert fits["reverse"] == pytest.approx((-2, 0.8), abs=0.02)


@pytest.mark.parametrize("name", ["criterion", "proposition2"])
def test_the_other_demonstrations_run(name):
    assert run_example(name)["figure"].axes
