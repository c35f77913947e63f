import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pygan.evaluate import CAVEAT, PAPER_SIGMAS, ParzenEstimate, ParzenWindow, chunks, reference_rows


def mixture_log_density(x, samples, sigma):
    """log p(x) by torch.distributions in float64: an independent way to the same number."""
    components = torch.distributions.Independent(torch.distributions.Normal(samples.double(), float(sigma)), 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(len(samples), dtype=torch.float64)), components
    )
    return mixture.log_prob(x.double())


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.rand(*shape, generator=generator)


def test_log_density_is_that_of_the_mixture(draw):
    x, samples = draw(33, 5, 4), draw(70, 5, 4)
    window = ParzenWindow(samples)
    expected = mixture_log_density(x.flatten(1), samples.flatten(1), 0.2)
    torch.testing.assert_close(window.log_density(x, 0.2).double(), expected, rtol=1e-5, atol=1e-4)


def test_sequence_of_sigmas_gives_one_row_each(draw):
    x, window = draw(7, 6), ParzenWindow(draw(20, 6))
    both = window.log_density(x, [0.1, 0.5])
    assert both.shape == (2, 7)
    torch.testing.assert_close(both[1], window.log_density(x, 0.5))
    assert window.log_density(x, 0.5).shape == (7,)


def test_paper_grid():
    np.testing.assert_allclose(PAPER_SIGMAS, np.logspace(-1, 0, 10))


def test_fit_takes_the_best_of_the_grid_and_score_reports_it(draw):
    samples = draw(50, 8)
    window = ParzenWindow(samples)
    valid, test = draw(40, 8), draw(30, 8)
    grid = [0.05, 0.2, 0.3, 3.0]
    assert window.fit(valid, grid) is window
    best = max(grid, key=lambda sigma: mixture_log_density(valid, samples, sigma).mean())
    assert window.sigma == best
    estimate = window.score(test)
    expected = mixture_log_density(test, samples, best)
    assert estimate == ParzenEstimate(estimate.mean, estimate.standard_error, best, 30, 50)
    assert estimate.mean == pytest.approx(expected.mean().item(), abs=1e-4)
    assert estimate.standard_error == pytest.approx(expected.std().item() / math.sqrt(30), rel=1e-4)


def test_fit_warns_at_the_edge_of_the_grid(draw):
    window, valid = ParzenWindow(draw(50, 8)), draw(40, 8)
    with pytest.warns(UserWarning, match="edge of the grid"):
        window.fit(valid, [1.0, 2.0, 4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        window.fit(valid)


def test_score_refuses_the_points_that_fit_has_seen(draw):
    data = draw(60, 8)
    window = ParzenWindow(draw(50, 8)).fit(data[:40])
    for seen in (data[:40], data, data[39:], data[:40].clone()):
        with pytest.raises(ValueError, match="use others"):
            window.score(seen)
    window.score(data[40:])


def test_sigma_set_by_hand(draw):
    window = ParzenWindow(draw(5, 3))
    with pytest.raises(RuntimeError, match="fit"):
        window.score(draw(4, 3))
    window.sigma = 0.3
    assert window.score(draw(4, 3)).sigma == 0.3


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (torch.zeros(0, 3), ValueError, "at least one sample"),
        (torch.zeros(3), ValueError, "samples must have shape"),
        (torch.zeros(3, 3, dtype=torch.uint8), TypeError, "floating-point"),
    ],
)
def test_bad_samples(samples, error, message):
    with pytest.raises(error, match=message):
        ParzenWindow(samples)


def test_bad_arguments(draw):
    window = ParzenWindow(draw(5, 3))
    with pytest.raises(ValueError, match="3 values a row"):
        window.log_density(draw(2, 4), 0.1)
    for sigma in (0.0, -1.0, math.nan, [0.1, math.inf]):
        with pytest.raises(ValueError, match="sigma must be positive"):
            window.log_density(draw(2, 3), sigma)


