"""The theory of the 2014 paper (section 4) as code: the optimal discriminator, the criterion and the divergences.

Every function works on a grid: `p` holds the values of a density at the points `x`, both [n], and integrals are sums by
the trapezoidal rule. Its weights turn a density into n probabilities, normalised to 1, so that the theorems hold on the
grid up to rounding, whatever its spacing: C(G) >= -log 4, 0 <= JSD <= log 2, KL >= 0. Without `x`, `p` holds the
probabilities of n outcomes. Nothing here is trained; docs/theory.md shows the formulas and the pictures.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pygan.ops._checks import check_dtype, check_same, check_shape, check_tensor

__all__ = [
    "criterion",
    "descend_criterion",
    "fit_gaussian",
    "generator_gradient",
    "jsd",
    "kl",
    "non_saturating_divergence",
    "optimal_discriminator",
    "value",
    "wasserstein1",
]

_TOLERANCE = (
    0.01  # how far from 1 an integral may be: room for the tails and jumps that a grid cuts off, not for a mistake
)


def optimal_discriminator(p_data: Tensor, p_g: Tensor) -> Tensor:
    """Return D*(x) = p_data(x) / (p_data(x) + p_g(x)), the best discriminator for a fixed generator (Proposition 1).

    Args:
        p_data: density of the data at some points, any shape, float32 or float64, >= 0.
        p_g: density of the generator's samples at the same points; same shape and dtype.

    Returns:
        Probabilities in [0, 1], same shape. Where both densities are 0, D* may be anything; 1/2 is returned.

    Raises:
        TypeError: not tensors, not floating point, different dtypes.
        ValueError: different shapes or devices, or values that are negative, infinite or NaN.
    """
    op = "optimal_discriminator"
    _check_density(op, "p_data", p_data)
    _check_density(op, "p_g", p_g)
    _check_pair(op, "p_g", p_g, "p_data", p_data)
    return _share(p_data, p_g)


def value(d: Tensor, p_data: Tensor, p_g: Tensor, x: Tensor | None = None) -> Tensor:
    """Return V(G, D) = E_data log D(x) + E_g log(1 - D(x)), the value of the game (equations 1 and 3).

    Args:
        d: D(x) in [0, 1] on the grid, [n].
        p_data: density of the data on the grid, [n], float32 or float64.
        p_g: density of the generator's samples on the grid, [n], same dtype.
        x: the grid, [n], increasing. None: p_data and p_g are probabilities of n outcomes.

    Returns:
        V in nats, 0-dimensional, <= 0; -inf if D is certain and wrong where there is probability. A `d` that is 0 or 1
        only because D* was rounded gives no -inf: V(G, D*) is C(G).

    Raises:
        TypeError: not tensors, not floating point, different dtypes.
        ValueError: different shapes or devices; d outside [0, 1]; a density that is negative, infinite or NaN, or whose
            integral differs from 1 by more than .01; a grid that does not increase.
    """
    op = "value"
    real, fake = _masses(op, x, p_data=p_data, p_g=p_g)
    check_tensor(op, "d", d)
    _check_pair(op, "d", d, "p_data", p_data)
    if not ((d >= 0) & (d <= 1)).all():
        raise ValueError(f"{op}: d must be in [0, 1], got values in [{d.min().item():g}, {d.max().item():g}]")
    limits, best, best_not = torch.finfo(d.dtype), _share(real, fake), _share(fake, real)
    not_d = torch.where((d == 1) & (best_not < limits.eps), best_not, 1 - d)  # D* so near to 1 is rounded to 1
    d = torch.where((d == 0) & (best < limits.tiny), best, d)
    return (torch.xlogy(real, d) + torch.xlogy(fake, not_d)).sum()


def criterion(p_data: Tensor, p_g: Tensor, x: Tensor | None = None) -> Tensor:
    """Return C(G) = max_D V(G, D) = -log 4 + 2 JSD(p_data, p_g), the generator's criterion (Theorem 1, equation 6).

    Args:
        p_data: density of the data on the grid, [n], float32 or float64.
        p_g: density of the generator's samples on the grid, [n], same dtype.
        x: the grid, [n], increasing. None: probabilities of n outcomes.

    Returns:
        C(G) in nats, 0-dimensional, in [-log 4, 0]: -log 4 exactly where p_g = p_data.

    Raises:
        TypeError, ValueError: as `value`.
    """
    return 2 * _jsd(*_masses("criterion", x, p_data=p_data, p_g=p_g)) - math.log(4)


def kl(p: Tensor, q: Tensor, x: Tensor | None = None) -> Tensor:
    """Return KL(p || q) = E_p log(p / q), the Kullback-Leibler divergence.

    Args:
        p: density on the grid, [n], float32 or float64.
        q: density on the grid, [n], same dtype.
        x: the grid, [n], increasing. None: probabilities of n outcomes.

    Returns:
        The divergence in nats, 0-dimensional, >= 0; inf if q is 0 where p is not.

    Raises:
        TypeError, ValueError: as `value`.
    """
    return _kl(*_masses("kl", x, p=p, q=q))


def jsd(p: Tensor, q: Tensor, x: Tensor | None = None) -> Tensor:
    """Return JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2, the Jensen-Shannon divergence (equation 6).

    Args:
        p: density on the grid, [n], float32 or float64.
        q: density on the grid, [n], same dtype.
        x: the grid, [n], increasing. None: probabilities of n outcomes.

    Returns:
        The divergence in nats, 0-dimensional: 0 if p = q, log 2 if p and q are never both positive.

    Raises:
        TypeError, ValueError: as `value`.
    """
    return _jsd(*_masses("jsd", x, p=p, q=q))


def wasserstein1(p: Tensor, q: Tensor, x: Tensor) -> Tensor:
    """Return W1(p, q), the least mean distance over which probability must be moved to turn p into q.

    On the line it is the area between the two distribution functions (Vallender 1974).

    Args:
        p: density on the grid, [n], float32 or float64.
        q: density on the grid, [n], same dtype.
        x: the grid, [n], increasing.

    Returns:
        The distance in the unit of x, 0-dimensional, >= 0.

    Raises:
        TypeError, ValueError: as `value`.
    """
    check_tensor("wasserstein1", "x", x)
    _masses("wasserstein1", x, p=p, q=q)
    cumulative_p, cumulative_q = torch.cumulative_trapezoid(p, x), torch.cumulative_trapezoid(q, x)
    difference = cumulative_p / cumulative_p[-1] - cumulative_q / cumulative_q[-1]
    return torch.trapezoid(torch.nn.functional.pad(difference.abs(), (1, 0)), x)


def non_saturating_divergence(p_data: Tensor, p_g: Tensor, x: Tensor | None = None) -> Tensor:
    """Return KL(p_g || p_data) - 2 JSD(p_data, p_g), what the non-saturating generator descends at D = D*.

    The gradient of the non-saturating loss -E log D*(G(z)), with D* held fixed, is the gradient of this divergence
    (Arjovsky and Bottou 2017, Theorem 2.5). It equals 2 KL((p_data + p_g) / 2 || p_data), so its minimum is 0, at
    p_g = p_data.

    Args:
        p_data: density of the data on the grid, [n], float32 or float64.
        p_g: density of the generator's samples on the grid, [n], same dtype.
        x: the grid, [n], increasing. None: probabilities of n outcomes.

    Returns:
        The divergence in nats, 0-dimensional, >= 0; inf if p_data is 0 where p_g is not.

    Raises:
        TypeError, ValueError: as `value`.
    """
    real, fake = _masses("non_saturating_divergence", x, p_data=p_data, p_g=p_g)
    return 2 * _kl((real + fake) / 2, real)


def generator_gradient(
    logit: Callable[[Tensor], Tensor],
    p_g: Tensor,
    x: Tensor,
    objective: Literal["saturating", "non_saturating"] = "non_saturating",
) -> Tensor:
    """Return the derivative of the generator's loss with respect to a common shift of its samples, D held fixed.

    For the loss E f(D(G(z) + t)) it is the derivative with respect to t at 0. With the logit l = log D - log(1 - D)
    that is E_g[-D l'] for the saturating loss, f = log(1 - D), and E_g[-(1 - D) l'] for the non-saturating one,
    f = -log D (end of section 3).

    Args:
        logit: the logit of D as a differentiable function of points [n], such as a trained discriminator; returns [n].
        p_g: density of the generator's samples on the grid, [n], float32 or float64.
        x: the grid, [n], increasing.
        objective: "saturating" or "non_saturating".

    Returns:
        The derivative in nats per unit of x, 0-dimensional. Descent moves the samples in the opposite direction.

    Raises:
        TypeError: not tensors, not floating point, different dtypes.
        ValueError: an unknown objective; logits of another shape; otherwise as `value`.
    """
    op = "generator_gradient"
    if objective not in ("saturating", "non_saturating"):
        raise ValueError(f"{op}: objective must be 'saturating' or 'non_saturating', got {objective!r}")
    (mass,) = _masses(op, x, p_g=p_g)
    with torch.enable_grad():
        points = x.detach().requires_grad_()
        logits = logit(points)
        check_shape(op, "logit(x)", logits, str(list(x.shape)), logits.shape == x.shape)
        (slopes,) = torch.autograd.grad(logits.sum(), points)
    weights = torch.sigmoid(logits.detach() * (1 if objective == "saturating" else -1))
    return -(mass * weights * slopes).sum()


def descend_criterion(p_data: Tensor, p_g: Tensor, steps: int, rate: float = 1.0) -> Tensor:
    """Return the p_g of every step when the generator descends C(G) and D is optimal at each step (Proposition 2).

    The gradient of C(G) with respect to p_g is log(1 - D*), and p_g must stay a distribution. So each step multiplies
    p_g by exp(-rate * log(1 - D*)) and normalises. With rate 1 the result is the mean of p_g and p_data: their
    distance halves in every step. C(G) never rises for rates up to 1.

    Args:
        p_data: probabilities of n outcomes, [n], float32 or float64.
        p_g: probabilities at the start, [n], same dtype; positive wherever p_data is.
        steps: number of steps, >= 0.
        rate: step size in (0, 1].

    Returns:
        [steps + 1, n], starting with `p_g` itself.

    Raises:
        TypeError: not tensors, not floating point, different dtypes.
        ValueError: steps or rate out of range; p_g is 0 where p_data is not; otherwise as `value`.
    """
    op = "descend_criterion"
    real, fake = _masses(op, None, p_data=p_data, p_g=p_g)
    if steps < 0:
        raise ValueError(f"{op}: steps must be at least 0, got {steps}")
    if not 0 < rate <= 1:
        raise ValueError(f"{op}: rate must be in (0, 1], got {rate}")
    if ((fake == 0) & (real > 0)).any():
        raise ValueError(f"{op}: p_g must be positive where p_data is, got 0 there: such an outcome never returns")
    history = [fake]
    for _ in range(steps):
        # p_g * exp(-rate * log(1 - D*)) with 1 - D* = p_g / (p_data + p_g), without a division by 0
        fake = fake ** (1 - rate) * (real + fake) ** rate
        fake = fake / fake.sum()
        history.append(fake)
    return torch.stack(history)


def fit_gaussian(p: Tensor, x: Tensor, direction: Literal["forward", "reverse"]) -> tuple[float, float]:
    """Return the normal distribution q that is nearest to p by one direction of the Kullback-Leibler divergence.

    "forward" minimises KL(p || q), as maximum likelihood does: q covers all of p, and has its mean and variance.
    "reverse" minimises KL(q || p): q avoids places where p is small, and so takes one mode (Goodfellow 2016, section
    3.2.5).

    Args:
        p: density on the grid, [n], float32 or float64, positive.
        x: the grid, [n], increasing; wide enough that p is negligible at its ends.
        direction: "forward" or "reverse".

    Returns:
        (mean, standard deviation) of q. For "reverse" the best of five local searches, which start at quantiles of p.

    Raises:
        TypeError: not tensors, not floating point, different dtypes.
        ValueError: an unknown direction; a p that is 0 somewhere, for "reverse"; otherwise as `value`.
    """
    op = "fit_gaussian"
    if direction not in ("forward", "reverse"):
        raise ValueError(f"{op}: direction must be 'forward' or 'reverse', got {direction!r}")
    (mass,) = _masses(op, x, p=p)
    mass, points = mass.double(), x.double()
    mean = (mass * points).sum()
    std = (mass * (points - mean) ** 2).sum().sqrt()
    if direction == "forward":
        return mean.item(), std.item()
    if (p == 0).any():
        raise ValueError(f"{op}: p must be positive on the whole grid for 'reverse', got 0: KL(q || p) is infinite")
    at = torch.searchsorted(mass.cumsum(0), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], device=x.device).double())
    found = [_fit_reverse(p.double().log(), points, start, std / 2) for start in points[at].unbind()]
    return min(found)[1:]


def _fit_reverse(log_p: Tensor, x: Tensor, mean: Tensor, std: Tensor) -> tuple[float, float, float]:
    """(KL(q || p) but for a constant, mean, standard deviation) of the local minimum next to a start."""
    with torch.enable_grad():
        parameters = torch.stack([mean, std.log()]).requires_grad_()
        optimizer = torch.optim.LBFGS([parameters], max_iter=200, tolerance_change=1e-14, line_search_fn="strong_wolfe")
        weights = _trapezoidal_weights(x)

        def loss() -> Tensor:
            optimizer.zero_grad()
            log_q = torch.log_softmax(-0.5 * ((x - parameters[0]) / parameters[1].exp()) ** 2 + weights.log(), 0)
            result = (log_q.exp() * (log_q - weights.log() - log_p)).sum()
            result.backward()
            return result

        optimizer.step(loss)
        final = loss().item()
    return final, parameters[0].item(), parameters[1].exp().item()


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL of two vectors of probabilities."""
    absent = p == 0
    return (torch.xlogy(p, p.masked_fill(absent, 1)) - torch.xlogy(p, q.masked_fill(absent, 1))).sum().clamp_min(0)


