"""What operators do with tensors that are more than their memory, and with arguments that do not fit together."""

import sys

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pygan import ops
from pygan.nn import Maxout
from pygan.ops import reference

OPS = torch.ops.pygan
SEED = torch.tensor(3)
GRAD, X, WEIGHT, INDEX = (
    torch.randn(4, 3),
    torch.randn(4, 5),
    torch.randn(3, 2, 5),
    torch.zeros(4, 3, dtype=torch.uint8),
)
POINTS, SIGMAS = torch.randn(4, 2), torch.ones(2, dtype=torch.float64)

# One tensor -> one result, for whatever is done to the tensor.
FUNCTIONS = {
    "maxout": lambda f, x: f.maxout(x, WEIGHT[:, :, :4]),
    "maxout_pool": lambda f, x: f.maxout_pool(x, 2),
    "dropout": lambda f, x: f.dropout(x, 0.5, SEED),
    "generator_loss": lambda f, x: f.generator_loss(x),
    "discriminator_loss": lambda f, x: f.discriminator_loss(x, x.flip(0)),
    "parzen_logsumexp": lambda f, x: f.parzen_logsumexp(x, x.flip(1), [0.5, 1.0]),
}


def misaligned(x: Tensor) -> Tensor:
    memory = bytearray(x.numel() * 4 + 1)
    return torch.frombuffer(memory, dtype=torch.float32, offset=1).view(x.shape).copy_(x)


DISGUISES = {
    "lazy negative": lambda x: torch._neg_view(-x),
    "imaginary part of a conjugate": lambda x: torch.complex(x, -x).conj().imag,
    "zero without memory": lambda x: torch._efficientzerotensor(x.shape),
    "odd address": misaligned,
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_numbers_count_not_the_memory(name: str, disguise: str) -> None:
    x = DISGUISES[disguise](torch.randn(6, 4))
    expected = FUNCTIONS[name](reference, x.clone().resolve_neg())
    torch.testing.assert_close(FUNCTIONS[name](ops, x), expected)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_momentum_reads_numbers_not_memory(disguise: str) -> None:
    gradient = DISGUISES[disguise](torch.ones(6, 4)).contiguous()
    lists = [[torch.ones(6, 4)], [torch.ones(6, 4)], [gradient]]
    ops.momentum_update(*lists, torch.tensor([0.5, 0.5]))
    assert torch.equal(lists[0][0], 1 + 0.5 - 0.5 * gradient)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "parzen_logsumexp"])
