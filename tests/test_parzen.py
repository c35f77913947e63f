"""The Parzen sums: accuracy everywhere, gradients, and every way torch calls an op."""

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tolerances import assert_no_worse_than_torch
from torch import Tensor

from pygan import _core
from pygan.ops import _cache, _products, parzen, parzen_logsumexp, reference
from pygan.ops._library import address, dtype_code, place

PAPER_SIGMAS = np.logspace(-1, 0, 10).tolist()
SHAPES = [(1, 1, 1), (3, 5, 2), (33, 70, 20), (7, 1, 784), (130, 700, 65), (2, 3000, 3)]


def exact_values(x: Tensor, samples: Tensor, sigmas) -> Tensor:
    """The sums in numpy's long double, rounded to float64: 11 bits better than float64 where the machine has them."""
    wide, others = x.cpu().numpy().astype(np.longdouble), samples.cpu().numpy().astype(np.longdouble)
    squared = np.stack([np.square(row - others).sum(1) for row in wide])
    least = squared.min(1)
    terms = [-(squared - least[:, None]) / (2 * np.longdouble(sigma) ** 2) for sigma in sigmas]
    peaks = [-least / (2 * np.longdouble(sigma) ** 2) for sigma in sigmas]
    rows = [peak + np.log(np.exp(term).sum(1)) for peak, term in zip(peaks, terms, strict=True)]
    return torch.from_numpy(np.stack(rows).astype(np.float64)).to(x.device)


def assert_accurate(x: Tensor, samples: Tensor, sigmas) -> None:
    ours = parzen_logsumexp(x, samples, sigmas, impl="native")
    torchs = reference.parzen_logsumexp(x, samples, sigmas)
    assert_no_worse_than_torch(ours, torchs, exact_values(x, samples, sigmas))


def clusters(n: int, d: int, width: float, centres: Tensor) -> Tensor:
    return centres[torch.arange(n) % len(centres)] + width * torch.randn(n, d)


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_no_worse_than_torch(device: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    n, count, d = shape
    x, samples = torch.rand(n, d, dtype=dtype, device=device), torch.rand(count, d, dtype=dtype, device=device)
    assert_accurate(x, samples, PAPER_SIGMAS)


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("width", [0.2, 0.05, 1e-4])
def test_accurate_inside_tight_clusters(sigma: float, width: float) -> None:
    """Where points and samples lie close together and far from the mean, inner products cancel."""
    centres = torch.rand(10, 100)
    assert_accurate(clusters(50, 100, width, centres), clusters(1000, 100, width, centres), [sigma])


def two_clusters(n: int, d: int, width: float) -> Tensor:
    return clusters(n, d, width, torch.tensor([[-10.0], [10.0]]).expand(2, d))


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("d", [1, 300])
@pytest.mark.parametrize("sigma", [1e-8, 1e-3, 4e-3, 0.1])
def test_small_bandwidths_far_from_the_centre(d: int, sigma: float) -> None:
    """The products' error is larger than the window of the samples that count, so which are near is not known."""
    assert_accurate(two_clusters(10, d, 1e-3), two_clusters(300, d, 1e-3), [sigma])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers_under_themselves(dtype: torch.dtype) -> None:
    x = torch.randn(1000, 1, dtype=dtype)
    for sigma in (1e-8, 1e-5, 1e-3):
        assert_accurate(x[:200], x, [sigma])
        assert_accurate(x[:50] + 3 * sigma, x, [sigma])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sigmas", [[1, 1e20], [1e20, 1, 1e-20], [0.3, 1e-4, 2e-3, 30, 1e-3, 0.3], [1e-3, 0.01, 0.1, 1, 10], [2e4, 1, 7e4]]
)
def test_a_bandwidth_does_not_depend_on_the_others(dtype: torch.dtype, sigmas: list[float]) -> None:
    for x, samples in (
        (torch.randn(20, 5), torch.randn(300, 5)),
        (two_clusters(20, 30, 1e-3), two_clusters(300, 30, 1e-3)),
        (clusters(20, 30, 0.3, torch.rand(10, 30)), clusters(700, 30, 0.3, torch.rand(10, 30))),
    ):
        x, samples = x.to(dtype), samples.to(dtype)
        together = parzen_logsumexp(x, samples, sigmas)
        for sigma, values in zip(sigmas, together, strict=True):
            assert torch.equal(values, parzen_logsumexp(x, samples, [sigma])[0])
            torchs, exact = reference.parzen_logsumexp(x, samples, [sigma]), exact_values(x, samples, [sigma])
            assert_no_worse_than_torch(values[None], torchs, exact)


