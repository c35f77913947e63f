"""Table 1: what is trained, judged, kept and printed."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from test_recipes2014 import SMALL, write_tfd

import pygan
from pygan.cli import main
from pygan.data import NAMED, Batch, Source, as_float
from pygan.evaluate import ParzenWindow
from pygan.folder import RunFolder
from pygan.run import Run
from pygan.table1 import PUBLISHED

TINY = {
    "generator_hidden": (8, 8),
    "discriminator_hidden": (6, 6),
    "pieces": 2,
    "epochs": 2,
    "batch_size": 10,
    "evaluation_samples": 50,
}

sample = Run.sample


@pytest.fixture
def mnist(monkeypatch):
    """A small data set that is called mnist."""
    pixels = torch.randint(256, (80, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = Source("mnist", Batch(pixels[:40]), "made up", Batch(pixels[40:60]), Batch(pixels[60:]))
    monkeypatch.setitem(NAMED, "mnist", lambda root: source)


def cells(text, model):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {model} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_mnist_over_seeds_by_the_authors_protocol(tmp_path, mnist):
    table = pygan.table1(tmp_path, ["mnist"], seeds=(0, 1), progress=False, **TINY)
    ours, training, centroids = table.rows
    runs = [pygan.load(tmp_path / f"mnist-code2014-seed{seed}") for seed in (0, 1)]
    estimates = [run.log_likelihood() for run in runs]
    assert [score.mean for score in ours.scores] == pytest.approx([estimate.mean for estimate in estimates])
    assert ours.standard_error == pytest.approx(np.mean([estimate.standard_error for estimate in estimates]))
    assert ours.seeds_error == pytest.approx(abs(estimates[0].mean - estimates[1].mean) / 2)
    for score, run in zip(ours.scores, runs, strict=True):
        result = RunFolder(run.path).read_result()
        assert score.run["epochs"] == result["epochs"] == 2
        assert score.run["seed"] == run.seed
    splits = pygan.data.load("mnist")
    window = ParzenWindow(as_float(splits.train.images)).fit(as_float(splits.valid.images))
    assert training.mean == pytest.approx(window.score(as_float(splits.test.images)).mean)
    assert training.seeds_error is None
    text = (tmp_path / "table1.md").read_text()
    assert text == table.markdown()
    assert cells(text, "adversarial nets, as published") == ["225 +- 2", "2057 +- 26"]
    assert cells(text, "adversarial nets, code2014") == [
        f"{ours.mean:.1f} +- {ours.standard_error:.1f}; over 2 seeds +- {ours.seeds_error:.1f}",
        "",
    ]
    assert cells(text, "k-means centroids of them")[0] == f"{centroids.mean:.1f} +- {centroids.standard_error:.1f}"
    assert "Theis et al. 2015" in text
    assert "short version" not in text
    kept = json.loads((tmp_path / "table1.json").read_text())
    assert kept["rows"][0]["mean"] == ours.mean
    assert kept["rows"][0]["scores"][1]["run"]["path"] == str(tmp_path / "mnist-code2014-seed1")
    assert kept["published"]["DBN"]["tfd"] == [1909, 66] == list(PUBLISHED["DBN"]["tfd"])


def test_it_goes_on_where_it_was_interrupted(tmp_path, mnist, monkeypatch):
    module, trained = sys.modules["pygan.table1"], []

    def once(data, recipe, out, **keywords):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(out)
        return pygan.train(data, recipe, out, **keywords)

    monkeypatch.setattr(module, "train", once)
    with pytest.raises(KeyboardInterrupt):
        pygan.table1(tmp_path, ["mnist"], progress=False, **TINY)
    first = (tmp_path / "mnist-code2014-seed0" / "generator.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(module, "train", pygan.train)
    table = pygan.table1(tmp_path, ["mnist"], progress=False, **TINY)
    assert len(table.rows[0].scores) == 2
    for judge in ("centroids", "ParzenWindow"):
        monkeypatch.setattr(module, judge, None)  # what is there is not done again
    assert pygan.table1(tmp_path, ["mnist"], progress=False, **TINY).rows == table.rows
    assert (tmp_path / "mnist-code2014-seed0" / "generator.safetensors").stat().st_mtime_ns == first


def test_a_run_is_judged_again_only_if_it_or_the_data_have_changed(tmp_path, mnist, monkeypatch):
    judged = []
    monkeypatch.setattr(Run, "sample", lambda run, *args, **how: judged.append(run) or sample(run, *args, **how))
    path = tmp_path / "run"

    def judge():
        judged.clear()
        table = pygan.table1(tmp_path / "out", runs=[path], progress=False)
        return len(judged), table.rows[0].scores[0]

    def train(epochs):
        pygan.train("mnist", "code2014", path, progress=False, resume=True, **TINY | {"epochs": epochs})

    train(2)
    times, first = judge()
    assert times == 1
    assert judge() == (0, first)
    train(3)
    times, longer = judge()
    assert (times, longer.run["epochs"]) == (1, 3)
    assert longer.mean != first.mean
    splits = pygan.data.load("mnist")
    other = Source("mnist", splits.train, "made up", splits.valid, Batch(255 - splits.test.images))
    with monkeypatch.context() as patch:
        patch.setitem(NAMED, "mnist", lambda root: other)
        times, negative = judge()
    assert times == 1
    assert negative.mean != longer.mean
    assert judge() == (0, longer)


def test_tfd_in_both_phases_over_its_folds(tmp_path, mnist):
    write_tfd(tmp_path)
    small = {**SMALL["tfd2014"], "epochs": 1, "batch_size": 12, "evaluation_samples": 50, "root": tmp_path}
    table = pygan.table1(tmp_path / "out", ["tfd"], seeds=(3,), progress=False, **small)
    (score,) = table.rows[0].scores
    run = pygan.load(tmp_path / "out" / "tfd-tfd2014-seed3-phase2")
    means = []
    for name in ("tfd", "tfd_fold1", "tfd_fold2", "tfd_fold3", "tfd_fold4"):
        splits = pygan.data.load(name, root=tmp_path)
        window = ParzenWindow(run.sample(50, seed=3)).fit(as_float(splits.valid.images))
        means.append(window.score(as_float(splits.test.images)).mean)
    assert score.mean == pytest.approx(np.mean(means))
    assert score.standard_error == pytest.approx(np.std(means, ddof=1) / 5**0.5)
    assert score.run["epochs"] == 2  # of both phases
    assert cells(table.markdown(), "adversarial nets, tfd2014")[0] == ""
    kept = (tmp_path / "out" / "table1.md").read_bytes()
    again = pygan.table1(tmp_path / "out", runs=[run.path], root=tmp_path, progress=False)
    assert again.rows[0].scores[0].mean == score.mean
    assert (tmp_path / "out" / "given" / "table1.md").read_text() == again.markdown()
    assert (tmp_path / "out" / "table1.md").read_bytes() == kept  # not written over by that of other runs


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("PYGAN_DATA", raising=False)
    table = pygan.table1(tmp_path / "out", ["tfd"], root=tmp_path, progress=False)
    assert table.rows == ()
    assert "Not measured: tfd: TFD_48x48.mat is not on this machine" in table.markdown()
    assert not (tmp_path / "out").exists()


def test_the_command_fails_when_nothing_was_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PYGAN_DATA", raising=False)
    out = tmp_path / "out"
    assert main(["table1", "--data", "tfd", "--root", str(tmp_path), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("pygan: error: nothing was measured: tfd: TFD_48x48.mat is not on this machine")
    assert said.err.count("\n") == 1
    assert not out.exists()


def test_a_short_version_downloads_what_there_is_first(tmp_path, monkeypatch):
    """`pygan.plan`, which estimates the time, downloads nothing; and of TFD nothing can be downloaded."""
    monkeypatch.delenv("PYGAN_DATA", raising=False)
    table = pygan.table1(tmp_path / "out", ["tfd"], root=tmp_path, budget=30, progress=False)
    assert "Not measured: tfd: TFD_48x48.mat is not on this machine" in table.markdown()


@pytest.mark.filterwarnings("ignore::pygan.health.HealthWarning")  # so tiny a run may collapse in the seconds it has
def test_a_short_version_says_that_it_is_one_and_has_its_own_folder(tmp_path, mnist, monkeypatch):
    monkeypatch.setattr(sys.modules["pygan.plan"], "_SECONDS", 0.05)
    table = pygan.table1(
        tmp_path, ["mnist"], seeds=(0,), budget=0.05, progress=False, **{**TINY, "epochs": 100_000, "patience": 0}
    )
    assert (tmp_path / "0.05min" / "table1.md").read_text() == table.markdown()
    assert "**A short version, of 0.05 minutes" in table.markdown()
    (score,) = table.rows[0].scores
    assert score.run["stopped"] == "on_epoch ended it"
    assert score.run["epochs"] < 100_000
    assert not (tmp_path / "table1.md").exists()
    assert "k-means centroids of them" not in table.markdown()
    assert score.n_samples == 50
    assert re.search(r"a Parzen window on .*\b50\b.* samples", table.markdown())
    hurried = pygan.table1(tmp_path, ["mnist"], budget=1e-6, progress=False, **TINY)
    assert re.search("Not measured: mnist: an epoch of code2014 takes .* share of the budget is", hurried.markdown())


@pytest.mark.parametrize(("seconds", "more"), [(290, True), (310, False)])
def test_time_that_was_trained_counts_in_a_repeated_short_version(tmp_path, mnist, monkeypatch, seconds, more):
    """Of ten minutes for two seeds, each has five."""
    goes_on = []

    def train(data, recipe, out, on_epoch, **_):
        goes_on.append(on_epoch(None))
        raise KeyboardInterrupt

    run = pygan.train("mnist", "code2014", tmp_path / "10min" / "mnist-code2014-seed0", progress=False, **TINY)
    RunFolder(run.path).write_log([{"epoch": 1, "seconds": seconds}])
    monkeypatch.setattr(sys.modules["pygan.table1"], "train", train)
    with pytest.raises(KeyboardInterrupt):
        pygan.table1(tmp_path, ["mnist"], budget=10, progress=False, **TINY)
    assert goes_on == [more]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"data": ["mnist", "mnist"]}, "data must differ from each other, got 'mnist' more than once"),
        ({"recipes": ["code2014", "paper2014", "code2014"]}, "recipes must differ .* got 'code2014' more than once"),
        ({"seeds": (0, 1, 0)}, "seeds must differ from each other, got 0 more than once"),
        ({"seeds": (0, -1)}, "table1: seeds must be at least 0, got -1"),
        ({"runs": ["runs/a", "runs/b", "runs/../runs/a/"]}, "runs must differ .* got '.*/runs/a' more than once"),
        ({"runs": ["runs/a"], "budget": 5}, "with runs nothing is trained; give one of the two"),
        (
            {"runs": ["runs/a"], "precision": "bf16"},
            "table1: the setting 'precision' is for trainings, and with runs",
        ),
        ({"data": ["cifar10"]}, "data must be of 'mnist', 'tfd', got 'cifar10'"),
        ({"budget": 0}, "budget must be greater than 0 minutes, got 0"),
    ],
)
def test_what_it_refuses(tmp_path, keywords, message):
    with pytest.raises(ValueError, match=message):
        pygan.table1(tmp_path / "runs" / "table1", **keywords)
    assert not (tmp_path / "runs").exists()


def test_the_command_names_the_option_of_a_wrong_seed(capsys):
    assert main(["table1", "--seeds", "0,-1"]) == 2
    assert "argument --seeds: expected a whole number in 0..2**63 - 1, got '-1'" in capsys.readouterr().err


def test_a_run_on_other_data_or_unfinished_is_refused(tmp_path, mnist):
    other = pygan.train("digits", "code2014", out=tmp_path / "1", progress=False, **TINY)
    with pytest.raises(ValueError, match=r"runs must be on 'mnist' or 'tfd', got .* on 'digits'"):
        pygan.table1(tmp_path / "out", runs=[other.path])
    run = pygan.train("mnist", "code2014", out=tmp_path / "2", progress=False, **TINY)
    shutil.copytree(run.path, tmp_path / "3")
    with pytest.raises(ValueError, match=r"must differ in their seeds, got seed 0 in .*/2 and .*/3"):
        pygan.table1(tmp_path / "out", runs=[run.path, tmp_path / "3"])
    (run.path / "result.json").unlink()
    with pytest.raises(ValueError, match="must be a finished run; resume=True finishes it"):
        pygan.table1(tmp_path / "out", runs=[run.path])
    assert not (tmp_path / "out").exists()


def test_a_mistyped_setting_leaves_no_folder(tmp_path, mnist):
    with pytest.raises(TypeError, match="unknown setting 'typo'"):
        pygan.table1(tmp_path / "runs" / "table1", ["mnist"], typo=1)
    assert not (tmp_path / "runs").exists()
