"""Maxout: values, winners and gradients against float64, on both routes of the backward pass, at every SIMD level."""

import math
import sys

import numpy as np
import pytest
import torch
from tolerances import assert_no_worse_than_torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pygan.ops import maxout, maxout_pool, reference

OPS = torch.ops.pygan
DTYPES = [torch.float32, torch.float64, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.gpu)]
SHAPES = [  # batch, in, units, pieces
    (1, 1, 1, 1),
    (4, 3, 2, 3),
    (105, 65, 129, 2),  # one more than a tile of examples, of columns, a block of units
    (260, 17, 5, 7),
    (33, 130, 3, 256),
    (200, 300, 60, 5),
]
NAN, INF = math.nan, math.inf


@pytest.fixture(params=["winners only", "dense"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of computing the gradients, whatever the shape."""
    module = sys.modules["pygan.ops.maxout"]
    answer = request.param == "winners only"
    monkeypatch.setattr(module, "_winners_only", lambda grad, size, *_, **__: answer and grad.numel() > 0 and size > 0)


def layer(
    batch: int, size: int, units: int, pieces: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias; the values are rounded to dtype before anybody computes with them."""
    x = torch.randn(batch, size, device=device)
    weight = torch.randn(units, pieces, size, device=device) / math.sqrt(max(size, 1))
    return x.to(dtype), weight.to(dtype), torch.randn(units, pieces, device=device).to(dtype)


def needing_gradients(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.clone().requires_grad_() for tensor in tensors)


def one_hot(index: Tensor, grad: Tensor, pieces: int) -> Tensor:
    """The dense gradient of the products: [batch, units * pieces]."""
    z = grad.new_zeros(*grad.shape, pieces)
    return z.scatter_(2, index.long().unsqueeze(2), grad.unsqueeze(2)).flatten(1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float64, for float64 itself in C's long double."""
    if b.dtype is not torch.float64:
        return a.double() @ b.double()
    wide, other = (tensor.double().cpu().numpy().astype(np.longdouble) for tensor in (a, b))
    return torch.from_numpy((wide @ other).astype(np.float64)).to(a.device)


# ---- values and gradients against float64 ---------------------------------------------------------------------------


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_is_no_worse_than_torch(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if device == "cpu" and dtype is torch.float16:
        pytest.skip("float16 runs on CUDA only")
    tensors = layer(*shape, dtype=dtype, device=device)
    x, weight, bias = tensors
    exact = product(x, weight.flatten(0, 1).t()) + bias.double().flatten()
    exact = exact.view(len(x), *bias.shape).amax(2)
    assert_no_worse_than_torch(maxout(*tensors, impl="native"), reference.maxout(*tensors), exact)


@pytest.mark.usefixtures("simd_level", "route")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_no_worse_than_torch(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """With the winners given, because rounding may decide a near tie differently in float64."""
    if device == "cpu" and dtype is torch.float16:
        pytest.skip("float16 runs on CUDA only")
    batch, _, units, pieces = shape
    x, weight, _ = layer(*shape, dtype=dtype, device=device)
    grad = torch.randn(batch, units, device=device).to(dtype)
    index = torch.randint(pieces, (batch, units), device=device).byte()
    ours = OPS.maxout_grad_input(grad, weight, index), *OPS.maxout_grad_weight(grad, x, index, pieces)

    z, rows = one_hot(index, grad, pieces), weight.flatten(0, 1)
    torchs = z @ rows, (z.t() @ x).view_as(weight), z.sum(0).view(units, pieces)
    ones = torch.ones(1, batch, device=device)
    exact = product(z, rows), product(z.t(), x).view_as(weight), product(ones, z).view(units, pieces)
    for triple in zip(ours, torchs, exact, strict=True):
        assert_no_worse_than_torch(*triple)


@pytest.mark.usefixtures("route")
def test_gradients_of_the_whole_layer(device: str) -> None:
    tensors = needing_gradients(layer(50, 20, 30, 4, device=device))
    outer = torch.randn(50, 30, dtype=torch.float64, device=device)
    ours = torch.autograd.grad(maxout(*tensors), tensors, outer)
    torchs = torch.autograd.grad(reference.maxout(*tensors), tensors, outer)
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck_to_second_order(device: str, with_bias: bool) -> None:
    arguments = needing_gradients(layer(5, 4, 3, 3, device=device))[: 3 if with_bias else 2]
    assert torch.autograd.gradcheck(maxout, arguments)
    assert torch.autograd.gradgradcheck(maxout, arguments)


def test_third_order() -> None:
    """T is linear in g, x and weight: the third mixed derivative is a constant, and it is there."""
    tensors = needing_gradients(layer(3, 2, 2, 2))

    def third(f) -> Tensor:
        (by_x,) = torch.autograd.grad(f(*tensors).square().sum(), tensors[0], create_graph=True)
        (by_weight,) = torch.autograd.grad(by_x.square().sum(), tensors[1], create_graph=True)
        return torch.autograd.grad(by_weight.square().sum(), tensors[0])[0]

    torch.testing.assert_close(third(maxout), third(reference.maxout))


@pytest.mark.parametrize("shape", [(2, 6), (3, 4, 5), (2, 6, 3, 2), (1, 2, 1, 70)])
def test_pool_gradcheck_to_second_order(device: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: maxout_pool(x, 2), x)
    assert torch.autograd.gradgradcheck(lambda x: maxout_pool(x, 2), x)


def test_a_critic_of_unit_slope_has_no_gradient_penalty() -> None:
    """The penalty of WGAN-GP goes through the second derivative; for a linear critic of unit weights it is 0."""
    weight = torch.full((1, 1, 16), 0.25, dtype=torch.float64, requires_grad=True)
    x = torch.randn(64, 16, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(maxout(x, weight).sum(), x, create_graph=True)
    penalty = (slope.norm(dim=1) - 1).square().mean()
    assert penalty.item() == 0
    assert torch.autograd.grad(penalty, weight)[0].abs().max() == 0


# ---- who wins -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", DTYPES[:3])
@pytest.mark.parametrize("positions", [1, 3, 65])
@pytest.mark.parametrize(
    ("pieces", "winner"),
    [
        ([2.0, 2.0, 1.0], 0),
        ([1.0, 2.0, 2.0], 1),
        ([0.0, -0.0, -0.0], 0),
        ([INF, INF, 5.0], 0),
        ([-INF, -INF, -INF], 0),
        ([-INF, -3.0, INF], 2),
        ([NAN, 9.0, INF], 0),
        ([1.0, NAN, INF], 1),
        ([INF, NAN, NAN], 1),
        ([-INF, 4.0, NAN], 2),
    ],
)
def test_first_of_equals_and_first_nan_win(
    device: str, dtype: torch.dtype, positions: int, pieces: list[float], winner: int
) -> None:
    z = torch.tensor(pieces, dtype=dtype, device=device)[:, None].expand(3, positions)
    z = z.repeat(70, 1).view(1, 210, positions)  # 70 units
    y, index = OPS.maxout_pool(z, 3)
    assert (index == winner).all()
    expected = reference.maxout_pool(z, 3)
    assert torch.equal(y.nan_to_num(nan=7e5), expected.nan_to_num(nan=7e5))
    x = z.clone().requires_grad_()
    maxout_pool(x, 3).backward(torch.ones_like(y))
    assert torch.equal(x.grad.view(70, 3, positions)[:, winner], torch.ones(70, positions, dtype=dtype, device=device))
    assert x.grad.sum() == 70 * positions


@pytest.mark.usefixtures("route")
def test_a_nan_example_poisons_itself_only(device: str) -> None:
    x, weight, bias = needing_gradients(layer(40, 6, 5, 3, device=device))
    with torch.no_grad():
        x[7, 2] = NAN
    y = maxout(x, weight, bias)
    assert torch.equal(y.isnan().any(1).nonzero().flatten().cpu(), torch.tensor([7]))
    index = OPS.maxout(x.detach(), weight.detach(), bias.detach())[1]
    assert (index[7] == 0).all()
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert weight.grad.isfinite()[:, :, [0, 1, 3, 4, 5]].all()
    assert torch.equal(weight.grad[:, :, 2].isnan()[:, 0].cpu(), torch.ones(5, dtype=torch.bool))


def test_one_piece_is_a_linear_layer() -> None:
    x, weight, bias = layer(9, 5, 4, 1)
    torch.testing.assert_close(maxout(x, weight, bias), torch.nn.functional.linear(x, weight[:, 0], bias[:, 0]))


def test_pool_agrees_with_the_layer() -> None:
    x, weight, bias = layer(9, 5, 4, 3)
    z = torch.nn.functional.linear(x, weight.flatten(0, 1), bias.flatten())
    assert torch.equal(maxout_pool(z, 3), maxout(x, weight, bias))


# ---- every way torch calls an op ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("simd_level", "route")
def test_thread_count_does_not_change_the_bits() -> None:
    tensors = needing_gradients(layer(300, 150, 120, 5, dtype=torch.float32))
    grad, index = torch.randn(300, 120), torch.randint(5, (300, 120)).byte()
    z = torch.randn(40, 120, 7)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        by_weight = OPS.maxout_grad_weight(grad, tensors[0].detach(), index, 5)
        results.append((OPS.maxout_grad_input(grad, tensors[1].detach(), index), *by_weight, maxout_pool(z, 5)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("batch", [1, 255, 256, 257, 1100])
def test_strips_of_the_batch_join(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pygan.ops.maxout"], "_STRIP_BYTES", 1)  # 256 examples
    x, weight, bias = layer(batch, 3, 210, 5)
    torch.testing.assert_close(maxout(x, weight, bias), reference.maxout(x, weight, bias))


@pytest.mark.usefixtures("route")
def test_strided_and_expanded_tensors() -> None:
    x, weight, bias = torch.randn(12, 8)[::2, ::2], torch.randn(4, 2, 3).permute(2, 1, 0), torch.randn(2, 3).t()
    plain = tuple(tensor.contiguous() for tensor in (x, weight, bias))
    for outer in (torch.randn(3, 6).t(), torch.tensor(2.0).expand(6, 3)):
        ours, expected = (
            torch.autograd.grad(maxout(*t), t, g)
            for t, g in ((needing_gradients((x, weight, bias)), outer), (needing_gradients(plain), outer.contiguous()))
        )
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b)
    z = torch.randn(5, 7, 6).permute(0, 2, 1).requires_grad_()
    outer = torch.randn(1, 3, 1).expand(5, 3, 7)
    ours, torchs = (torch.autograd.grad(f(z, 2), z, outer)[0] for f in (maxout_pool, reference.maxout_pool))
    assert torch.equal(ours, torchs)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (3, 0, 2, 2), (3, 4, 0, 2), (0, 0, 0, 1)])
def test_empty(device: str, shape: tuple[int, ...]) -> None:
    tensors = needing_gradients(layer(*shape, device=device))
    y = maxout(*tensors)
    assert torch.equal(y, reference.maxout(*tensors) if shape[2] else y.new_empty(shape[0], 0))
    y.sum().backward()
    assert tensors[0].grad.count_nonzero() == 0
    assert tensors[1].grad.count_nonzero() == 0
    assert tensors[2].grad.sum() == y.numel()


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (2, 4, 0), (0, 4, 3)])
def test_empty_pool(device: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device=device, requires_grad=True)
    y = maxout_pool(x, 2)
    assert y.shape == (shape[0], shape[1] // 2, *shape[2:])
    y.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (2, 0, 3)])
def test_leading_dimensions(leading: tuple[int, ...]) -> None:
    x, (_, weight, bias) = torch.randn(*leading, 4, dtype=torch.float64), layer(1, 4, 3, 2)
    y = maxout(x, weight, bias)
    assert y.shape == (*leading, 3)
    torch.testing.assert_close(y, reference.maxout(x, weight, bias))


def test_only_the_wanted_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["pygan.ops.maxout"]
    grad_input, grad_weight, called = module._grad_input, module._grad_weight, []
    monkeypatch.setattr(module, "_grad_input", lambda *a: called.append("input") or grad_input(*a))
    monkeypatch.setattr(module, "_grad_weight", lambda *a: called.append("weight") or grad_weight(*a))
    for wanted, expected in [(0, ["input"]), (1, ["weight"]), (2, ["weight"])]:
        tensors = layer(4, 3, 2, 2)
        tensors[wanted].requires_grad_()
        called.clear()
        maxout(*tensors).sum().backward()
        assert called == expected
        assert [tensor.grad is not None for tensor in tensors] == [i == wanted for i in range(3)]


def test_compiles_without_graph_break() -> None:
    tensors = needing_gradients(layer(6, 4, 3, 2))

    def total(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = maxout(x, weight, bias)
        return y.square().sum() + maxout_pool(y.unsqueeze(1).repeat(1, 4, 1), 2).sum()

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(*tensors), tensors)
    for a, b in zip(ours, torch.autograd.grad(total(*tensors), tensors), strict=True):
        torch.testing.assert_close(a, b)


def test_func_grad() -> None:
    tensors = layer(6, 4, 3, 2)
    ours = torch.func.grad(lambda *t: maxout(*t).square().sum(), argnums=(0, 1, 2))(*tensors)
    torchs = torch.func.grad(lambda *t: reference.maxout(*t).square().sum(), argnums=(0, 1, 2))(*tensors)
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b)
    z = torch.randn(3, 6)
    ours = torch.func.grad(lambda z: maxout_pool(z, 3).square().sum())(z)
    assert torch.equal(ours, torch.func.grad(lambda z: reference.maxout_pool(z, 3).square().sum())(z))


def test_modes_see_the_ops() -> None:
    """Eager calls of plain tensors skip the dispatcher; whoever watches it must not be skipped."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    tensors = needing_gradients(layer(6, 4, 3, 2))
    with Watch():
        maxout(*tensors).sum().backward()
    expected = ["pygan.maxout.default", "pygan.maxout_grad_input.default", "pygan.maxout_grad_weight.default"]
    assert [op for op in seen if op.startswith("pygan")] == expected
    with FakeTensorMode() as mode:
        y = maxout(*(mode.from_tensor(tensor) for tensor in tensors))
        assert y.shape == (6, 3)
        y.sum().backward()


def test_autocast_computes_in_its_dtype() -> None:
    tensors = needing_gradients(layer(40, 9, 8, 3, dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = maxout(*tensors)
        assert maxout(*(tensor.double() for tensor in tensors)).dtype is torch.float64
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, maxout(*(tensor.bfloat16() for tensor in tensors)))
    y.sum().backward()
    assert all(tensor.grad.dtype is torch.float32 for tensor in tensors)


def test_autocast_makes_no_floats_of_integers() -> None:
    x, weight, bias = layer(4, 3, 2, 2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match="weight must be float16"):
        maxout(x, weight.long(), bias)


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_opcheck(device: str, dtype: torch.dtype) -> None:
    x, weight, bias = layer(20, 3, 4, 5, dtype=dtype, device=device)
    grad = torch.randn(20, 4, device=device).to(dtype)
    index = OPS.maxout(x, weight, bias)[1]
    for op, arguments in [
        (OPS.maxout, (x, weight, bias)),
        (OPS.maxout, (x, weight, None)),
        (OPS.maxout_pool, (x.view(5, 6, 2), 3)),
        (OPS.maxout_spread, (grad, index, 5)),
        (OPS.maxout_grad_input, (grad, weight, index)),
        (OPS.maxout_grad_weight, (grad, x, index, 5)),
    ]:
        torch.library.opcheck(op.default, arguments)


def test_more_than_2_to_the_31_elements_have_a_shape() -> None:
    x = torch.empty(2**20, 2, device="meta")
    assert maxout(x, torch.empty(2**12, 2, 2, device="meta")).shape == (2**20, 2**12)
    assert maxout_pool(torch.empty(2**20, 2**13, device="meta"), 2).shape == (2**20, 2**12)


def test_float16_on_the_cpu_falls_back() -> None:
    tensors = layer(4, 3, 2, 2, dtype=torch.float16)
    with pytest.warns(UserWarning, match=r"maxout: there is no native kernel for torch\.float16 on 'cpu'"):
        y = maxout(*tensors)
    assert torch.equal(y, reference.maxout(*tensors))


# ---- errors ---------------------------------------------------------------------------------------------------------

X, WEIGHT, BIAS = torch.zeros(2, 3), torch.zeros(4, 5, 3), torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, r"x must be a tensor, got list", ([1.0], WEIGHT, BIAS)),
        (TypeError, r"bias must be a tensor, got float", (X, WEIGHT, 0.0)),
        (ValueError, r"weight must have shape \[units, pieces, in\] .* got \[4, 5\]", (X, BIAS, BIAS)),
        (ValueError, r"weight must have .* 1 to 256 pieces, got \[1, 257, 3\]", (X, torch.zeros(1, 257, 3), None)),
        (ValueError, r"weight must have .* got \[4, 0, 3\]", (X, torch.zeros(4, 0, 3), None)),
        (ValueError, r"x must have shape \[\.\.\., 3\], got \[2, 7\]", (torch.zeros(2, 7), WEIGHT, BIAS)),
        (ValueError, r"x must have shape \[\.\.\., 3\], got \[\]", (torch.zeros(()), WEIGHT, BIAS)),
        (ValueError, r"bias must have shape \[4, 5\], got \[20\]", (X, WEIGHT, BIAS.flatten())),
        (TypeError, r"x must be float16, .* got torch\.int64", (X.long(), WEIGHT, BIAS)),
        (TypeError, r"weight must have the dtype of x, torch\.float32", (X, WEIGHT.double(), BIAS)),
        (TypeError, r"bias must have the dtype of x, torch\.float32", (X, WEIGHT, BIAS.double())),
        (ValueError, r"weight must be on the device of x, cpu, got meta", (X, WEIGHT.to("meta"), BIAS)),
    ],
)
def test_bad_arguments(error: type[Exception], message: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(error, match="maxout: " + message):
        maxout(*arguments)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, r"x must be a tensor, got int", (3, 2)),
        (TypeError, r"pieces must be an int, got float", (X, 3.0)),
        (ValueError, r"pieces must be 1 to 256, got 0", (X, 0)),
        (ValueError, r"pieces must be 1 to 256, got 257", (X, 257)),
        (ValueError, r"x must have shape \[batch, units \* 2, \.\.\.\], got \[2, 3\]", (X, 2)),
        (ValueError, r"x must have shape \[batch, units \* 1, \.\.\.\], got \[3\]", (X[0], 1)),
        (TypeError, r"x must be float16, .* got torch\.uint8", (X.byte(), 3)),
    ],
)
def test_bad_pool_arguments(error: type[Exception], message: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(error, match="maxout_pool: " + message):
        maxout_pool(*arguments)
