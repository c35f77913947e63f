"""Few images: how long a run is, what it mirrors, which epoch is its best, and what its result is read beside."""

import base64
import io
import math

import pytest
import tiny
import torch

import pygan
from pygan import cli, health
from pygan.batches import Batches
from pygan.data import Batch
from pygan.data.scaling import Unit
from pygan.fit import Fit
from pygan.folder import RunFolder
from pygan.run import summary
from pygan.train import _Play

Image = pytest.importorskip("PIL.Image")

CPU = torch.device("cpu")


def test_few_images_get_more_epochs_and_as_many_evaluations(tmp_path):
    run = tiny.run(tmp_path / "a", recipe="digits", epochs=1)
    assert run.recipe.epochs == 1  # what is given, holds
    settings = {name: value for name, value in tiny.SETTINGS.items() if name not in ("epochs", "recipe")}
    del settings["evaluate_every"]
    run = pygan.train(
        tiny.images(), "code2014", tmp_path / "b", least_updates=10_001, on_epoch=lambda run: False, **settings
    )
    assert run.recipe.epochs == 2501  # of 4 updates each
    recipe = pygan.recipes.find_recipe("digits", {}, run.splits)  # 48 images, one batch
    assert (recipe.epochs, recipe.evaluate_every, recipe.samples_every) == (2800, 70, 140)
    assert pygan.recipes.find_recipe("digits", {"evaluate_every": 3}, run.splits).evaluate_every == 3


def test_a_run_that_was_made_longer_for_few_images_resumes_with_its_own_command(tmp_path):
    def digits(resume=True, **settings):
        small = {"generator_hidden": (8, 8), "discriminator_hidden": (6, 6), "pieces": 2, "evaluation_samples": 50}
        stop = {"on_epoch": lambda run: False, "progress": False}
        return pygan.train(tiny.images(150), "digits", tmp_path / "run", resume=resume, **small, **stop, **settings)

    stretched = digits(resume=False).recipe
    assert stretched.evaluate_every > pygan.recipes.RECIPES["digits"].evaluate_every
    assert digits().recipe == stretched
    longer = digits(epochs=stretched.epochs + 1)
    assert longer.recipe.epochs == stretched.epochs + 1
    assert len(longer.history) == 2
    with pytest.raises(ValueError, match="evaluate_every was "):
        digits(evaluate_every=3)


def test_mirrored_images_depend_on_seed_and_epoch_alone():
    data = Batch(torch.rand(20, 1, 2, 3), torch.arange(20))
    batches = Batches(data, 10, 3, CPU, Unit(), flip=True)
    first = [batches() for _ in range(4)]
    mirrored = [
        [not torch.equal(image, data.images[label]) for image, label in zip(batch.images, batch.labels, strict=True)]
        for batch in first
    ]
    for batch, flipped in zip(first, mirrored, strict=True):
        for image, label, flip in zip(batch.images, batch.labels, flipped, strict=True):
            assert torch.equal(image.flip(-1) if flip else image, data.images[label])
    assert 0 < sum(map(sum, mirrored)) < 40
    assert mirrored[:2] != mirrored[2:]
    batches.position = 1
    assert torch.equal(batches().images, first[1].images)
    plain = Batches(data, 10, 3, CPU, Unit())
    assert torch.equal(plain().labels, first[0].labels)  # the order is the same


def entry(spread: float | None, score: float, update: int = 1000) -> dict[str, object]:
    return {"epoch": 1, "log_likelihood": score, "spread": spread, "update": update, "d_loss": 0.7, "g_loss": 0.7}


def test_an_epoch_whose_samples_are_alike_is_not_the_best():
    spreads = {0.0: 2950.0, 0.05: 2900.0, 0.4: 99.0, 0.7: 783.0, 0.8: 10.0, 1.2: 20.0, 1.3: 700.0, None: 15.0}
    epochs = [entry(spread, score) for spread, score in spreads.items()]
    order = [2900.0, 2950.0, 99.0, 700.0, 783.0, 10.0, 15.0, 20.0]
    assert [epoch["log_likelihood"] for epoch in sorted(epochs, key=health.rank)] == order


