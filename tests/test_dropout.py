import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pygan.ops import dropout, reference
from pygan.ops.dropout import draw_seed, drop_into

SIZES = [0, 1, 15, 16, 63, 64, 65, 784, 16384, 16384 + 64, 50_001]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def seed_of(value):
    return torch.tensor(value, dtype=torch.int64)


def philox_by_hand(counter, key):
    """Philox4x32-10 in Python's integers, with all four counter words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_philox_by_hand_gives_the_published_answers():
    """The known answers that Salmon et al. publish with their code."""
    ones = 0xFFFFFFFF
    assert philox_by_hand([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox_by_hand([ones] * 4, [ones] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, 0x123456789ABCDEF])
def test_reference_philox(seed):
    counters = torch.tensor([0, 1, 2**32 - 1, 2**32, 2**40 + 7])
    words = reference.philox(seed_of(seed), counters)
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    assert words.tolist() == [philox_by_hand([c & 0xFFFFFFFF, c >> 32, 0, 0], key) for c in counters.tolist()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_reference_exactly(size, dtype, device):
    x = torch.linspace(-3, 3, size, dtype=torch.float64).to(dtype)
    for p, seed in ((0.2, 5), (0.5, -7), (0.999, 2**62 + 1)):
        y = dropout(x.to(device), p, seed_of(seed).to(device), impl="native")
        assert torch.equal(y.cpu(), reference.dropout(x, p, seed_of(seed)))


def test_every_vector_level_gives_the_same_bits(simd_level):
    x = torch.linspace(-3, 3, 50_001)
    for p in (0.2, 0.5):
        assert torch.equal(dropout(x, p, seed_of(9)), reference.dropout(x, p, seed_of(9)))


def test_does_not_depend_on_threads():
    x = torch.randn(300, 784, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    results = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        results.append(dropout(x, 0.5, seed_of(11)))
    torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results)


@pytest.mark.parametrize(("first", "size"), [(0, 10), (1, 63), (63, 2), (64, 64), (777, 5000), (20_000, 1)])
def test_part_of_a_mask(first, size):
    x = torch.ones(first + size)
    part = torch.empty(size)
    drop_into(part, x[first:], 0.5, seed_of(3), first)
    assert torch.equal(part, dropout(x, 0.5, seed_of(3))[first:])
    drop_into(part.fill_(1), part, 0.5, seed_of(3), first)  # in place
    assert torch.equal(part, dropout(x, 0.5, seed_of(3))[first:])


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_share_of_kept_elements(p):
    n = 1_000_000
    y = dropout(torch.ones(n), p, seed_of(1))
    kept = y.count_nonzero().item()
    assert abs(kept - n * (1 - p)) < 5 * (n * p * (1 - p)) ** 0.5
    assert torch.equal(y[y != 0], torch.full((kept,), 1 / (1 - p)))


def test_masks_of_neighbouring_seeds_and_elements_are_independent():
    x = torch.ones(100_000)
    masks = [dropout(x, 0.5, seed_of(seed)) - 1 for seed in (8, 9, 8 + 2**32)]
    pairs = [masks[0] * masks[1], masks[0] * masks[2]] + [masks[0] * masks[0].roll(shift) for shift in (1, 16, 64)]
    for product in pairs:
        assert abs(product.mean().item()) < 5 / 100_000**0.5


def test_seed_is_drawn_from_the_default_generator():
    x = torch.ones(1000)
    torch.manual_seed(4)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(4)
    assert torch.equal(dropout(x, 0.5, draw_seed("cpu")), first)
    assert not torch.equal(first, second)


def test_zero_rate_returns_x_and_draws_nothing():
    x = torch.ones(3)
    state = torch.get_rng_state()
    assert dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_dropped_elements_are_zero_whatever_they_were():
    x = torch.full((4096,), torch.nan)
    y = dropout(x, 0.5, seed_of(0))
    assert torch.equal(y.isnan(), dropout(torch.ones(4096), 0.5, seed_of(0)) != 0)


def test_derivatives():
    x = torch.randn(70, dtype=torch.float64, requires_grad=True)
    function = lambda t: dropout(t, 0.3, seed_of(2))  # noqa: E731
    assert gradcheck(function, x)
    assert gradgradcheck(function, x)
    grad = torch.func.grad(lambda t: function(t).sum())(x.detach())
    assert torch.equal(grad, function(torch.ones_like(x)))


def test_non_contiguous_and_many_dimensions():
    x = torch.randn(6, 5, 7).transpose(0, 2)
    assert torch.equal(dropout(x, 0.5, seed_of(1)), reference.dropout(x.contiguous(), 0.5, seed_of(1)))


def test_op_is_well_registered():
    torch.library.opcheck(torch.ops.pygan.dropout, (torch.randn(10, 3), seed_of(1), 0.5))


def test_compiles_without_a_graph_break():
    x = torch.randn(50, requires_grad=True)
    compiled = torch.compile(lambda t: dropout(t * 2, 0.5, seed_of(1)).sum(), fullgraph=True, backend="aot_eager")
    compiled(x).backward()
    assert torch.equal(x.grad, 2 * dropout(torch.ones(50), 0.5, seed_of(1)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], 0.5), TypeError, "x must be a tensor, got list"),
        ((torch.ones(3, dtype=torch.int32), 0.5), TypeError, "x must be float16"),
        ((torch.ones(3), 1.0), ValueError, r"p must be in \[0, 1\), got 1.0"),
        ((torch.ones(3), -0.1), ValueError, "p must be in"),
        ((torch.ones(3), 0.5, 7), TypeError, "seed must be a tensor, got int"),
        ((torch.ones(3), 0.5, torch.ones(())), TypeError, "seed must be int64"),
        ((torch.ones(3), 0.5, torch.ones(1, dtype=torch.int64)), ValueError, r"seed must have shape \[\], got \[1\]"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        dropout(*arguments)