def test_gradients_of_bandwidths_of_any_size_together() -> None:
    x, samples, sigmas = torch.randn(5, 3), torch.randn(40, 3), [1e20, 1.0, 1e9, 0.5]
    ours = gradients(x, samples, sigmas, "native")
    exact = gradients(x.double(), samples.double(), sigmas, "reference")
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-30 if a.ndim == 1 else 1e-5)


def test_exact_for_duplicates() -> None:
    samples = torch.rand(300, 784)
    values = parzen_logsumexp(samples[:40], samples, [0.02])
    assert torch.equal(values, torch.zeros(1, 40))
    same = samples[:1].expand(2000, 784)
    torch.testing.assert_close(parzen_logsumexp(same[:3], same, [0.02]), torch.full((1, 3), math.log(2000)))


def test_accurate_far_from_the_origin() -> None:
    assert_accurate(100 + torch.rand(50, 784), 100 + torch.rand(500, 784), [0.02, 0.2, 2.0])


def test_shifting_everything_changes_nothing_but_the_rounding_of_the_inputs() -> None:
    x, samples = torch.rand(50, 784), torch.rand(500, 784)
    shifted_x, shifted_samples = x + 100, samples + 100
    ours = parzen_logsumexp(shifted_x, shifted_samples, PAPER_SIGMAS) - parzen_logsumexp(x, samples, PAPER_SIGMAS)
    rounding = exact_values(shifted_x, shifted_samples, PAPER_SIGMAS) - exact_values(x, samples, PAPER_SIGMAS)
    ulp = torch.finfo(torch.float32).eps * exact_values(x, samples, PAPER_SIGMAS).abs().amax(1, keepdim=True)
    assert ((ours - rounding).abs() <= 4 * ulp).all()


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_precision_switches_neither_matter_nor_change(precision: str) -> None:
    x, samples = torch.rand(40, 300), torch.rand(600, 300)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert_accurate(x, samples, [0.05, 0.5])
        x.requires_grad_()
        parzen_logsumexp(x, samples, [0.3]).sum().backward()
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    x64 = x.detach().double().requires_grad_()
    reference.parzen_logsumexp(x64, samples.double(), [0.3]).sum().backward()
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=0, atol=2e-5 * x64.grad.abs().max().item())


@pytest.mark.parametrize("library", ["torch", "oneDNN"])
@pytest.mark.parametrize("d", [1, 196, 197, 784])
def test_products_of_either_library_are_good_enough(monkeypatch: pytest.MonkeyPatch, library: str, d: int) -> None:
    if library == "oneDNN" and not _products.HAS_ONEDNN:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(_products, "_ONEDNN_IS_FASTER", library == "oneDNN")
    x, samples = torch.randn(40, d), torch.randn(3000, d)  # their mean is 0: nothing but the products can be better
    assert isinstance(_products.prepare(samples), list) == (library == "oneDNN")
    assert_accurate(x, samples, [0.5, 2, 8])


