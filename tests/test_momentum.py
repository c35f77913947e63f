import pytest
import torch

from pygan.ops import momentum_update, reference

SHAPES = [(3,), (0,), (1200, 100), (16384,), (16385,), (), (240, 5, 7)]


def tensors(dtype=torch.float32, gradient=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lists = [
        [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES] for _ in range(3)
    ]
    lists[2] = [g.to(gradient or dtype) for g in lists[2]]
    return lists


@pytest.mark.parametrize(
    ("dtype", "gradient"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.float64, torch.float64)],
)
def test_equals_the_reference_exactly(dtype, gradient, simd_level):
    rates = torch.tensor([0.1, 0.7], dtype=dtype)
    ours, theirs = tensors(dtype, gradient), tensors(dtype, gradient)
    copies = [[torch.empty(shape, dtype=torch.bfloat16) for shape in SHAPES] for _ in range(2)]
    for _ in range(3):
        momentum_update(*ours, rates, copies[0])
        reference.momentum_update(*theirs, rates, copies[1])
    for a, b in zip([*ours[0], *ours[1], *copies[0]], [*theirs[0], *theirs[1], *copies[1]], strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", [torch.float32, torch.bfloat16])
def test_on_a_gpu(gradient):
    """There multiplication and addition may be one operation, so the last bit differs."""
    ours, theirs = tensors(gradient=gradient), tensors(gradient=gradient)
    ours = [[tensor.cuda() for tensor in group] for group in ours]
    momentum_update(*ours, torch.tensor([0.1, 0.7], device="cuda"), impl="native")
    reference.momentum_update(*theirs, torch.tensor([0.1, 0.7]))
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-6, atol=1e-6)


def test_formula():
    p, v, g = (torch.tensor([value], dtype=torch.float64) for value in (1.0, 0.5, 2.0))
    momentum_update([p], [v], [g], torch.tensor([0.1, 0.5], dtype=torch.float64))
    assert v.item() == 0.5 * 0.5 - 0.1 * 2.0
    assert p.item() == 1.0 + v.item()


def test_does_not_depend_on_threads():
    threads = torch.get_num_threads()
    results = []
    for n in (1, 2):
        torch.set_num_threads(n)
        lists = tensors()
        momentum_update(*lists, torch.tensor([0.3, 0.9]))
        results.append(lists[0])
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_parameters_that_need_gradients_are_updated_and_count_their_versions():
    p = torch.nn.Parameter(torch.ones(3))
    before = p._version
    momentum_update([p], [torch.zeros(3)], [torch.ones(3)], torch.tensor([1.0, 0.5]))
    assert torch.equal(p.detach(), torch.zeros(3))
    assert p._version > before


def test_nothing_to_do():
    momentum_update([], [], [], torch.tensor([0.1, 0.5]))


def test_rates_may_be_a_column_of_something_larger():
    ours, theirs = tensors(), tensors()
    rates = torch.tensor([[0.1, 9.0], [0.5, 9.0]])[:, 0]
    momentum_update(*ours, rates)
    reference.momentum_update(*theirs, rates)
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        assert torch.equal(a, b)


def test_meta_tensors_have_nothing_to_update():
    momentum_update(*([torch.ones(2, device="meta")] for _ in range(3)), torch.ones(2, device="meta"))


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([ONE], [ONE], [ONE], 0.1), TypeError, "rates must be a tensor"),
        (([ONE], [ONE], [ONE], torch.ones(2, dtype=torch.int64)), TypeError, "rates must be float32 or float64"),
        (([ONE], [ONE], [ONE], torch.ones(3)), ValueError, r"rates must have shape \[2\], got \[3\]"),
        (([ONE], [], [ONE], ONE), ValueError, "velocities must hold 1 tensors, as parameters does, got 0"),
        (([ONE], [ONE], [torch.ones(3)], ONE), ValueError, r"gradients\[0\] must be contiguous with shape \[2\]"),
        (([ONE], [ONE.double()], [ONE], ONE), TypeError, r"velocities\[0\] must be torch.float32, got torch.float64"),
        (([ONE], [ONE], [None], ONE), TypeError, r"gradients\[0\] must be a tensor, got NoneType"),
        (([ONE], [ONE], [ONE], ONE, [ONE]), TypeError, r"copies\[0\] must be torch.bfloat16"),
        (([torch.ones(4)[::2]], [ONE], [ONE], ONE), ValueError, r"parameters\[0\] must be contiguous .* strides \[2\]"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        momentum_update(*arguments)