def test_a_gradient_without_memory(name: str) -> None:
    """`sgn` has the derivative 0, which torch hands back as a tensor without memory."""
    x = torch.randn(6, 4, requires_grad=True)
    torch.sgn(FUNCTIONS[name](ops, x)).sum().backward()
    assert torch.equal(x.grad, torch.zeros(6, 4))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.to_sparse(),
        lambda x: x.to_sparse_csr(),
        lambda x: x.to_mkldnn(),
        lambda x: torch.nested.nested_tensor([x, x]),
        lambda x: torch.nested.nested_tensor([x, x], layout=torch.jagged),
    ],
    ids=["sparse", "csr", "mkldnn", "nested", "jagged"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:The PyTorch API of nested tensors")
def test_other_layouts_are_refused(spoil) -> None:
    x = spoil(torch.randn(6, 4))
    for function in (
        lambda: ops.maxout(x, WEIGHT[:, :, :4]),
        lambda: ops.maxout(torch.randn(6, 5), x),
        lambda: ops.maxout_pool(x, 2),
        lambda: ops.dropout(x, 0.5),
        lambda: ops.generator_loss(x),
        lambda: ops.generator_loss(x, impl="reference"),
        lambda: ops.discriminator_loss(torch.ones(3), x),
        lambda: ops.parzen_logsumexp(POINTS, x, [1.0]),
        lambda: ops.momentum_update([torch.ones(6, 4)], [torch.ones(6, 4)], [x], torch.ones(2)),
        lambda: Maxout(4, 3, 2)(x),
    ):
        with pytest.raises(TypeError, match=r"must be a dense tensor \(layout torch.strided\), got a"):
            function()


@pytest.mark.parametrize("layout", [lambda x: x.to_sparse(), lambda x: x.to_mkldnn()], ids=["sparse", "mkldnn"])
def test_bare_operators_refuse_other_layouts(layout) -> None:
    for call in (
        lambda: OPS.maxout_grad_input(layout(GRAD), WEIGHT, INDEX),
        lambda: OPS.maxout_grad_weight(GRAD, layout(X), INDEX, 2),
        lambda: OPS.dropout(layout(GRAD), SEED, 0.5),
        lambda: OPS.parzen_logsumexp(POINTS, layout(POINTS), SIGMAS, "split"),
    ):
        with pytest.raises(TypeError, match="must be a dense tensor"):
            call()


def test_momentum_of_tensors_without_numbers() -> None:
    with FakeTensorMode():
        lists = [[torch.ones(3)] for _ in range(3)]
        ops.momentum_update(*lists, torch.ones(2))
        assert lists[0][0].shape == (3,)


@pytest.mark.parametrize(("unpack", "error"), [(torch.Tensor.half, TypeError), (torch.Tensor.flatten, ValueError)])
def test_saved_tensors_that_come_back_changed(unpack, error: type[Exception]) -> None:
    """`saved_tensors_hooks` may hand anything to a backward pass."""
    for name in ("maxout", "maxout_pool"):
        x = torch.randn(6, 4, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            y = FUNCTIONS[name](ops, x)
        with pytest.raises(error, match="must"):
            y.sum().backward()


FAR = 255 - INDEX
BAD_CALLS = [
    (
        ValueError,
        "index must be below the number of pieces, 2, got 255",
        "maxout_grad_input",
        (GRAD, WEIGHT, INDEX + 255),
    ),
    (ValueError, "index must be below the number of pieces, 2, got 2", "maxout_grad_weight", (GRAD, X, INDEX + 2, 2)),
    (ValueError, "index must be below the number of pieces, 2, got 9", "maxout_spread", (GRAD, INDEX + 9, 2)),
    (ValueError, r"index must have shape of grad, \[4, 3\], got \[2, 3\]", "maxout_spread", (GRAD, INDEX[:2], 2)),
    (ValueError, "index must have shape", "maxout_grad_input", (GRAD, WEIGHT, INDEX[:, :1])),
    (TypeError, "index must be uint8, got torch.int64", "maxout_grad_weight", (GRAD, X, INDEX.long(), 2)),
    (ValueError, "pieces must be 1 to 256, got 0", "maxout_pool", (GRAD, 0)),
    (ValueError, "pieces must be 1 to 256, got 300", "maxout_spread", (GRAD, INDEX, 300)),
    (ValueError, "pieces must be 1 to 256, got -1", "maxout_grad_weight", (GRAD, X, INDEX, -1)),
    (ValueError, "weight must have .* 1 to 256 pieces", "maxout", (X, torch.zeros(1, 1000, 5), None)),
    (ValueError, r"bias must have shape \[3, 2\], got \[3\]", "maxout", (X, WEIGHT, torch.zeros(3))),
    (ValueError, r"x must have shape \[batch, 5\], got \[5\]", "maxout", (X[0], WEIGHT, None)),
    (ValueError, r"x must have shape \[4, in\], got \[2, 5\]", "maxout_grad_weight", (GRAD, X[:2], INDEX, 2)),
    (ValueError, r"grad must have shape \[batch, 3\]", "maxout_grad_input", (GRAD[:, :2], WEIGHT, INDEX[:, :2])),
    (TypeError, "weight must have the dtype of grad", "maxout_grad_input", (GRAD, WEIGHT.double(), INDEX)),
    (TypeError, "x must be float16, .* got torch.int32", "maxout_pool", (GRAD.int(), 3)),
    (
        ValueError,
        "x must be on the device of grad",
        "maxout_grad_weight",
        (GRAD, X.to("meta"), INDEX, 2),
    ),
    (ValueError, r"seed must have shape \[\], got \[0\]", "dropout", (X, torch.zeros(0, dtype=torch.int64), 0.5)),
    (TypeError, "seed must be int64, got torch.float32", "dropout", (X, torch.tensor(1.0), 0.5)),
    (ValueError, r"keep must be in \(0, 1\], got 0.0", "dropout", (X, SEED, 0.0)),
    (ValueError, r"keep must be in \(0, 1\], got nan", "dropout", (X, SEED, float("nan"))),
    (TypeError, "fake_logits must have the dtype of real_logits", "discriminator_loss", (X, X.double(), True)),
    (ValueError, "fake_logits must have at least one element", "generator_loss", (X[:0], False, True)),
    (TypeError, "x must be float32 or float64", "parzen_logsumexp", (*[POINTS.bfloat16()] * 2, SIGMAS, "split")),
    (TypeError, "sigmas float64, got", "parzen_logsumexp", (POINTS, POINTS, SIGMAS.float(), "split")),
    (ValueError, "precision must be", "parzen_logsumexp", (POINTS, POINTS, SIGMAS, "fast")),
    (
        ValueError,
        r"log_sum must have shape \[2, 4\], got \[4, 2\]",
        "parzen_logsumexp_backward",
        (torch.zeros(2, 4), POINTS, POINTS, SIGMAS, torch.zeros(4, 2).double(), "split"),
    ),
]


@pytest.mark.parametrize(("error", "message", "name", "arguments"), BAD_CALLS)
def test_bare_operators_check_their_arguments(
    error: type[Exception], message: str, name: str, arguments: tuple
) -> None:
    with pytest.raises(error, match=message):
        getattr(OPS, name)(*arguments)


def test_an_index_is_looked_at_where_gradients_are_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pygan.ops.maxout"], "_winners_only", lambda *_, **__: False)
    with pytest.raises(ValueError, match="index must be below"):
        OPS.maxout_grad_input(GRAD, WEIGHT, INDEX + 2)
    with pytest.raises(ValueError, match="index must be below"):
        OPS.maxout_grad_weight(GRAD, X, INDEX + 2, 2)
