"""Products whose first operand is mostly zeros: against float64, at every vector level, for any number of threads."""

import math

import pytest
import torch
from tolerances import assert_no_worse_than_torch

from pygan.fast.products import Products
from pygan.fast.sparse_products import SparseProducts, is_sparse

SPARSE, DENSE = SparseProducts(), Products("torch")
# n, in, out; tiles have 104 rows, strips 64 columns of float32 in AVX-512, blocks of the result 256 rows
SHAPES = [(1, 1, 1), (3, 70, 5), (100, 130, 65), (105, 40, 200), (230, 300, 33), (300, 209, 17)]


def sparse(n, m, dtype, share=0.1):
    """Numbers of which `share` are not zero; a row and a column have none."""
    torch.manual_seed(n * m)
    values = torch.randn(n, m, dtype=dtype) * (torch.rand(n, m) < share)
    if n > 2:
        values[1], values[:, m // 2] = 0, 0
    return values


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_no_worse_than_torch(shape, dtype, share):
    n, inputs, outputs = shape
    x, grad = sparse(n, inputs, dtype, share), sparse(n, outputs, dtype, share)
    weight, bias = torch.randn(outputs, inputs, dtype=dtype), torch.randn(outputs, dtype=dtype)
    exact = DENSE.affine(x.double(), weight.double(), bias.double())
    assert_no_worse_than_torch(SPARSE.affine(x, weight, bias), DENSE.affine(x, weight, bias), exact)
    exact = grad.double() @ weight.double()
    assert_no_worse_than_torch(SPARSE.times(grad, weight), DENSE.times(grad, weight), exact)
    exact = grad.double().t() @ x.double()
    assert_no_worse_than_torch(SPARSE.outer(grad, x), DENSE.outer(grad, x), exact)


def test_empty_operands():
    affine = SPARSE.affine(torch.empty(3, 0), torch.empty(5, 0), torch.arange(10.0)[::2])
    assert torch.equal(affine, torch.arange(10.0)[::2].expand(3, 5))
    assert torch.equal(SPARSE.times(torch.empty(3, 0), torch.empty(0, 70)), torch.zeros(3, 70))
    assert torch.equal(SPARSE.outer(torch.empty(0, 3), torch.empty(0, 5)), torch.zeros(3, 5))
    assert SPARSE.affine(torch.empty(0, 4), torch.ones(5, 4), None).shape == (0, 5)
    assert SPARSE.outer(torch.ones(2, 3), torch.empty(2, 0)).shape == (3, 0)


@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid"])
def test_activation(activation):
    x, weight, bias = sparse(9, 20, torch.float64), torch.randn(7, 20).double(), torch.randn(7).double()
    torch.testing.assert_close(SPARSE.affine(x, weight, bias, activation), DENSE.affine(x, weight, bias, activation))


def test_same_bits_with_any_number_of_threads():
    x, grad = sparse(230, 300, torch.float32), sparse(230, 280, torch.float32)
    weight, bias = torch.randn(280, 300), torch.randn(280)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((SPARSE.affine(x, weight, bias), SPARSE.times(grad, weight), SPARSE.outer(grad, x)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_operands_need_not_be_contiguous(dtype):
    grad, x, weight = (
        m.t() for m in (sparse(40, 30, dtype), torch.randn(50, 30).to(dtype), torch.randn(20, 40).to(dtype))
    )
    torch.testing.assert_close(SPARSE.outer(grad, x), grad.t() @ x)
    torch.testing.assert_close(SPARSE.times(grad, weight), grad @ weight)
    torch.testing.assert_close(SPARSE.affine(grad, weight.t(), grad.new_zeros(20)), grad @ weight)


@pytest.mark.usefixtures("simd_level")
def test_a_zero_adds_nothing_and_nan_spreads():
    weight = torch.full((2, 3), torch.inf)
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, -0.0, 2.0], [torch.nan, 0.0, 0.0]])
    got = SPARSE.affine(x, weight, torch.ones(2))
    assert torch.equal(got[:2], torch.tensor([[1.0, 1.0], [torch.inf, torch.inf]]))
    assert got[2].isnan().all()
    assert torch.equal(SPARSE.outer(x[:2], torch.full((2, 1), torch.inf)), torch.tensor([[0.0], [0.0], [torch.inf]]))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 0.4), (torch.bfloat16, 0.15), (torch.float64, 0.0)])
def test_what_is_sparse_enough(dtype, limit):
    x = torch.zeros(200, 100, dtype=dtype)
    x.view(-1)[: int(limit * x.numel())] = 1
    assert not is_sparse(x)
    x.view(-1)[0] = 0
    assert is_sparse(x) is (limit > 0)
    assert not is_sparse(x[:100])  # too few to pay


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_lives_is_counted(dtype):
    """A minus zero does not; the smallest number, infinity and NaN do. The order in memory does not matter."""
    x = torch.zeros(300, 201, dtype=dtype)
    limit = math.ceil({torch.float32: 0.4, torch.bfloat16: 0.15}[dtype] * x.numel())
    x.view(-1)[torch.randperm(x.numel())[: limit - 1]] = torch.randn(limit - 1).abs().add(0.1).to(dtype)
    x[x == 0] = -0.0
    odd = torch.tensor([torch.nan, -torch.inf, 1e-40], dtype=dtype)  # the last is subnormal in both dtypes
    x[x > 1] = odd.repeat(20_000)[: (x > 1).sum()]
    assert is_sparse(x)
    assert is_sparse(x.t())
    x.view(-1)[int((x == 0).flatten().nonzero()[-1])] = 1
    assert not is_sparse(x)
    assert not is_sparse(x.t())