def test_one_bandwidth_to_fit_and_numbers_of_numpy(draw):
    window, valid = ParzenWindow(draw(50, 8)), draw(40, 8)
    for sigma in (0.3, np.float32(0.3), np.float64(0.3), np.array(0.3), torch.tensor(0.3), [np.float64(0.3)], (1,)):
        expected = 1.0 if sigma == (1,) else 0.3
        assert window.fit(valid, sigma).sigma == pytest.approx(expected)
        assert isinstance(window.sigma, float)
    window.sigma = np.float64(0.4)
    estimate = window.score(draw(20, 8), resamples=np.int64(3), seed=np.int64(1))
    assert json.loads(json.dumps(estimate.sigma)) == 0.4
    torch.testing.assert_close(window.log_density(valid, np.float64(0.4)), window.log_density(valid, 0.4))
    for bad in (-1, 0.0, math.nan, [0.3, math.inf], [[0.3]]):
        with pytest.raises(ValueError, match=r"fit: sigmas must be positive and finite"):
            window.fit(valid, bad)
    window.sigma = -0.4
    with pytest.raises(ValueError, match="sigma must be positive"):
        window.score(draw(20, 8))


def test_own_sigma_is_the_default(draw):
    window, x = ParzenWindow(draw(50, 8)), draw(40, 8)
    for method in (window.log_density, window.score_samples):
        with pytest.raises(RuntimeError, match="no bandwidth yet"):
            method(x)
    window.sigma = 0.3
    assert torch.equal(window.log_density(x), window.log_density(x, 0.3))
    assert torch.equal(window.score_samples(x), window.log_density(x, 0.3))


def test_text_says_when_nothing_compares_and_has_no_nan(draw):
    window = ParzenWindow(draw(500, 2))
    window.sigma = 0.3
    assert str(window.score(draw(20, 2))).endswith("; published figures have 10,000 samples and are not comparable")
    assert "compare" not in str(ParzenEstimate(1.0, 0.5, 0.2, 100, 10_000))
    single = window.score(draw(1, 2))
    assert math.isnan(single.standard_error)
    assert "nan" not in str(single)


def test_the_wider_dtype_wins(draw):
    samples, x = draw(200, 20).bfloat16(), draw(30, 20)
    expected = mixture_log_density(x, samples, 0.05)
    torch.testing.assert_close(ParzenWindow(samples).log_density(x, 0.05).double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        ParzenWindow(x).log_density(samples, 0.05).double(), mixture_log_density(samples, x, 0.05), rtol=1e-5, atol=1e-4
    )
    wide = ParzenWindow(samples.half()).log_density(x.double(), 0.05)
    torch.testing.assert_close(wide, mixture_log_density(x, samples.half(), 0.05), rtol=1e-12, atol=1e-12)


# ---- what may be samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.flip(a, 0).copy()[::-1],
        lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
        lambda a: a.astype(">f4"),
        lambda a: np.asfortranarray(a),
        lambda a: np.ma.masked_array(a, mask=False),
        lambda a: a.astype(np.longdouble),
        lambda a: [a[:30], a[30:]],
        lambda a: torch.utils.data.DataLoader(torch.from_numpy(a), batch_size=30),
    ],
    ids=["flipped rows", "flipped values", "big-endian", "Fortran", "no mask", "long double", "chunks", "DataLoader"],
)
def test_arrays_of_every_kind(draw, change):
    array, x = draw(70, 2, 6).numpy(), draw(9, 2, 6)
    expected = ParzenWindow(array).log_density(x, 0.3).double()
    torch.testing.assert_close(ParzenWindow(change(array)).log_density(x, 0.3).double(), expected, rtol=1e-5, atol=1e-5)


