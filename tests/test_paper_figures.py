"""pygan.figures.paper and `pygan figure`: what is drawn of which runs."""

import importlib
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

import pygan
from pygan import cli, pictures
from pygan.commands import figure
from pygan.data import as_float
from pygan.evaluate import nearest
from pygan.train import _Play

matplotlib = pytest.importorskip("matplotlib")
canvas = importlib.import_module("pygan.figures.canvas")
PAPER = sys.modules["pygan.figures.paper"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory.mktemp("figures") / "run", "digits", epochs=1, batch_size=500)


def picture(axes):
    return torch.as_tensor(np.asarray(axes.get_images()[0].get_array()))


def test_figure_1_has_the_four_stages_of_a_live_game(monkeypatch):
    monkeypatch.setattr(PAPER, "_EPOCHS", (1, 2, 3))
    stages = pygan.figures.play_on_the_line(seed=0)
    assert [stage.title[:3] for stage in stages] == ["(a)", "(b)", "(c)", "(d)"]
    early, alone = stages[:2]
    assert torch.equal(early.p_g, alone.p_g)  # G is the same
    for stage in stages:
        for density in (stage.p_data, stage.p_g):
            assert torch.trapezoid(density, stage.x).item() == pytest.approx(1, abs=0.02)
    clear = (early.p_data + early.p_g) > 0.01 * (early.p_data + early.p_g).max()
    assert torch.equal(clear, ~early.d_optimal.isnan())
    wrong = [(stage.d - stage.d_optimal)[clear].abs().max().item() for stage in (early, alone)]
    assert wrong[1] < 0.05 < wrong[0]  # D alone comes to D*
    distances = [pygan.theory.jsd(stage.p_data, stage.p_g, stage.x).item() for stage in stages]
    assert distances[3] < 0.9 * distances[0]


def test_figure_2_has_the_nearest_training_image_beside_each_rows_last_sample(run):
    figure = pygan.figures.paper(2, [run, run.path], seed=3)
    left, right = figure.axes
    assert torch.equal(picture(left), picture(right))  # a run or its folder
    samples, train = run.sample(20, 3), as_float(run.splits.train.images)
    _, indices = nearest(samples[4::5], train)
    rows = [torch.cat([samples[5 * row : 5 * row + 5], train[indices[row]]]) for row in range(4)]
    assert torch.equal(picture(left), pictures.grid(torch.cat(rows), 6).squeeze(2))
    (frame,) = left.patches
    width = picture(left).shape[1]
    assert frame.get_x() == pytest.approx(width * 5 / 6, abs=1)
    assert frame.get_x() + frame.get_width() == pytest.approx(width, abs=1)
    assert left.get_title() == "digits, code2014"


def test_the_nearest_training_image_is_found_in_all_chunks(run, monkeypatch):
    samples, train = run.sample(7, 0), as_float(run.splits.train.images)
    expected = train[nearest(samples, train)[1][:, 0]]
    monkeypatch.setattr("pygan.run._NEAREST_AT_ONCE", 5)
    assert torch.equal(run.nearest_training_images(samples), expected)


def test_figure_3_walks_on_straight_lines_from_noise_to_noise(run):
    (axes,) = pygan.figures.paper(3, [run], seed=5).axes
    noise = run.noise(8, 5)
    rows = [run.generate(torch.lerp(noise[i], noise[4 + i], torch.linspace(0, 1, 10)[:, None])) for i in range(4)]
    difference = picture(axes).int() - pictures.grid(torch.cat(rows), 10).squeeze(2).int()
    assert difference.abs().max() <= 1