def _jsd(p: Tensor, q: Tensor) -> Tensor:
    """JSD of two vectors of probabilities: exactly 0 if they are equal."""
    return (torch.xlogy(p, 2 * _share(p, q)) + torch.xlogy(q, 2 * _share(q, p))).sum().clamp_min(0) / 2


def _share(p: Tensor, q: Tensor) -> Tensor:
    """p / (p + q), and 1/2 where both are 0."""
    neither = (p == 0) & (q == 0)
    larger = torch.maximum(p, q).masked_fill(neither, 1)  # the sum of two densities may exceed the largest number
    p, q = p / larger, q / larger
    return torch.where(neither, 0.5, p / (p + q).masked_fill(neither, 1))


def _masses(op: str, x: Tensor | None, **densities: Tensor) -> list[Tensor]:
    """Every density as the probabilities of the grid's points, [n], whose sum is 1."""
    (first_name, first), *others = densities.items()
    _check_density(op, first_name, first)
    check_shape(op, first_name, first, "[n], n >= 1", first.ndim == 1 and len(first) > 0)
    for name, p in others:
        _check_density(op, name, p)
        _check_pair(op, name, p, first_name, first)
    if x is None:
        weights, integral = torch.ones_like(first), "sum to 1"
    else:
        check_tensor(op, "x", x)
        _check_pair(op, "x", x, first_name, first)
        if len(x) < 2 or not (x.diff() > 0).all():
            raise ValueError(f"{op}: x must be at least two increasing numbers, got {x[:3].tolist()} and so on")
        weights, integral = _trapezoidal_weights(x), "integrate to 1 over x"
    for name, p in densities.items():
        total = (p * weights).sum().item()
        if abs(total - 1) > _TOLERANCE:
            raise ValueError(f"{op}: {name} must {integral} (within {_TOLERANCE}), got {total:g}")
    return [p * weights / (p * weights).sum() for p in densities.values()]


def _trapezoidal_weights(x: Tensor) -> Tensor:
    half = torch.nn.functional.pad(x.diff() / 2, (1, 1))
    return half[1:] + half[:-1]


def _check_density(op: str, name: str, p: Tensor) -> None:
    check_tensor(op, name, p)
    if p.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: {name} must be float32 or float64, got {p.dtype}")
    valid = torch.isfinite(p) & (p >= 0)
    if not valid.all():
        raise ValueError(f"{op}: {name} must be a density, finite and nowhere negative, got {p[~valid][0].item():g}")


def _check_pair(op: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    check_dtype(op, name, value)
    check_same(op, name, value, other_name, other)
    check_shape(op, name, value, f"{list(other.shape)} as {other_name}", value.shape == other.shape)