def test_of_epochs_that_score_above_training_images_the_latest_is_the_best():
    scores = {1: 650.0, 2: 500.0, 3: 600.0, 4: 560.0}
    epochs = [entry(1.0, score, update) | {"reference": 590.0} for update, score in scores.items()]
    assert [epoch["update"] for epoch in sorted(epochs, key=health.rank)] == [2, 4, 1, 3]


def test_the_best_checkpoint_is_one_whose_samples_vary(tmp_path, monkeypatch):
    scores = iter([(0.05, 900.0), (0.5, 1.0), (0.2, 800.0), (0.5, 0.0)])

    def end_epoch(self, epoch, last):
        spread, score = next(scores)
        return {"log_likelihood": score, "sigma": 0.1, "spread": spread}

    monkeypatch.setattr(_Play, "end_epoch", end_epoch)
    tiny.run(tmp_path / "run", epochs=4)
    folder = RunFolder(tmp_path / "run")
    assert folder.read_result()["best_epoch"] == 2
    assert folder.read_checkpoint("best")[1]["best"] == [1.0, 1.0, 0.0]


def test_a_score_of_version_0_1_is_taken_over(tmp_path):
    run = tiny.run(tmp_path / "run")
    folder = RunFolder(run.path)
    tensors, progress = folder.read_checkpoint("last")
    progress["best"] = 12.5
    folder.write_checkpoint("last", tensors, progress)
    seen = []
    before = Fit.restore

    def restore(self, longer=False):
        before(self, longer)
        seen.append(self.best)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "restore", restore)
        tiny.run(tmp_path / "run", resume=True)
    assert seen == [[3.0, 12.5, 0.0]]


@pytest.mark.parametrize(("spread", "update", "warns"), [(0.2, 500, True), (0.2, 499, False), (0.4, 900, False)])
def test_samples_that_are_alike_are_warned_of_although_they_never_varied(spread, update, warns):
    assert ("low_spread" in health.diagnose([entry(0.1, 0.0, 1), entry(spread, 0.0, update)])) == warns


def test_spread_of_pieces_is_that_of_the_whole():
    images = torch.rand(50, 2, 3) + 100
    of_all = math.sqrt(images.double().flatten(1).var(0, correction=0).mean())
    assert health.spread([images]) == pytest.approx(of_all, rel=1e-6)
    assert health.spread(images.split(7)) == pytest.approx(of_all, rel=1e-6)


def test_the_result_has_what_it_is_read_beside(tmp_path):
    run = tiny.run(tmp_path / "run")
    result = RunFolder(run.path).read_result()
    rows = result["reference_log_likelihood"]
    train, valid, test = (run.density_images(split) for split in (run.splits.train, run.splits.valid, run.splits.test))
    window = pygan.ParzenWindow(train).fit(valid)
    assert rows["training images"] == pytest.approx(window.score(test).mean, rel=1e-5)
    window = pygan.ParzenWindow(train.mean(0)[None]).fit(valid)
    assert rows["their mean"] == pytest.approx(window.score(test).mean, rel=1e-5)
    assert result["spread"] == run.history[-1]["spread"]
    text = summary(RunFolder(run.path))
    assert f"training images {rows['training images']:.1f}, their mean {rows['their mean']:.1f}" in text
    assert ("much alike" in text) == (result["spread"] < health.LEAST_SPREAD)
    for above, flatters in ((-1, False), (1, True)):
        RunFolder(run.path).write_result({**result, "log_likelihood": rows["training images"] + above})
        assert ("is not a success" in summary(RunFolder(run.path))) == flatters


