"""pygan.figures: what is drawn, and that bad stages are refused."""

import subprocess
import sys

import pytest
import torch

from pygan import figures

matplotlib = pytest.importorskip("matplotlib")


def stage(title="(a)", **changes):
    x, z = torch.linspace(-2, 2, 101), torch.tensor([-1.0, 0, 1])
    parts = {"p_data": torch.exp(-(x**2)), "p_g": torch.exp(-((x - 1) ** 2)), "d": torch.sigmoid(-x), "g_z": 1 + z / 2}
    return figures.Stage(**{"title": title, "x": x, "z": z, **parts, **changes})


def test_each_stage_has_its_densities_its_discriminator_and_its_arrows():
    first, second = stage("first"), stage("second", d_optimal=torch.full((101,), 0.5))
    figure = figures.draw_game([first, second])
    top, bottom = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title() for axes in top] == ["first", "second"]
    for axes, drawn in zip(top, (first, second), strict=True):
        lines = {line.get_label(): torch.tensor(line.get_ydata()) for line in axes.lines}
        torch.testing.assert_close(lines["data"], drawn.p_data)
        torch.testing.assert_close(lines["generator"], drawn.p_g)
        torch.testing.assert_close(lines["D, trained"], drawn.d)
        assert ("D*, optimal" in lines) == (drawn.d_optimal is not None)
    for axes in bottom:
        ends = [(arrow.xyann, arrow.xy) for arrow in axes.texts]  # z is stretched from [-1, 1] to [-2, 2]
        assert ends == [((-2, 1), (0.5, 0)), ((0, 1), (1, 0)), ((2, 1), (1.5, 0))]


def test_the_legend_names_every_curve_that_any_stage_has():
    figure = figures.draw_game([stage(), stage(d_optimal=torch.full((101,), 0.5))])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["D*, optimal", "D, trained", "data", "generator"]


def test_a_generator_that_collapses_leaves_the_rest_readable():
    spike = torch.zeros(101)
    spike[50] = 1e6
    figure = figures.draw_game([stage(p_g=spike)])
    assert figure.axes[0].get_ylim() == (0, 2)  # twice the highest density of the data


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
def test_a_figure_is_written(tmp_path, name):
    figures.draw_game([stage()]).savefig(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 5000


def test_a_figure_shows_itself_in_a_notebook():
    assert figures.draw_game([stage()])._repr_png_().startswith(b"\x89PNG")


def test_it_is_drawn_into_the_figure_that_is_given():
    figure = matplotlib.figure.Figure()
    assert figures.draw_game([stage()], figure) is figure
    left, right = figure.subfigures(1, 2)
    figures.draw_game([stage()], right)
    assert len(right.axes) == 2
    assert not left.axes


def test_tensors_with_a_gradient_are_drawn():
    figures.draw_game([stage(d=torch.full((101,), 0.5, requires_grad=True))])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"p_g": torch.ones(100)}, ValueError, r"Stage: p_g must have shape \[n\] as x, \[101\], got \[100\]"),
        ({"g_z": torch.ones(3, 1)}, ValueError, r"Stage: g_z must have shape \[n\] as z, \[3\], got \[3, 1\]"),
        ({"d_optimal": torch.ones(1)}, ValueError, r"Stage: d_optimal must have shape"),
        ({"d": [0.5] * 101}, TypeError, "Stage: d must be a tensor, got list"),
        ({"z": None}, TypeError, "Stage: z must be a tensor, got NoneType"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        stage(**changes)


def test_no_stage_is_refused():
    with pytest.raises(ValueError, match="draw_game: stages must hold at least one Stage, got none"):
        figures.draw_game([])


def test_libraries_are_imported_by_the_first_figure_or_report_only():
    code = "import sys, pygan; assert not {'matplotlib', 'jinja2'} & set(sys.modules); assert pygan.figures.draw_game"
    subprocess.run([sys.executable, "-c", code], check=True)