def test_read_only_arrays_give_no_warning_and_are_left_alone(draw):
    array = draw(70, 6).numpy()
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        window = ParzenWindow(array).fit(array[:30], 0.3)
        with pytest.raises(ValueError, match="use others"):
            window.score(array[:9])
    assert not array.flags.writeable


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8, 3), (4, 9, 8), (28, 28)])
def test_a_list_of_images_is_not_taken_for_rows(draw, shape):
    images = [draw(*shape) for _ in range(20)]
    with pytest.raises(ValueError, match=r"samples is a list of 20 arrays of shape .*torch\.stack\(samples\)"):
        ParzenWindow(images)
    assert ParzenWindow(torch.stack(images)).n_samples == 20


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ("samples.npy", TypeError, r"got the path 'samples.npy'; try np.load"),
        (Path("samples.npy"), TypeError, "got the path"),
        ({"x": torch.rand(3, 4)}, TypeError, r"a mapping with the keys \['x'\]"),
        (7, TypeError, "got int"),
        (None, TypeError, "got NoneType"),
        ([[0.1, 0.2], [0.3, 0.4]], TypeError, r"tensors or arrays \[m, ...\], got list"),
        ([torch.rand(4), torch.rand(4)], ValueError, r"samples must have shape \[n, ...\], got \[4\]"),
        (torch.tensor(0.5), ValueError, r"samples must have shape \[n, ...\], got \[\]"),
        (np.array([["a", "b"]]), TypeError, "must be floating-point"),
        (np.ones((3, 4), complex), TypeError, "must be floating-point"),
        (np.ma.masked_array(np.ones((3, 4)), mask=np.eye(3, 4)), ValueError, "has masked values"),
        (torch.rand(3, 4).to_sparse(), TypeError, "must be dense"),
        (
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(9, 4), torch.ones(9))),
            TypeError,
            r"got list; of a DataLoader that yields \(images, labels\)",
        ),
    ],
)
def test_what_cannot_be_samples_is_named(samples, error, message):
    with pytest.raises(error, match="ParzenWindow: .*" + message):
        ParzenWindow(samples)


# ---- bandwidths off the grid ----------------------------------------------------------------------------------------


def test_refined_sigma_is_the_best_there_is(draw):
    """Also where it lies beyond the grid's edge."""
    samples, valid = draw(200, 4), draw(100, 4)
    fine = np.geomspace(0.02, 2, 2000).tolist()
    best = fine[int(ParzenWindow(samples).log_density(valid, fine).mean(1).argmax())]
    for grid in (PAPER_SIGMAS, [1.0, 2.0, 4.0], [best * 1.3]):
        window = ParzenWindow(samples).fit(valid, grid, refine=True)
        assert window.sigma == pytest.approx(best, rel=5e-3)


def test_points_that_are_samples_have_no_best_sigma(draw):
    samples = draw(50, 4)
    with pytest.warns(UserWarning, match="found no best sigma; are points of valid among the samples"):
        ParzenWindow(samples).fit(samples[:20], refine=True)


def test_nan_is_named(draw):
    with pytest.raises(ValueError, match=r"ParzenWindow\.fit: samples or valid hold NaN"):
        ParzenWindow(draw(50, 4)).fit(torch.full((3, 4), torch.nan))


# ---- error bars -----------------------------------------------------------------------------------------------------


def test_error_bars_cover_the_known_value(one_thread):
    """Points and samples of a standard normal: for many samples the window's density is Normal(0, 1 + sigma^2)."""
    generator = torch.Generator().manual_seed(1)
    sigma, n, count, trials = 0.5, 400, 400, 150
    true = -0.5 * math.log(2 * math.pi * (1 + sigma**2)) - 0.5 / (1 + sigma**2)
    with_spread = without = 0
    for trial in range(trials):
        window = ParzenWindow(torch.randn(count, 1, generator=generator))
        window.sigma = sigma
        estimate = window.score(torch.randn(n, 1, generator=generator), resamples=30, seed=trial)
        error = abs(estimate.mean - true)
        without += error < 1.96 * estimate.standard_error
        with_spread += error < 1.96 * math.hypot(estimate.standard_error, estimate.draws_spread)
    assert 0.90 <= with_spread / trials <= 0.99
    assert without < with_spread