def test_figure_3_keeps_one_class_in_each_row(tmp_path):
    data = tiny.images(), torch.arange(60) % 3
    small = {"epochs": 1, "evaluation_samples": 50, "noise_size": 4, "progress": False}
    run = pygan.train(data, "conditional2014", tmp_path / "run", conditional=True, **small)
    (axes,) = pygan.figures.paper(3, [run.path], seed=5).axes  # the data were in memory: only their name is known
    assert axes.get_title() == "tensor, conditional2014"
    noise, steps = run.noise(8, 5), torch.linspace(0, 1, 10)[:, None]
    rows = [run.generate(torch.lerp(noise[i], noise[4 + i], steps), label) for i, label in enumerate((0, 1, 2, 0))]
    difference = picture(axes).int() - pictures.grid(torch.cat(rows), 10).squeeze(2).int()
    assert difference.abs().max() <= 1


def test_the_command_writes_png_and_svg(run, tmp_path, capsys):
    for number in ("2", "3"):
        assert cli.main(["figure", number, "--run", str(run.path), "-o", str(tmp_path / "new" / f"f{number}.png")]) == 0
        assert capsys.readouterr().out.split() == [
            str(tmp_path / "new" / f"f{number}{end}") for end in (".png", ".svg")
        ]
    assert (tmp_path / "new" / "f2.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "new" / "f3.svg").read_bytes()


def test_the_users_dtype_and_dollars_in_a_name_do_not_matter(run):
    (expected,) = pygan.figures.paper(3, [run], seed=5).axes
    odd = replace(run, data={**run.data, "name": "a$b_$"})
    torch.set_default_dtype(torch.float64)
    try:
        drawn = pygan.figures.paper(3, [odd], seed=5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(picture(drawn.axes[0]), picture(expected))
    assert canvas.picture(drawn, "png").startswith(b"\x89PNG")


def test_data_and_recipe_of_one_name_are_named_once(run):
    runs = [replace(run, data={**run.data, "name": name}) for name in (run.recipe.name, "a")]
    titles = [axes.get_title() for axes in pygan.figures.paper(3, runs).axes]
    assert titles == [run.recipe.name, f"a, {run.recipe.name}"]


def test_a_place_that_cannot_be_written_is_found_before_anything_is_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure, "paper", lambda *arguments, **keywords: drawn.append(arguments))
    (tmp_path / "file").touch()
    assert cli.main(["figure", "3", "-o", str(tmp_path / "file" / "x")]) == 1
    assert drawn == []


@pytest.mark.parametrize("number", ["1", "3"])
def test_ctrl_c_gives_no_advice_to_resume_a_folder_that_is_removed(monkeypatch, capsys, number):
    def interrupted(self, update):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_Play, "update", interrupted)
    assert cli.main(["figure", number]) == 130
    assert capsys.readouterr().err == "pygan: interrupted\n"


def test_what_is_refused(run):
    with pytest.raises(ValueError, match="number must be 1, 2 or 3, got 4"):
        pygan.figures.paper(4)
    with pytest.raises(ValueError, match="Figure 1 is a game of its own and takes no runs"):
        pygan.figures.paper(1, [run])
    assert cli.main(["figure", "4"]) == 2


@pytest.mark.parametrize(
    ("name", "stem"),
    [("x", "x"), ("x.png", "x"), ("z.PNG", "z"), ("z.Svg", "z"), ("v1.2", "v1.2"), ("v1.2.png", "v1.2")],
)
def test_the_names_of_both_files(tmp_path, monkeypatch, name, stem):
    monkeypatch.setattr(figure, "draw_curves", lambda runs: None)
    monkeypatch.setattr(canvas, "picture", lambda drawn, kind, dpi: kind.encode())
    assert cli.main(["figure", "curve", "run", "-o", str(tmp_path / name)]) == 0
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {f"{stem}.png": "png", f"{stem}.svg": "svg"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("f.pdf", "expected a name without suffix, since a .png and a .svg are written, got 'f.pdf'"),
        ("f.JPEG", "expected a name without suffix, since a .png and a .svg are written, got 'f.JPEG'"),
        (".", "expected the name of a file, without suffix, got '.'"),
        ("..", "expected the name of a file, without suffix, got '..'"),
        ("", "expected the name of a file, without suffix, got ''"),
    ],
)
def test_a_name_that_is_not_written_is_refused(capsys, name, message):
    assert cli.main(["figure", "1", "-o", name]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