@pytest.mark.parametrize(("score", "misled"), [(5.0, True), (-36.0, False)])
def test_samples_that_are_alike_mislead_only_where_they_score_as_the_mean_does(tmp_path, score, misled):
    run = tiny.run(tmp_path / "run")
    folder = RunFolder(run.path)
    rows = {"training images": 9.0, "their mean": -7.1}
    result = {"log_likelihood": score, "spread": 0.1, "reference_log_likelihood": rows}
    folder.write_result({**folder.read_result(), **result})
    text = summary(folder)
    assert "They are much alike" in text
    assert ("misleadingly high" in text) == misled


def test_large_samples_are_judged_in_pieces_with_the_same_result(tmp_path, monkeypatch):
    run = tiny.run(tmp_path / "run")
    whole = run.validation()
    monkeypatch.setattr("pygan.run.WINDOW_BYTES", 1)
    monkeypatch.setattr("pygan.game._NUMBERS_AT_ONCE", 16 * 7)
    assert run.window().n_samples == 50
    in_pieces = run.validation()
    assert in_pieces["sigma"] == whole["sigma"]
    assert in_pieces["log_likelihood"] == pytest.approx(whole["log_likelihood"], abs=1e-4)
    assert in_pieces["spread"] == pytest.approx(whole["spread"], rel=1e-5)


def test_checkpoints_are_kept_on_request(tmp_path):
    tiny.run(tmp_path / "run", epochs=5, keep_every=2)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["0002.safetensors", "0004.safetensors", "best.safetensors", "last.safetensors"]
    kept = [pygan.load(tmp_path / "run", checkpoint=name).sample(1, seed=0) for name in (2, "2", "0002")]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])
    with pytest.raises(ValueError, match="'best', 'last' or the number of a kept epoch, got 'None'"):
        pygan.load(tmp_path / "run", checkpoint=None)
    with pytest.raises(ValueError, match="got 'bst'; did you mean 'best'"):
        pygan.load(tmp_path / "run", checkpoint="bst")


def test_a_refined_bandwidth_lies_between_those_of_the_grid(tmp_path):
    run = tiny.run(tmp_path / "run", sigma="refined")
    assert run.history[-1]["sigma"] not in pygan.evaluate.PAPER_SIGMAS
    assert "(refined)" in RunFolder(run.path).read_result()["protocol"]


def test_a_run_in_a_notebook(tmp_path):
    run = tiny.run(tmp_path / "run <1>")
    assert repr(run).startswith(f"Run('{tmp_path}/run <1>': code2014, 2 epochs, ")
    assert len(repr(run)) < 200 + len(str(tmp_path))
    page = run._repr_html_()
    assert "run &lt;1&gt;" in page
    assert '<img alt="samples" src="data:image/png;base64,iVBOR' in page


def test_a_loaded_run_reads_its_splits_when_they_are_asked_for(tmp_path):
    import numpy as np

    np.save(tmp_path / "images.npy", tiny.images().numpy())
    tiny.run(tmp_path / "run", tmp_path / "images.npy")
    assert len(pygan.load(tmp_path / "run").splits.train) == 48


@pytest.mark.parametrize("numbers", [1, 2])
def test_points_are_plotted(tmp_path, numbers):
    run = tiny.run(tmp_path / "run", torch.rand(60, numbers), samples_every=1, sigma="refined")
    assert cli.main(["sample", str(run.path), "-n", "30", "-o", str(tmp_path / "samples.png")]) == 0
    shown = base64.b64decode(run._repr_html_().split("base64,")[1].split('"')[0])
    for picture in (run.path / "samples" / "0002.png", tmp_path / "samples.png", io.BytesIO(shown)):
        with Image.open(picture) as opened:
            assert opened.size == (500, 500)


def test_a_named_density_trains_on_a_recipe_for_points(tmp_path):
    few = {"epochs": 1, "batch_size": 5000, "evaluation_samples": 500, "progress": False}
    run = pygan.train("gaussian", out=tmp_path / "run", **few)
    assert (run.recipe.name, run.recipe.sigma, run.recipe.pixels) == ("relativistic", "refined", "standard")
    assert 0 < run.history[-1]["sigma"] < 0.1  # the density's own standard deviation is 1/26 of the box