def test_lossy_float32_products_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a processor whose float32 products do become bfloat16 ones."""
    monkeypatch.setattr(_products, "exact", lambda tensor: tensor.dtype is torch.float64)
    plain = torch.mm

    def lossy(a: Tensor, b: Tensor, **kwargs: Tensor) -> Tensor:
        return plain(a, b, **kwargs) if a.dtype is torch.float64 else plain(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch, "mm", lossy)
    assert_accurate(torch.rand(20, 50), torch.rand(30, 50), [0.1])


@pytest.mark.skipif(not hasattr(torch.ops.aten.mm, "dtype_out"), reason="torch before 2.8 has no such products")
@pytest.mark.parametrize("allowed", [False, True])
def test_half_products_are_not_used_where_the_user_lets_them_sum_in_float16(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_fp16_accumulation=allowed))
    on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    assert _products.half_products_are_exact(on_gpu) == (not allowed)
    assert not _products.half_products_are_exact(torch.ones(1))


def halves(rows: Tensor, split: bool, low_section: int) -> Tensor:
    """What `parzen._halves` computes on CUDA; tests/simt holds the kernel to the same."""
    scaled = rows * parzen._HALF_SCALE
    high = scaled.half()
    low = (scaled - high.float()).half()
    return torch.cat([low if section == low_section else high for section in range(3 if split else 1)], 1)


@pytest.mark.gpu
@pytest.mark.parametrize("split", [False, True])
def test_halves(split: bool) -> None:
    rows = torch.randn(30, 100) * 10.0 ** torch.randint(-8, 5, (30, 100))
    ours = parzen._halves(rows.cuda(), split, 1).cpu()
    torch.testing.assert_close(ours, halves(rows, split, 1 if split else -1), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shift", [0, 3, 1000])
def test_split_halves_are_as_exact_as_float32(shift: float) -> None:
    """What the CUDA path multiplies: exact products of float16 numbers, here summed in float64."""
    a, b = torch.randn(30, 100) + shift, torch.randn(40, 100) + shift
    if shift == 1000:
        assert halves(a, True, 1).isinf().any()  # goes through differences
        return
    left, right = halves(a, True, 1), halves(b, True, 0)
    products = (left.double() @ right.double().t()) / parzen._HALF_SCALE**2
    exact = a.double() @ b.double().t()
    assert (products - exact).abs().max() <= 2**-22 * (a.abs().double() @ b.abs().double().t()).max()


@pytest.fixture
def _tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA path's arithmetic, with a product that stands for the tensor cores'."""
    plain = torch.mm

    def product(a: Tensor, b: Tensor, *, out: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        return plain(a.to(out.dtype), b.to(out.dtype), out=out)

    monkeypatch.setattr(_products, "half_products_are_exact", lambda x: True)
    monkeypatch.setattr(parzen, "_halves", lambda rows, split, low: halves(rows, split, low if split else -1))
    monkeypatch.setattr(torch, "mm", product)


@pytest.mark.usefixtures("_tensor_cores")
def test_split_products_are_no_worse_than_torch() -> None:
    x, samples = torch.rand(40, 200), torch.rand(500, 200)
    assert_accurate(x, samples, PAPER_SIGMAS)
    x[3] = 1e4  # infinite as float16: goes through differences
    assert_accurate(x, samples, PAPER_SIGMAS)
    ours, exact = parzen_logsumexp(x, samples, PAPER_SIGMAS).double(), exact_values(x, samples, PAPER_SIGMAS)
    torch.testing.assert_close(ours[:, :3], exact[:, :3], rtol=1e-6, atol=1e-4)


@pytest.mark.usefixtures("_tensor_cores")
def test_tf32_precision_is_good_for_means() -> None:
    x, samples = torch.rand(100, 200), torch.rand(500, 200)
    exact = exact_values(x, samples, PAPER_SIGMAS)
    error = parzen_logsumexp(x, samples, PAPER_SIGMAS, precision="tf32").double() - exact
    assert 1e-3 < error.abs().max() < 0.5
    assert error.mean(1).abs().max() < 0.03


def test_the_mean_over_points_is_exact_to_a_thousandth_of_a_nat() -> None:
    x, samples = torch.rand(300, 784), torch.rand(1000, 784)
    ours = parzen_logsumexp(x, samples, PAPER_SIGMAS).double().mean(1)
    torch.testing.assert_close(ours, exact_values(x, samples, PAPER_SIGMAS).mean(1), rtol=0, atol=1e-3)


def test_many_tiles_give_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = torch.rand(300, 20), torch.rand(900, 20)
    whole = parzen_logsumexp(x, samples, PAPER_SIGMAS)
    monkeypatch.setattr(parzen, "_tile_shape", lambda x, count: (20, 64))
    torch.testing.assert_close(parzen_logsumexp(x, samples, PAPER_SIGMAS), whole, rtol=1e-6, atol=1e-6)
    for a, b in zip(
        gradients(x, samples, [0.3, 0.6], "native"), gradients(x, samples, [0.3, 0.6], "reference"), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("cache", "d", "count", "shape"),
    [
        (32 << 20, 784, 10_000, (256, 2560)),
        (64 << 20, 784, 10_000, (256, 5120)),
        (32 << 20, 784, 100, (2672, 100)),
        (32 << 20, 2, 100_000, (64, 10_240)),
        (8 << 20, 1 << 20, 10_000, (64, 64)),
        (32 << 20, 0, 50, (10_000, 50)),
    ],
)
def test_tiles_fit_the_cache_and_are_round(
    monkeypatch: pytest.MonkeyPatch, cache: int, d: int, count: int, shape: tuple[int, int]
) -> None:
    monkeypatch.setattr(parzen, "last_cache_bytes", lambda: cache)
    assert parzen._tile_shape(torch.empty(1, 1).expand(10_000, d), count) == shape


@pytest.mark.parametrize(
    ("files", "mebibytes"),
    [
        ({"index0": "48K", "index2": "1024K", "index3": "32768K"}, 32),
        ({"index2": "1024K"}, 8),
        ({"index3": "307200K"}, 64),
        ({"index3": "much"}, 8),
        ({}, 32),
    ],
)
def test_the_last_cache_is_read_from_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], mebibytes: int
) -> None:
    for index, text in files.items():
        (tmp_path / index).mkdir()
        (tmp_path / index / "size").write_text(f"{text}\n")
    monkeypatch.setattr(_cache, "_FOLDER", tmp_path)
    assert _cache.last_cache_bytes.__wrapped__() == mebibytes << 20


