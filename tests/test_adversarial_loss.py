"""Adversarial losses: values and gradients against float64, tails, second order, and every way torch calls an op."""

import math

import numpy as np
import pytest
import torch
from tolerances import assert_no_worse_than_torch
from torch import Tensor

from pygan.ops import discriminator_loss, generator_loss, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.gpu)]
OBJECTIVES = ["non_saturating", "saturating"]
SIZES = [(1, 1), (3, 5), (100, 100), (1000, 7), (16384, 16385), (70_001, 40_003)]
EMPTY, ON_META = torch.zeros(0, 3), torch.zeros(1, device="meta")
TAILS = [0.0, -0.0, 1e-30, 0.5, 1.0, 17.0, 20.0, 50.0, 87.0, 90.0, 500.0, 1e4]


def both_losses(real: Tensor, fake: Tensor, impl: str) -> list[Tensor]:
    losses = [discriminator_loss(real, fake, impl=impl)]
    return losses + [generator_loss(fake, objective, impl=impl) for objective in OBJECTIVES]


def value_and_gradients(real: Tensor, fake: Tensor, impl: str) -> list[Tensor]:
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    losses = both_losses(real, fake, impl)
    gradients = torch.autograd.grad(losses[0], (real, fake)) + tuple(
        torch.autograd.grad(loss, fake)[0] for loss in losses[1:]
    )
    return [loss.detach() for loss in losses] + list(gradients)


def exact_value_and_gradients(real: Tensor, fake: Tensor) -> list[Tensor]:
    """As `value_and_gradients`, in numpy's long double, rounded to float64."""
    real, fake = (logits.detach().double().cpu().numpy().astype(np.longdouble) for logits in (real, fake))

    def softplus(t: np.ndarray) -> np.ndarray:
        return np.logaddexp(np.longdouble(0), t)

    def logistic(t: np.ndarray) -> np.ndarray:
        return np.exp(-softplus(-t))

    values = [softplus(-real).mean() + softplus(fake).mean(), softplus(-fake).mean(), -softplus(fake).mean()]
    gradients = [-logistic(-real) / real.size, logistic(fake) / fake.size]
    gradients += [-logistic(-fake) / fake.size, -logistic(fake) / fake.size]
    return [torch.from_numpy(np.asarray(exact, dtype=np.float64)) for exact in values + gradients]