def test_draws_spread_is_that_of_fresh_draws(one_thread):
    generator = torch.Generator().manual_seed(2)
    test, spreads, means = torch.randn(500, 2, generator=generator), [], []
    for seed in range(40):
        window = ParzenWindow(torch.randn(500, 2, generator=generator))
        window.sigma = 0.5
        estimate = window.score(test, resamples=50, seed=seed)
        spreads.append(estimate.draws_spread)
        means.append(estimate.mean)
    assert np.mean(spreads) == pytest.approx(np.std(means, ddof=1), rel=0.35)


@pytest.mark.parametrize("count", [30, 50, 51, 99, 120])
def test_samples_that_are_all_alike_have_no_spread(count):
    """Whatever the sizes of the groups that are drawn anew."""
    window = ParzenWindow(torch.full((count, 4), 0.5)).fit(torch.rand(20, 4), [0.2, 0.4])
    estimate = window.score(torch.rand(20, 4), resamples=20)
    assert estimate.draws_spread == pytest.approx(0, abs=1e-6)


def test_resampling_reads_a_file_in_pieces(monkeypatch, tmp_path, draw):
    samples, valid, test = draw(120, 3).numpy(), draw(40, 3), draw(30, 3)
    np.save(tmp_path / "samples.npy", samples)
    whole = ParzenWindow(samples).fit(valid, [0.05, 0.1, 0.2]).score(test, resamples=5)
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 500)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    pieces = ParzenWindow(mapped).fit(valid, [0.05, 0.1, 0.2]).score(test, resamples=5)
    assert pieces.mean == pytest.approx(whole.mean)
    assert pieces.draws_spread == pytest.approx(whole.draws_spread)


def test_choosing_sigma_anew_is_reported_after_a_fit(draw):
    grid = [0.02, 0.05, 0.1, 0.2, 0.4]
    window = ParzenWindow(draw(300, 3)).fit(draw(50, 3), grid)
    estimate = window.score(draw(80, 3), resamples=20)
    assert estimate.choice_spread > 0
    assert "spread over draws" in str(estimate)
    assert ParzenWindow(draw(300, 3)).fit(draw(50, 3), grid).score(draw(80, 3)).choice_spread is None


def test_resampling_is_reproducible_and_refuses_what_it_cannot_do(draw):
    samples, valid, test = draw(120, 3), draw(40, 3), draw(30, 3)
    window = ParzenWindow(samples).fit(valid, [0.05, 0.1, 0.2])
    assert window.score(test, resamples=5, seed=3) == window.score(test, resamples=5, seed=3)
    with pytest.raises(ValueError, match="resamples must be at least 2"):
        window.score(test, resamples=1)
    alone = ParzenWindow(samples[:1])
    alone.sigma = 0.3
    with pytest.raises(ValueError, match="at least two samples, got 1"):
        alone.score(test, resamples=5)
    in_chunks = ParzenWindow([samples])
    in_chunks.sigma = 0.3
    with pytest.raises(ValueError, match="one tensor or array"):
        in_chunks.score(test, resamples=5)


# ---- what does not fit in memory ------------------------------------------------------------------------------------


def test_streams_from_disk_and_from_chunks(draw, tmp_path, monkeypatch):
    samples, valid, test = draw(103, 2, 4), draw(31, 2, 4), draw(57, 2, 4)
    whole = ParzenWindow(samples).fit(valid)
    monkeypatch.setattr("pygan.evaluate.chunks._CHUNK_BYTES", 10 * 8 * 4)
    for name, array in (("samples", samples), ("valid", valid), ("test", test)):
        np.save(tmp_path / f"{name}.npy", array.numpy())
    on_disk = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("samples", "valid", "test")}
    assert isinstance(on_disk["samples"], np.memmap)
    assert len(list(ParzenWindow(on_disk["samples"])._samples)) == 11
    for form in (on_disk, {"samples": samples.split(40), "valid": list(valid.split(7)), "test": [test.numpy()]}):
        window = ParzenWindow(form["samples"]).fit(form["valid"])
        estimate = window.score(form["test"])
        assert window.sigma == whole.sigma
        assert estimate.mean == pytest.approx(whole.score(test).mean, abs=1e-5)
        assert (estimate.n_test, estimate.n_samples) == (57, 103)
        with pytest.raises(ValueError, match="use others"):
            window.score(form["valid"])


