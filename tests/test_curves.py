"""The curves of runs: what is drawn of which log, and that a run and `pygan figure curve` show them."""

import importlib
from dataclasses import replace

import pytest
import tiny

import pygan
from pygan import cli
from pygan.figures import curves, draw_curves
from pygan.objectives import OBJECTIVES
from pygan.recipes import RECIPES
from pygan.record import Record, read_record

pytest.importorskip("matplotlib")
picture = importlib.import_module("pygan.figures.canvas").picture


def record(path, history, recipe="paper2014", result=None):
    return Record(path, RECIPES[recipe], 0, 1, {"shape": [1, 4, 4], "train": 50}, history, result)


def entry(epoch, score=None, **changes):
    known = {"log_likelihood": score, "sigma": None, "spread": None, "reference": None if score is None else 9.0}
    statistics = {"d_loss": 1.0 * epoch, "g_loss": 2.0 * epoch, "d_real": 0.7, "d_fake": 0.3}
    return {"epoch": epoch, "update": 10 * epoch, **statistics, **known, **changes}


def lines(axes):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_each_panel_shows_its_numbers_at_their_epochs(tmp_path):
    history = [entry(1), entry(2, 5.0), entry(3), entry(4, 7.0), entry(5, 6.0)]
    axes = {axes.get_title(loc="left"): axes for axes in draw_curves([record(tmp_path, history)]).axes}
    assert list(axes) == [
        "log-likelihood of validation images, nats", "losses", "discriminator's output", "learning rates",
    ]  # fmt: skip
    score = lines(axes["log-likelihood of validation images, nats"])
    assert score["samples"] == ([2, 4, 5], [5, 7, 6])
    assert score["training images"] == ([2, 4, 5], [9, 9, 9])
    assert ([4], [7]) in score.values()  # the dot at the best epoch
    losses = lines(axes["losses"])
    assert losses == {
        "discriminator": ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        "generator": ([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]),
    }
    rates = lines(axes["learning rates"])["both players"][1]
    assert rates == [RECIPES["paper2014"].rates(10 * e - 1, 10).generator_lr for e in range(1, 6)]


def test_learning_rates_are_seen_whole(tmp_path):
    """Equal ones as one line, and below the upper edge; epochs are whole numbers."""
    constant = RECIPES["digits"]
    other = constant.with_settings(generator_lr=constant.generator_lr / 2)
    one, two = (record(tmp_path / name, [entry(1), entry(2)], "digits") for name in "ab")
    two = replace(two, recipe=other)
    for runs, names in (
        ([one], ["both players"]),
        ([two], ["discriminator", "generator"]),
        ([one, two], ["a", "b", "_"]),
    ):
        axes = draw_curves(runs).axes[-1]
        assert axes.get_title(loc="left").partition("\n")[0] == "learning rates"
        assert list(lines(axes)) == names
        most = max(max(y) for _, y in lines(axes).values())
        assert axes.get_ylim() == (0, pytest.approx(1.05 * most))
        assert [tick for tick in axes.get_xticks() if 1 <= tick <= 2] == [1, 2]


def test_a_curve_of_one_point_is_seen(tmp_path):
    for history, marker in (([entry(1)], "."), ([entry(1), entry(2)], "")):
        axes = draw_curves([record(tmp_path, history)]).axes[0]
        assert {line.get_marker() for line in axes.lines} == {marker}


def test_the_words_of_a_chart_tell_of_curves_and_not_of_the_dot(tmp_path):
    axes = draw_curves([record(tmp_path, [entry(1, 5.0)])]).axes[0]
    charts = importlib.import_module("pygan.report.charts")
    assert charts._ends(axes) == "samples from 5 to 5; training images from 9 to 9"


def test_a_long_run_is_drawn_by_means_of_equal_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "_POINTS", 3)
    x, y = curves._points(record(tmp_path, [entry(epoch) for epoch in range(1, 9)]), "d_loss")
    assert (x, y) == ([2, 5, 7.5], [2, 5, 7.5])


def test_runs_of_different_games_share_what_both_have(tmp_path):
    critic = entry(1, distance=3.0)
    del critic["d_real"], critic["d_fake"]
    shown = draw_curves([record(tmp_path / "a$b$", [entry(1)]), record(tmp_path / "_c", [critic], "wgan")])
    axes = {axes.get_title(loc="left").partition("\n")[0]: axes for axes in shown.axes}
    assert set(axes) == {"losses", "discriminator's output", "critic's distance", "learning rates"}
    assert [text.get_text() for text in axes["losses"].get_legend().get_texts()] == ["a$b$", " _c"]
    assert list(lines(axes["critic's distance"])) == [" _c"]
    assert b"a$b$" in picture(shown, "svg")


def test_every_statistic_has_a_panel(tmp_path):
    """Of each objective, and of one that nobody knows."""
    for objective in OBJECTIVES.values():
        epoch = {"epoch": 1, "update": 1, **dict.fromkeys(objective.statistics, 0.5)}
        shown = curves.panels([record(tmp_path, [epoch])])
        assert set(objective.statistics) <= {line.entry for panel in shown for line in panel.lines}
        assert not {panel.title for panel in shown} & set(objective.statistics), "ours have titles in words"
    assert curves.panels([record(tmp_path, [entry(1, temper=1.0)])])[-1].title == "temper"


def test_no_epoch_is_refused_by_the_name_of_the_run(tmp_path):
    with pytest.raises(ValueError, match=f"draw_curves: runs must have at least one completed epoch, got {tmp_path}"):
        draw_curves([record(tmp_path, [])])
    with pytest.raises(ValueError, match="got no run"):
        draw_curves([])


def test_a_run_shows_its_curves_and_itself_in_a_notebook(tmp_path):
    run = tiny.run(tmp_path / "<run>")
    assert run.plot()._repr_png_().startswith(b"\x89PNG")
    shown = run._repr_html_()
    assert "<th>recipe</th><td>code2014</td>" in shown
    assert f"{run.history[-1]['log_likelihood']:.1f} nats on the validation split" in shown
    assert "&lt;run&gt;" in shown
    assert '<img alt="samples" src="data:image/png;base64,' in shown


def test_the_command_draws_runs_that_are_still_training(tmp_path, capsys, monkeypatch):
    run = tiny.run(tmp_path / "one")
    (run.path / "result.json").unlink()
    for file in (run.path / "checkpoints").iterdir():
        file.unlink()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figure", "curve", "one", str(run.path), "-o", "new/both.svg"]) == 0
    assert capsys.readouterr().out == "new/both.png\nnew/both.svg\n"
    assert b"log-likelihood of validation images, nats" in (tmp_path / "new" / "both.svg").read_bytes()
    assert cli.main(["figure", "curve", "none"]) == 1
    assert "load: none holds no run" in capsys.readouterr().err
    assert cli.main(["figure", "curve"]) == 2
    assert "curve needs a run" in capsys.readouterr().err


def test_a_record_is_the_run_without_its_weights(tmp_path, one_thread):
    run = tiny.run(tmp_path / "run", epochs=3, evaluate_every=1)
    read = read_record(run.path)
    assert [{k: v for k, v in e.items() if k != "seconds"} for e in read.history] == run.history
    assert read.best()["epoch"] == read.result["best_epoch"]
    assert read.references() == run.reference_log_likelihood()
    log = run.path / "log.jsonl"
    log.write_text(log.read_text() + '{"epoch": "four"}\n')
    with pytest.raises(pygan.folder.DamagedError, match=r"log.jsonl .*epoch must be of type int"):
        read_record(run.path)