@pytest.mark.parametrize("index", range(3))
def test_a_gradient_that_somebody_changes_is_not_the_graphs(index: int) -> None:
    real, fake = torch.randn(2, 6, requires_grad=True)
    loss = both_losses(real, fake, "native")[index]
    (first,) = torch.autograd.grad(loss, fake, retain_graph=True)
    expected = first.clone()
    first.mul_(2)
    assert torch.equal(torch.autograd.grad(loss, fake)[0], expected)


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_value_and_gradient_are_no_worse_than_torch(device: str, dtype: torch.dtype, sizes: tuple[int, int]) -> None:
    if device == "cpu" and dtype is torch.float16:
        pytest.skip("float16 runs on CUDA only")
    real, fake = ((4 * torch.randn(size, device=device)).to(dtype) for size in sizes)
    ours = value_and_gradients(real, fake, "native")
    torchs = value_and_gradients(real, fake, "reference")
    for ours_one, torchs_one, exact in zip(ours, torchs, exact_value_and_gradients(real, fake), strict=True):
        assert_no_worse_than_torch(ours_one, torchs_one, exact.to(device))


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("magnitude", TAILS)
@pytest.mark.parametrize("sign", [1, -1])
def test_exact_in_the_tails(dtype: torch.dtype, magnitude: float, sign: int) -> None:
    mpmath = pytest.importorskip("mpmath", reason="mpmath gives the exact values")
    mpmath.mp.dps = 60
    logit = torch.tensor([sign * magnitude], dtype=dtype, requires_grad=True)
    x = mpmath.mpf(logit.item())
    softplus = lambda t: mpmath.log1p(mpmath.exp(t))  # noqa: E731
    logistic = lambda t: 1 / (1 + mpmath.exp(-t))  # noqa: E731
    exact = {"non_saturating": (softplus(-x), -logistic(-x)), "saturating": (-softplus(x), -logistic(x))}
    info = torch.finfo(dtype)
    for objective, values in exact.items():
        loss = generator_loss(logit, objective)
        (gradient,) = torch.autograd.grad(loss, logit)
        for ours, true in zip((loss, gradient), values, strict=True):
            error = abs(mpmath.mpf(ours.item()) - true)
            if abs(true) > info.tiny:
                assert error <= 4 * info.eps * abs(true)
            else:
                assert error <= info.tiny * info.eps * 2


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_four_eps_hold_for_single_logits_and_for_means(dtype: torch.dtype) -> None:
    """Equal logits are the hard case of a mean: their roundings all go the same way."""
    eps = torch.finfo(dtype).eps
    for size, count in ((1, 4001), (24, 301), (31, 301), (100, 301), (256, 301), (1000, 61), (16_384 + 7, 61)):
        logits = torch.linspace(-30, 30, count, dtype=dtype)
        results = [torch.ops.pygan.generator_loss(logit.expand(size), False, True) for logit in logits]
        wide = logits.numpy().astype(np.longdouble)
        for ours, exact in (
            (torch.stack([loss for loss, _ in results]), np.log1p(np.exp(-abs(wide))) + np.maximum(-wide, 0)),
            (torch.stack([gradient[0] for _, gradient in results]) * -size, 1 / (1 + np.exp(wide))),
        ):
            error = abs(ours.numpy().astype(np.longdouble) / exact - 1) / eps
            assert error.max() <= 4, f"{error.max():.2f} eps, mean of {size} logits {logits[error.argmax()]}"


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [8, 300, 20_000])
def test_sums_may_overflow_where_means_do_not(dtype: torch.dtype, size: int) -> None:
    huge = torch.tensor(torch.finfo(dtype).max / 4, dtype=dtype)
    logits = huge.expand(size).clone().requires_grad_()
    for loss, expected, slope in (
        (generator_loss(-logits), huge, 1),
        (generator_loss(logits, "saturating"), -huge, -1),
        (discriminator_loss(-logits, logits), 2 * huge, 2),
    ):
        torch.testing.assert_close(loss.detach(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)
        (gradient,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(gradient, torch.full_like(logits, slope / size).detach())


def test_infinite_logits_give_the_limits(device: str) -> None:
    logits = torch.tensor([math.inf, -math.inf], device=device, requires_grad=True)
    for value, objective, expected, slope in [
        (0, "non_saturating", 0.0, 0.0),
        (1, "non_saturating", math.inf, -1.0),
        (0, "saturating", -math.inf, -1.0),
        (1, "saturating", 0.0, 0.0),
    ]:
        loss = generator_loss(logits[value], objective)
        assert loss.item() == expected
        assert torch.autograd.grad(loss, logits)[0][value].item() == slope


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("size", [1, 5, 300])
def test_nan_poisons_the_loss_and_its_own_gradient_only(size: int) -> None:
    real, fake = torch.randn(size), torch.randn(size)
    real[size // 2] = math.nan
    loss, *_, real_gradient, fake_gradient, _, _ = value_and_gradients(real, fake, "native")
    assert loss.isnan()
    assert torch.equal(real_gradient.isnan(), real.isnan())
    assert fake_gradient.isfinite().all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_generator_step_raises_d_of_g(objective: str) -> None:
    logits = torch.randn(100, requires_grad=True)
    generator_loss(logits, objective).backward()
    assert (logits.grad < 0).all()


def test_equilibrium_is_log_four() -> None:
    zeros = torch.zeros(10, dtype=torch.float64)
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(math.log(4), rel=1e-15)


def test_minimax_is_saturating() -> None:
    logits = torch.randn(9)
    assert torch.equal(generator_loss(logits, "minimax"), generator_loss(logits, "saturating"))


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_gradcheck_to_second_order(device: str, impl: str) -> None:
    real = torch.randn(5, dtype=torch.float64, device=device, requires_grad=True)
    fake = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    for f, args in [
        (lambda r, g: discriminator_loss(r, g, impl=impl), (real, fake)),
        (lambda g: generator_loss(g, impl=impl), (fake,)),
        (lambda g: generator_loss(g, "saturating", impl=impl), (fake,)),
    ]:
        assert torch.autograd.gradcheck(f, args)
        assert torch.autograd.gradgradcheck(f, args)


@pytest.mark.parametrize("objective", ["discriminator", "non_saturating", "saturating"])
def test_derivatives_of_every_order(objective: str) -> None:
    """Up to the fourth, of a loss's square, so that the loss's own value and slope count at each of them."""
    results = []
    for impl in ("native", "reference"):
        x = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
        if objective == "discriminator":
            value = discriminator_loss(x, 2 * x, impl=impl) ** 2
        else:
            value = generator_loss(x, objective, impl=impl) ** 2
        for _ in range(4):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = (gradient * torch.arange(1, 6)).sum()
        results.append(gradient)
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_only_the_wanted_gradient_flows() -> None:
    real, fake = torch.randn(4, requires_grad=True), torch.randn(4)
    discriminator_loss(real, fake).backward()
    assert real.grad is not None
    assert fake.grad is None
    with torch.no_grad():
        assert not discriminator_loss(real, fake).requires_grad


def test_thread_count_does_not_change_the_bits() -> None:
    real, fake = torch.randn(200_000), torch.randn(100_000)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(value_and_gradients(real, fake, "native"))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strided_and_expanded_logits() -> None:
    base = torch.randn(8, 6)
    for real, fake in [(base[:, ::2], base.t()), (base[0].expand(5, 6), base[1:2, :1].expand(3, 4))]:
        ours = value_and_gradients(real, fake, "native")
        plain = value_and_gradients(real.contiguous(), fake.contiguous(), "native")
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_compiles_without_graph_break() -> None:
    real, fake = torch.randn(6, requires_grad=True), torch.randn(3, requires_grad=True)

    def total(r: Tensor, f: Tensor) -> Tensor:
        return discriminator_loss(r, f) + 2 * generator_loss(f, "saturating")

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(real, fake), (real, fake))
    plain = torch.autograd.grad(total(real, fake), (real, fake))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_func_grad_and_vmap_free_transforms() -> None:
    real, fake = torch.randn(6), torch.randn(3)
    plain = value_and_gradients(real, fake, "native")
    assert torch.equal(torch.func.grad(discriminator_loss)(real, fake), plain[3])
    assert torch.equal(torch.func.grad(generator_loss)(fake), plain[5])


def test_autocast_computes_in_float32() -> None:
    logits = torch.randn(50, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = generator_loss(logits)
    assert loss.dtype is torch.float32
    assert torch.autograd.grad(loss, logits)[0].dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device: str, dtype: torch.dtype) -> None:
    real, fake = torch.randn(4, device=device, dtype=dtype), torch.randn(2, 3, device=device, dtype=dtype)
    for with_gradient in (True, False):
        torch.library.opcheck(torch.ops.pygan.discriminator_loss.default, (real, fake, with_gradient))
        torch.library.opcheck(torch.ops.pygan.generator_loss.default, (fake, True, with_gradient))


@pytest.mark.parametrize("with_gradient", [True, False])
def test_bare_ops_have_the_derivative_of_the_function(with_gradient: bool) -> None:
    """An exported graph calls them where gradients are on, traced with gradients or without."""
    logits = torch.randn(4, requires_grad=True)
    expected = torch.autograd.grad(generator_loss(logits), logits)[0]
    loss, gradient = torch.ops.pygan.generator_loss(logits, False, with_gradient)
    assert torch.equal(torch.autograd.grad(loss, logits)[0], expected)
    assert gradient.numel() == (4 if with_gradient else 0)


def test_float16_on_the_cpu_falls_back_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pygan.ops._library._noticed", set())
    logits = torch.randn(4).half()
    with pytest.warns(UserWarning, match=r"no native kernel for torch\.float16 on 'cpu'"):
        loss = generator_loss(logits)
    assert torch.equal(loss, reference.generator_loss(logits))
    generator_loss(logits)  # the second call is silent: warnings are errors here
    with pytest.raises(RuntimeError, match="no native kernel"):
        generator_loss(logits, impl="native")


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, r"real_logits must be a tensor, got list", ([1.0], torch.zeros(1))),
        (
            ValueError,
            r"fake_logits must have at least one element, got shape \[0, 3\]",
            (torch.zeros(1), torch.ones(0, 3)),
        ),
        (TypeError, r"real_logits must be float16, .* got torch\.int64", (torch.ones(1).long(), torch.zeros(1))),
        (TypeError, r"fake_logits must have the dtype of real_logits", (torch.zeros(1), torch.zeros(1).double())),
        (
            ValueError,
            r"fake_logits must be on the device of real_logits",
            (torch.zeros(1), torch.zeros(1, device="meta")),
        ),
    ],
)
def test_bad_discriminator_input(error: type[Exception], message: str, arguments: tuple[object, object]) -> None:
    with pytest.raises(error, match="discriminator_loss: " + message):
        discriminator_loss(*arguments)


def test_bad_objective_and_impl() -> None:
    with pytest.raises(ValueError, match="objective must be 'non_saturating' or 'saturating', got 'wasserstein'"):
        generator_loss(torch.zeros(1), "wasserstein")
    with pytest.raises(ValueError, match="impl must be 'auto', 'native' or 'reference', got 'fast'"):
        generator_loss(torch.zeros(1), impl="fast")


def test_gradients_may_be_changed_in_place_between_two_backward_passes() -> None:
    """A backward pass with gradient 1 hands out what the forward pass stored."""
    logits = torch.randn(5, requires_grad=True)
    loss = generator_loss(logits)
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    logits.grad.zero_()
    loss.backward(retain_graph=True)
    assert torch.equal(logits.grad, once)
    loss.backward()
    assert torch.equal(logits.grad, 2 * once)


def test_meta_tensors_have_a_shape_only() -> None:
    logits = torch.empty(2**32, device="meta", requires_grad=True)
    loss = discriminator_loss(logits, logits)
    assert loss.is_meta
    loss.backward()
    assert logits.grad.shape == logits.shape