# ---- the fused CUDA kernel, which serves short rows ------------------------------------------------------------------


ANY = 1 << 62


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Makes the fused kernel serve every call: on the GPU, or its source on the CPU by the host of tests/simt."""
    if request.param == "cuda":
        with parzen.fused_below(ANY):
            yield "cuda"
        return
    monkeypatch.syspath_prepend(Path(__file__).parent / "simt")
    import cases_parzen
    import simt_build
    from simt_host import Host

    if reason := simt_build.why_not("plain"):
        pytest.skip(reason)
    host = Host(simt_build.compile_library("parzen", "plain"), "plain")

    def run(*arguments: int) -> None:
        *op, dtype, _device, _stream, _threads = arguments
        host.call("parzen_fused", dtype, ctypes.byref(cases_parzen.Fused(*op)), 0, ctypes.c_size_t(0))

    monkeypatch.setattr(parzen, "_is_fused", lambda x: True)
    monkeypatch.setattr(_core, "parzen_fused", run, raising=False)
    monkeypatch.setattr(_core, "parzen_fused_parts", lambda n, count, sigmas, device: 1 + count // 500, raising=False)
    yield "cpu"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 40, 3072), (3, 5, 0)])
def test_fused_values_are_no_worse_than_torch(fused: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    n, count, d = shape
    x, samples = torch.rand(n, d, dtype=dtype, device=fused), torch.rand(count, d, dtype=dtype, device=fused)
    assert_accurate(x, samples, PAPER_SIGMAS)
    assert_accurate(x + 100, samples + 100, PAPER_SIGMAS)


@pytest.mark.parametrize("sigma", [1e-30, 1e-10, 0.02, 0.3, 10.0, 1e30])
@pytest.mark.parametrize("width", [0.2, 1e-4, 0])
def test_fused_inside_tight_clusters(fused: str, sigma: float, width: float) -> None:
    centres = torch.rand(10, 100)
    x, samples = clusters(20, 100, width, centres).to(fused), clusters(300, 100, width, centres).to(fused)
    assert_accurate(x, samples, [sigma])


@pytest.mark.parametrize("unit", [1e-30, 1e-15, 1e15])
def test_fused_data_of_any_size(fused: str, unit: float) -> None:
    x, samples = torch.randn(9, 12, device=fused), torch.randn(70, 12, device=fused)
    ours = parzen_logsumexp(x * unit, samples * unit, [1e-3 * unit, unit])
    exact = exact_values(x * unit, samples * unit, [1e-3 * unit, unit])
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=1e-6)


def test_fused_ends_of_the_range(fused: str) -> None:
    x, samples = torch.rand(70, 6, device=fused), torch.rand(100, 6, device=fused)
    clean = parzen_logsumexp(x, samples, PAPER_SIGMAS)
    x[4, 2], x[65, 0] = math.nan, -math.inf
    far = torch.cat([samples, torch.full((1, 6), math.inf, device=fused), torch.full((1, 6), 1e30, device=fused)])
    values = parzen_logsumexp(x, far, PAPER_SIGMAS)
    assert values[:, 4].isnan().all()
    assert (values[:, 65] == -math.inf).all()
    rest = [i for i in range(70) if i not in (4, 65)]
    torch.testing.assert_close(values[:, rest], clean[:, rest])
    samples[99, 3] = math.nan
    assert parzen_logsumexp(x, samples, PAPER_SIGMAS).isnan().all()
    together = parzen_logsumexp(far[:3], far, [1e-160, 1e-20, 1.0])
    assert torch.equal(together[:2], torch.zeros(2, 3, device=fused))


def test_fused_gradients(fused: str) -> None:
    x, samples = torch.rand(7, 20, device=fused), torch.rand(600, 20, device=fused)
    for a, b in zip(
        gradients(x, samples, [0.3, 0.6], "native"), gradients(x, samples, [0.3, 0.6], "reference"), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_fused_in_a_cuda_graph() -> None:
    x, samples = torch.rand(100, 30, device="cuda"), torch.rand(5000, 30, device="cuda")
    sigmas = torch.tensor(PAPER_SIGMAS, device="cuda")
    with parzen.fused_below(ANY):
        expected = parzen_logsumexp(x, samples, sigmas)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = parzen_logsumexp(x, samples, sigmas)
    graph.replay()
    assert torch.equal(captured, expected)


def test_only_cuda_and_only_short_rows_are_fused() -> None:
    before = parzen._FUSED_BELOW
    with parzen.fused_below(65):
        assert not parzen._is_fused(torch.empty(3, 64))
    assert before == parzen._FUSED_BELOW


# ---- the ends of the range ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_only_where_the_exponent_overflows(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    x = torch.tensor([[0.0], [largest**0.5 * 1.3], [largest**0.5 * 1.5], [largest]], dtype=dtype)
    values = parzen_logsumexp(x, torch.zeros(1, 1, dtype=dtype), [1.0])[0]
    assert values.isinf().tolist() == [False, False, True, True]
    torch.testing.assert_close(values[1], -x[1, 0] * (x[1, 0] / 2), rtol=1e-6, atol=0)
    # sums of squares overflow on the way, exponents do not
    wide = parzen_logsumexp(x[:, :1] / 2, -x / 2, [largest / 4])
    torch.testing.assert_close(wide[0].double(), exact_wide(x, largest), rtol=1e-5, atol=1e-5)


def exact_wide(x: Tensor, largest: float) -> Tensor:
    unit = x.double() / largest
    return torch.logsumexp(-8 * ((unit + unit.T) / 2) ** 2, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_row_poisons_itself_only(dtype: torch.dtype) -> None:
    x, samples = torch.rand(9, 6, dtype=dtype), torch.rand(40, 6, dtype=dtype)
    clean = parzen_logsumexp(x, samples, PAPER_SIGMAS)
    x[4, 2] = math.nan
    values = parzen_logsumexp(x, samples, PAPER_SIGMAS)
    assert values[:, 4].isnan().all()
    rest = [i for i in range(9) if i != 4]
    assert torch.equal(values[:, rest], clean[:, rest])
    samples[3, 3] = math.nan
    assert parzen_logsumexp(x, samples, PAPER_SIGMAS).isnan().all()


def test_rows_of_any_width_come_in_strips() -> None:
    """100 MB of points: the strip of them that is moved to the mean has no more than a block of samples."""
    x, samples = torch.rand(200, 131_072), torch.rand(3, 131_072)
    pairs = parzen._Pairs(x, samples, torch.tensor([5.0], dtype=torch.float64), "split")
    tiles = [tile.x.numel() for tile in pairs]
    assert max(tiles) == 64 * 131_072
    assert sum(tiles) == x.numel()


def test_a_nan_sample_poisons_all_whatever_tile_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parzen, "_tile_shape", lambda x, count: (64, 6))
    for row in (0, 450, 899):
        samples = torch.rand(900, 6)
        samples[row, 3] = math.nan
        assert parzen_logsumexp(torch.rand(5, 6), samples, PAPER_SIGMAS).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bandwidths_may_be_of_any_size_together(dtype: torch.dtype) -> None:
    """The largest one decides the scale; the smallest has a rate that no float holds."""
    samples = torch.rand(4, 5, dtype=dtype)
    sigmas = [1e-160, 1e-20, 1.0]
    values = parzen_logsumexp(samples, samples, sigmas)
    assert torch.equal(values[:2], torch.zeros(2, 4, dtype=dtype))
    torch.testing.assert_close(values[2:], parzen_logsumexp(samples, samples, [1.0]))
    assert (parzen_logsumexp(samples + 1, samples, sigmas)[0] == -math.inf).all()


def test_infinite_rows_count_for_nothing() -> None:
    x, samples = torch.rand(5, 6), torch.rand(40, 6)
    far = torch.cat([samples, torch.full((1, 6), math.inf), torch.full((1, 6), 1e30)])
    torch.testing.assert_close(parzen_logsumexp(x, far, [0.3]), parzen_logsumexp(x, samples, [0.3]))
    x[2, 0] = -math.inf
    assert parzen_logsumexp(x, samples, [0.3])[0].isinf().tolist() == [False, False, True, False, False]


def test_empty() -> None:
    x, samples = torch.rand(3, 4), torch.rand(5, 4)
    assert parzen_logsumexp(x, samples[:0], [0.1]).tolist() == [[-math.inf] * 3]
    assert parzen_logsumexp(x[:0], samples, [0.1, 0.2]).shape == (2, 0)
    assert parzen_logsumexp(x, samples, []).shape == (0, 3)
    no_values = parzen_logsumexp(x[:, :0], samples[:, :0], [0.1])
    torch.testing.assert_close(no_values, torch.full((1, 3), math.log(5)))
    for gradient in gradients(x, samples[:0], [0.1], "native"):
        assert (gradient == 0).all()


# ---- gradients ------------------------------------------------------------------------------------------------------


def gradients(x: Tensor, samples: Tensor, sigmas, impl: str) -> tuple[Tensor, ...]:
    x, samples = x.clone().requires_grad_(), samples.clone().requires_grad_()
    sigmas = torch.tensor(sigmas, dtype=x.dtype, device=x.device, requires_grad=True)
    values = parzen_logsumexp(x, samples, sigmas, impl=impl)
    weight = torch.linspace(1, 2, values.numel(), dtype=values.dtype, device=x.device).view_as(values)
    return torch.autograd.grad((values * weight).sum(), (x, samples, sigmas))


@pytest.mark.usefixtures("simd_level")
def test_gradcheck(device: str) -> None:
    x, samples = (torch.randn(m, 3, dtype=torch.float64, device=device, requires_grad=True) for m in (4, 6))
    sigmas = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: parzen_logsumexp(*a, impl="native"), (x, samples, sigmas))


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [0, 10])
def test_gradients_are_no_worse_than_torch(shape: tuple[int, int, int], shift: float) -> None:
    n, count, d = shape
    x, samples, sigmas = torch.rand(n, d) + shift, torch.rand(count, d) + shift, [0.2, 0.5, 1.0]
    ours, torchs = gradients(x, samples, sigmas, "native"), gradients(x, samples, sigmas, "reference")
    exact = gradients(x.double(), samples.double(), sigmas, "reference")
    for triple in zip(ours, torchs, exact, strict=True):
        assert_no_worse_than_torch(*triple)


def test_second_order_raises_and_names_the_reference() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(parzen_logsumexp(x, x.detach(), [0.5]).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="impl='reference'"):
        gradient.sum().backward()
    (gradient,) = torch.autograd.grad(
        parzen_logsumexp(x, x.detach(), [0.5], impl="reference").sum(), x, create_graph=True
    )
    gradient.sum().backward()


def test_gradient_where_everything_underflows_is_finite() -> None:
    x = torch.full((1, 2), 1e30, requires_grad=True)
    value = parzen_logsumexp(x, torch.zeros(3, 2), [1e-3])
    assert value.item() == -math.inf
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert torch.equal(gradient, torch.zeros(1, 2))


# ---- every way torch calls an op ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_compute_in_float32(dtype: torch.dtype) -> None:
    x, samples = torch.rand(5, 30).to(dtype).requires_grad_(), torch.rand(9, 30).to(dtype)
    values = parzen_logsumexp(x, samples, [0.1])
    assert values.dtype is torch.float32
    assert torch.equal(values, parzen_logsumexp(x.float(), samples.float(), [0.1]))
    assert torch.autograd.grad(values.sum(), x)[0].dtype is dtype


def test_autocast_changes_nothing() -> None:
    x, samples = torch.rand(5, 30), torch.rand(9, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = parzen_logsumexp(x, samples, [0.1])
    assert torch.equal(inside, parzen_logsumexp(x, samples, [0.1]))


def test_non_contiguous() -> None:
    base = torch.rand(12, 40)
    x, samples = base.t()[::2], base.t()[1::2]
    assert torch.equal(
        parzen_logsumexp(x, samples, [0.3]), parzen_logsumexp(x.contiguous(), samples.contiguous(), [0.3])
    )
    for a, b in zip(
        gradients(x, samples, [0.3], "native"),
        gradients(x.contiguous(), samples.contiguous(), [0.3], "native"),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_sigmas_may_be_a_tensor_a_list_or_an_array() -> None:
    x, samples = torch.rand(5, 3), torch.rand(9, 3)
    for sigmas in ([0.1, 0.2], np.array([0.1, 0.2]), torch.tensor([0.1, 0.2], dtype=torch.float64)):
        assert torch.equal(parzen_logsumexp(x, samples, sigmas), parzen_logsumexp(x, samples, (0.1, 0.2)))


def test_thread_count_does_not_change_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples, products = torch.rand(90, 50), torch.rand(500, 50), torch.rand(90, 500)
    # torch's own product may differ in its last bits from one number of threads to another
    monkeypatch.setattr(_products, "inner", lambda x, prepared, out: out.copy_(products))
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(parzen_logsumexp(x, samples, PAPER_SIGMAS))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thread_count_does_not_change_the_norms(dtype: torch.dtype) -> None:
    """They are sums over a row, of any length."""
    scale = torch.tensor(0.5, dtype=torch.float64)
    for d in range(1, 60):
        rows, centre = torch.randn(70, d, dtype=dtype), torch.randn(d, dtype=dtype)
        results = []
        for threads in (1, 2):
            moved, norms = torch.empty_like(rows), torch.empty(70, dtype=torch.float64)
            operands = (address(tensor) for tensor in (rows, centre, scale))
            outputs = address(moved), address(norms)
            _core.parzen_centre(*operands, 70, d, *outputs, dtype_code(rows), *place(rows)[:2], threads)
            results.append(norms)
        assert torch.equal(*results), d


def test_tiny_sigmas_that_double_precision_holds() -> None:
    x = torch.rand(3, 2)
    assert parzen_logsumexp(x, x, [1e-310])[0].tolist() == pytest.approx([0.0] * 3)


def test_compiles_without_graph_break() -> None:
    x, samples = torch.rand(5, 3, requires_grad=True), torch.rand(9, 3)
    compiled = torch.compile(lambda a, b: parzen_logsumexp(a, b, [0.1, 0.5]).sum(), fullgraph=True, backend="aot_eager")
    (ours,) = torch.autograd.grad(compiled(x, samples), x)
    (plain,) = torch.autograd.grad(parzen_logsumexp(x, samples, [0.1, 0.5]).sum(), x)
    torch.testing.assert_close(ours, plain)


def test_func_grad() -> None:
    x, samples = torch.rand(5, 3), torch.rand(9, 3)
    sigmas = torch.tensor([0.1, 0.5])
    for argument in range(3):
        ours = torch.func.grad(lambda *a: parzen_logsumexp(*a).sum(), argument)(x, samples, sigmas)
        plain = torch.func.grad(lambda *a: parzen_logsumexp(*a, impl="reference").sum(), argument)(x, samples, sigmas)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(device: str, dtype: torch.dtype) -> None:
    x, samples = torch.rand(5, 3, dtype=dtype, device=device), torch.rand(9, 3, dtype=dtype, device=device)
    sigmas = torch.tensor([0.3, 0.6], dtype=torch.float64, device=device)
    torch.library.opcheck(torch.ops.pygan.parzen_logsumexp.default, (x, samples, sigmas, "split"))
    values, log_sum = torch.ops.pygan.parzen_logsumexp(x, samples, sigmas, "split")
    torch.library.opcheck(
        torch.ops.pygan.parzen_logsumexp_backward.default,
        (torch.ones_like(values), x, samples, sigmas, log_sum, "split"),
    )


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "x must be a tensor, got list", ([[1.0]], torch.zeros(1, 1), [1.0])),
        (ValueError, r"x must have shape \[n, d\], got \[3\]", (torch.zeros(3), torch.zeros(1, 1), [1.0])),
        (ValueError, r"samples must have shape \[N, 3\], got \[2, 4\]", (torch.zeros(1, 3), torch.zeros(2, 4), [1.0])),
        (ValueError, r"sigmas must have shape \[S\], got \[\]", (torch.zeros(1, 3), torch.zeros(2, 3), 1.0)),
        (TypeError, "x must be float16, .* got torch.int64", (torch.ones(1, 3).long(), torch.zeros(2, 3), [1.0])),
        (TypeError, "samples must have the dtype of x", (torch.ones(1, 3), torch.zeros(2, 3).double(), [1.0])),
        (
            ValueError,
            "sigmas must be on the device of x",
            (torch.ones(1, 3), torch.zeros(2, 3), torch.zeros(1, device="meta")),
        ),
        (
            ValueError,
            r"sigmas must be positive and finite, got \[0.5, 0.0\]",
            (torch.ones(1, 3), torch.ones(2, 3), [0.5, 0.0]),
        ),
        (ValueError, "sigmas must be positive and finite", (torch.ones(1, 3), torch.ones(2, 3), [math.nan])),
    ],
)
def test_bad_arguments(error: type[Exception], message: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(error, match="parzen_logsumexp: " + message):
        parzen_logsumexp(*arguments)
