"""Operators under torch's transforms and exporters: each row of the table in docs/operators.md."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from pygan import ops
from pygan.nn import Maxout
from pygan.ops import reference

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit", "ignore:Converting a tensor", "ignore:.*isinstance.*treespec"
)

X, WEIGHT, BIAS = (torch.randn(s, dtype=torch.float64) for s in ((6, 4), (3, 2, 4), (3, 2)))
SEED = torch.tensor(3)
Function = Callable[..., Tensor]
# name -> the function with the operators of a module, its differentiable arguments
FUNCTIONS: dict[str, tuple[Callable[[Any], Function], tuple[Tensor, ...]]] = {
    "maxout": (lambda m: m.maxout, (X, WEIGHT, BIAS)),
    "maxout_pool": (lambda m: lambda x: m.maxout_pool(x, 2), (X,)),
    "discriminator_loss": (lambda m: m.discriminator_loss, (X[0], X[1])),
    "generator_loss": (lambda m: m.generator_loss, (X[0],)),
    "saturating": (lambda m: lambda x: m.generator_loss(x, "saturating"), (X[0],)),
    "dropout": (lambda m: lambda x: m.dropout(x, 0.5, SEED), (X,)),
    "parzen_logsumexp": (lambda m: m.parzen_logsumexp, (X, X[:3] + 1, torch.tensor([0.5, 1.0], dtype=torch.float64))),
}
SMOOTH = [name for name in FUNCTIONS if name != "parzen_logsumexp"]


def batch(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [torch.stack([t, 2 * t, t / 2]) for t in tensors]


def squared(f: Function) -> Function:
    return lambda *a: f(*a).square().sum()


def batched_gradients(f: Function, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = [t.clone().requires_grad_() for t in arguments]
    y = f(*inputs)
    return torch.autograd.grad(y, inputs, torch.stack([torch.ones_like(y), -torch.ones_like(y)]), is_grads_batched=True)


def forward_over_backward(f: Function, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    with forward_ad.dual_level():
        inputs = [forward_ad.make_dual(t.clone().requires_grad_(), torch.ones_like(t)) for t in arguments]
        gradients = torch.autograd.grad(squared(f)(*inputs), inputs)
        tangents = [forward_ad.unpack_dual(g).tangent for g in gradients]
        return [torch.zeros(()) if t is None else t for t in tangents]


def everything(n: int) -> tuple[int, ...]:
    return tuple(range(n))


REVERSE: dict[str, Callable[[Function, tuple[Tensor, ...]], Any]] = {
    "vmap": lambda f, a: vmap(f)(*batch(a)),
    "vmap of one": lambda f, a: vmap(f, in_dims=(1, *[None] * (len(a) - 1)))(torch.stack([a[0], 2 * a[0]], 1), *a[1:]),
    "vmap of none": lambda f, a: vmap(f)(*[t[:0] for t in batch(a)]),
    "per-sample gradients": lambda f, a: vmap(grad(squared(f), everything(len(a))))(*batch(a)),
    "gradient of vmap": lambda f, a: grad(squared(vmap(f)), everything(len(a)))(*batch(a)),
    "jacrev": lambda f, a: jacrev(f, everything(len(a)))(*a),
    "is_grads_batched": batched_gradients,
}
FORWARD: dict[str, Callable[[Function, tuple[Tensor, ...]], Any]] = {
    "jvp": lambda f, a: jvp(f, a, tuple(map(torch.ones_like, a))),
    "jacfwd": lambda f, a: jacfwd(f, everything(len(a)))(*a),
    "hessian": lambda f, a: hessian(squared(f), everything(len(a)))(*a),
    "reverse over forward": lambda f, a: jacrev(jacfwd(squared(f), everything(len(a))), everything(len(a)))(*a),
    "forward over backward": forward_over_backward,
    "forward over forward": lambda f, a: jacfwd(jacfwd(squared(f), everything(len(a))), everything(len(a)))(*a),
}


def assert_equals_reference(name: str, transform: Callable[[Function, tuple[Tensor, ...]], Any]) -> None:
    function, arguments = FUNCTIONS[name]
    ours, expected = (
        torch.utils._pytree.tree_leaves(transform(function(module), arguments)) for module in (ops, reference)
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("transform", REVERSE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_batches_and_reverse_mode(name: str, transform: str) -> None:
    assert_equals_reference(name, REVERSE[transform])


@pytest.mark.parametrize("transform", FORWARD)
@pytest.mark.parametrize("name", SMOOTH)
def test_forward_mode(name: str, transform: str) -> None:
    assert_equals_reference(name, FORWARD[transform])


@pytest.mark.parametrize("transform", ["jvp", "hessian"])
def test_parzen_names_the_way_out(transform: str) -> None:
    function, arguments = FUNCTIONS["parzen_logsumexp"]
    with pytest.raises(RuntimeError, match="no forward-mode derivative; use impl='reference', which has one"):
        FORWARD[transform](function(ops), arguments)


def test_nested_forward_mode_of_the_kernels_names_the_way_out() -> None:
    """Torch loses the outer derivative of an autograd.Function there."""
    with pytest.raises(RuntimeError, match="forward mode inside forward mode needs impl='auto' or 'reference'"):
        jacfwd(jacfwd(lambda x: ops.generator_loss(x, impl="native")))(X[0])


# ---- what leaves the process ----------------------------------------------------------------------------------------


def model(impl: str) -> nn.Module:
    return nn.Sequential(Maxout(4, 3, 2, dropout=0.5, impl=impl), Maxout(3, 1, 2, impl=impl)).eval()


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(module(x).square().sum(), list(module.parameters())))


def operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target).partition(".")[0] for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize(("impl", "strict"), [("auto", False), ("auto", True), ("native", False)])
def test_export(impl: str, strict: bool) -> None:
    layers, x = model(impl), torch.randn(6, 4)
    program = torch.export.export(layers, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},), strict=strict)
    assert ("pygan" in operators(program)) == (impl == "native")
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    x = torch.randn(9, 4)
    torch.testing.assert_close(loaded(x), layers(x))
    for a, b in zip(gradients(loaded, x), gradients(layers, x), strict=True):
        torch.testing.assert_close(a, b)


def test_export_of_the_losses() -> None:
    class Losses(nn.Module):
        def forward(self, real: Tensor, fake: Tensor) -> Tensor:
            return ops.discriminator_loss(real, fake, impl="native") + ops.generator_loss(fake, impl="native")

    arguments = torch.randn(4), torch.randn(4)
    loaded = torch.export.export(Losses(), arguments).module()
    ours, expected = (
        torch.autograd.grad(f(*inputs), inputs)
        for f in (loaded, Losses())
        for inputs in [tuple(t.clone().requires_grad_() for t in arguments)]
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_onnx() -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    layers, x = model("auto"), torch.randn(6, 4)
    program = torch.onnx.export(layers, (x,), dynamo=True, verbose=False)
    assert program is not None
    assert {node.domain for node in program.model.graph} == {""}  # ONNX's own operators


def test_jit_script_is_refused() -> None:
    with pytest.raises(torch.jit.frontend.NotSupportedError, match="keyword-only"):
        torch.jit.script(model("auto"))


def test_jit_trace() -> None:
    layers, x = model("auto"), torch.randn(6, 4)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(layers, x), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for a, b in zip(gradients(loaded, x), gradients(layers, x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", ["auto", "native"])
def test_fx_and_compile(impl: str) -> None:
    layers, x = model(impl), torch.randn(6, 4)
    traced = torch.fx.symbolic_trace(layers)
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [ops.maxout] * 2
    for other in (traced, torch.compile(layers, fullgraph=True, backend="aot_eager"), copy.deepcopy(layers)):
        torch.testing.assert_close(other(x), layers(x))
        for a, b in zip(gradients(other, x), gradients(layers, x), strict=True):
            torch.testing.assert_close(a, b)