def test_chunks_that_cannot_be_read_again_are_refused(draw):
    with pytest.raises(TypeError, match="can be read only once"):
        ParzenWindow(iter([draw(3, 4)]))
    with pytest.raises(ValueError, match="4 values a row in every chunk"):
        ParzenWindow([draw(3, 4), draw(3, 5)])


RANK = """
import sys, torch, torch.distributed as dist
from pygan import ParzenWindow
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
generator = torch.Generator().manual_seed(0)
samples, valid, test = (torch.rand(n, 6, generator=generator) for n in (101, 30, 40))
chunks = [samples, list(samples.split(30)), samples[:1]][int(sys.argv[3])]
window = ParzenWindow(chunks, group=dist.group.WORLD).fit(valid)
print("result", window.sigma, window.log_density(test, [0.2, 0.5]).double().flatten().tolist())
dist.destroy_process_group()
try:
    window.log_density(test, 0.2)
except RuntimeError as error:
    print("afterwards", error)
"""


@pytest.mark.parametrize("form", [0, 1, 2], ids=["tensor", "chunks", "fewer samples than ranks"])
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_ranks_give_the_answer_of_one_process(form, tmp_path, draw):
    command = [sys.executable, "-W", "ignore", "-c", RANK, str(tmp_path / "rendezvous")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank), str(form)], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=300)[0].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    answers = [next(line for line in lines if line.startswith("result")) for lines in outputs]
    assert answers[0] == answers[1]
    for lines in outputs:  # the window keeps no group alive, with which the interpreter could not end
        assert lines[-1] == "afterwards ParzenWindow: the process group given as group has been destroyed"
    samples, valid, test = draw(101, 6), draw(30, 6), draw(40, 6)
    window = ParzenWindow(samples[:1] if form == 2 else samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        window.fit(valid)
    _, sigma, values = answers[0].split(maxsplit=2)
    assert float(sigma) == window.sigma
    expected = window.log_density(test, [0.2, 0.5]).double().flatten()
    torch.testing.assert_close(torch.tensor(json.loads(values), dtype=torch.float64), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("convert", [lambda tensor: tensor, lambda tensor: tensor.numpy()], ids=["tensor", "array"])
def test_points_that_fit_has_seen_are_known_by_their_memory(draw, convert):
    samples, data = draw(60, 3), convert(draw(90, 3))
    window = ParzenWindow(samples).fit(data[::2], [0.1, 0.3])
    assert window.score(data[1::2]).n_test == 45  # every other row: the same range of addresses, but no row shared
    for seen in (data, data[:3], torch.as_tensor(data)[4:]):
        with pytest.raises(ValueError, match="test holds points on which fit chose sigma"):
            window.score(seen)


# ---- what to read an estimate beside --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the best bandwidth")
def test_reference_rows(draw):
    rows = reference_rows(draw(200, 5), draw(40, 5), draw(40, 5), n_samples=50)
    assert list(rows) == ["training data", "k-means centroids"]
    assert [row.n_samples for row in rows.values()] == [50, 50]
    assert "Theis" in CAVEAT


def test_mnist_training_images_score_what_theis_et_al_report(data_root: Path):
    """243 nats for 10,000 training images (Theis et al. 2015, table 1), under the paper's protocol."""
    from pygan.data import as_float, load

    splits = load("mnist", root=data_root)
    train, valid, test = (as_float(part.images) for part in (splits.train, splits.valid, splits.test))
    drawn = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:10_000]]
    estimate = ParzenWindow(drawn).fit(valid[:1000]).score(test)
    assert estimate.mean == pytest.approx(243, abs=3 * estimate.standard_error)
