"""Paths and sums in the space of noise, and their pictures from the command line."""

import math

import pytest
import tiny
import torch

import pygan
from pygan import latent
from pygan.cli import main
from pygan.commands import latent as command

Image = pytest.importorskip("PIL.Image")


def test_straight_paths():
    start, end = torch.randn(3, 5), torch.randn(3, 5)
    path = latent.interpolate(start, end, 5)
    assert path.shape == (3, 5, 5)
    torch.testing.assert_close(path[:, 1], 0.75 * start + 0.25 * end)
    torch.testing.assert_close((path[:, 0], path[:, -1]), (start, end))


def test_arcs_keep_the_length_and_turn_evenly():
    start, end = torch.randn(4, 100, dtype=torch.float64), torch.randn(4, 100, dtype=torch.float64)
    end *= 2 * (start.norm(dim=1) / end.norm(dim=1))[:, None]  # twice as long
    path = latent.interpolate(start, end, 9, spherical=True)
    torch.testing.assert_close((path[:, 0], path[:, -1]), (start, end))
    lengths = path.norm(dim=2) / start.norm(dim=1)[:, None]
    torch.testing.assert_close(lengths, torch.linspace(1, 2, 9, dtype=torch.float64).expand(4, 9))
    turns = torch.cosine_similarity(path[:, 1:], path[:, :-1], dim=2).acos()
    torch.testing.assert_close(turns, turns[:, :1].expand(4, 8))
    torch.testing.assert_close(turns.sum(1), torch.cosine_similarity(start, end).acos())


def test_arcs_between_parallel_vectors_are_straight():
    start = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 0.0]])
    end = torch.tensor([[2.0, 4.0], [1.0, 1.0], [-1.0, 0.0]])  # the same direction, none, the opposite one
    path = latent.interpolate(start, end, 3, spherical=True)
    torch.testing.assert_close(path[0], torch.tensor([[1.0, 2.0], [1.5, 3.0], [2.0, 4.0]]))
    assert path.isfinite().all()
    torch.testing.assert_close((path[:, 0], path[:, -1]), (start, end))


def test_a_walk_comes_back():
    noise = torch.randn(3, 4)
    trip = latent.walk(noise, 5)
    assert trip.shape == (15, 4)
    torch.testing.assert_close(trip[::5], noise)
    torch.testing.assert_close(trip[11] - trip[10], (noise[0] - noise[2]) / 5)
    torch.testing.assert_close(trip[14], noise[0] - (noise[0] - noise[2]) / 5)


def test_arithmetic():
    a, b, c = torch.randn(3, 4), torch.randn(2, 4), torch.randn(5, 4)
    torch.testing.assert_close(latent.arithmetic([a, b], [c]), a.mean(0) + b.mean(0) - c.mean(0))
    torch.testing.assert_close(latent.arithmetic([a]), a.mean(0))


def test_neighbours():
    noise = torch.randn(50)
    around = latent.neighbours(noise, 200, seed=3)
    assert torch.equal(around[0], noise)
    shifts = (around - noise)[1:]
    assert 0.24 < shifts.abs().max() <= 0.25 + 1e-6
    assert shifts.std() == pytest.approx(0.25 / math.sqrt(3), rel=0.05)
    assert torch.equal(latent.neighbours(noise, 200, seed=3), around)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(latent.neighbours(noise, 200, seed=3), around)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: latent.interpolate(z, z[:1], 3), r"end must have shape \[2, 3\], as start, got \[1, 3\]"),
        (lambda z: latent.interpolate(z, z, 1), "steps must be at least 2, got 1"),
        (lambda z: latent.walk(z[:1], 3), r"noise must have shape \[n >= 2, size\], got \[1, 3\]"),
        (lambda z: latent.walk(z, 0), "steps must be at least 1, got 0"),
        (lambda z: latent.arithmetic([]), "plus must hold at least one set"),
        (lambda z: latent.arithmetic([z], [z[:, :2]]), r"minus must have shape \[n >= 1, 3\], got \[2, 2\]"),
        (lambda z: latent.neighbours(z, 3), r"noise must have shape \[size\], got \[2, 3\]"),
        (lambda z: latent.neighbours(z[0], 0), "n must be at least 1"),
        (lambda z: latent.neighbours(z[0], 3, seed=-1), "neighbours: seed must be at least 0, got -1"),
        (lambda z: latent.neighbours(z[0], 3, seed=2**70), "seed must be at most"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(2, 3))


def test_one_tensor_is_no_list_of_sets():
    with pytest.raises(TypeError, match=r"arithmetic: minus must be a list of sets .* pass \[x\]"):
        latent.arithmetic([torch.randn(2, 3)], torch.randn(2, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny.run(tmp_path_factory.mktemp("run") / "run", epochs=1).path)


@pytest.mark.parametrize(
    ("words", "columns", "rows"),
    [
        (["interpolate", "--rows", "3", "--steps", "4"], 4, 3),
        (["interpolate", "--rows", "3", "--steps", "4", "--spherical"], 4, 3),
        (["walk", "--rows", "2", "--steps", "5"], 5, 2),
        (["arithmetic", "--plus", "1,2,3", "--minus", "4,5", "--plus", "7"], 4, 3 + 3),
    ],
)
def test_pictures_from_the_command_line(folder, words, columns, rows, tmp_path, capsys):
    file = tmp_path / "path.png"
    assert main(["latent", words[0], folder, *words[1:], "-o", str(file)]) == 0
    assert capsys.readouterr().out.strip() == str(file)
    with Image.open(file) as picture:
        assert picture.size == (66 * columns - 2, 66 * rows - 2)
        assert len(picture.getcolors(1 << 16) or ()) > 10


def test_a_conditional_run_has_a_class_for_each_row(folder, monkeypatch):
    run, seen = pygan.load(folder), []
    run.game.classes = 3
    monkeypatch.setattr(type(run), "generate", lambda self, noise, labels: seen.append(labels))
    command._images(run, torch.zeros(8, 4), 2)
    assert seen[0].tolist() == [0, 0, 1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arithmetic", "--plus", "10000"], "samples are counted from 0 to 9999, got 10000"),
        (["walk", "--rows", "1"], "rows must be at least 2, got 1"),
    ],
)
def test_wrong_words_are_refused(folder, words, message, capsys):
    assert main(["latent", words[0], folder, *words[1:]]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["walk", "--plus", "1,2"], "unknown argument --plus"),
        (["arithmetic", "--plus", "1", "--rows", "3"], "unknown argument --rows"),
        (["walk", "-o", "path.jpg"], "expected a name that ends in .png, got 'path.jpg'"),
        (["walk", "-o", "path"], "expected a name that ends in .png, got 'path'"),
        (["walk", "--seed", "-1"], r"expected a whole number in 0..2**63 - 1, got '-1'"),
    ],
)
def test_options_that_a_kind_does_not_have_are_refused(folder, words, message, capsys):
    assert main(["latent", words[0], folder, *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_the_help_of_a_kind_shows_its_options(capsys):
    assert main(["latent", "walk", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--steps" in shown
    assert "--minus I,I" not in shown
