"""pygan.pictures: where each image lands in the grid, and that a file is there whole or not at all."""

import os

import numpy as np
import pytest
import torch

from pygan.pictures import grid, save_png, save_points

Image = pytest.importorskip("PIL.Image")


def test_images_lie_in_rows_with_gaps():
    images = torch.randint(0, 256, (5, 3, 40, 50), dtype=torch.uint8)
    picture = grid(images, columns=3)
    assert picture.dtype == torch.uint8
    assert picture.shape == (2 * 42 - 2, 3 * 52 - 2, 3)
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        found = picture[42 * row : 42 * row + 40, 52 * column : 52 * column + 50]
        assert torch.equal(found, image.permute(1, 2, 0))
    assert (picture[40:42] == 96).all()
    assert (picture[42:, 104:] == 96).all(), "the place of the sixth image stays empty"


def test_floats_are_rounded_and_clipped():
    images = (
        torch.tensor([0, 1, 0.5, 127.4 / 255, -0.1, 1.2, torch.inf, -torch.inf]).view(8, 1, 1, 1).expand(-1, 1, 64, 64)
    )
    assert grid(images, columns=8)[0, ::66, 0].tolist() == [0, 255, 128, 127, 0, 255, 255, 0]


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 1, 64, 64), (10, 10)), ((64, 3, 64, 64), (8, 8)), ((3, 1, 64, 64), (2, 2))]
)
def test_the_picture_is_about_square(shape, expected):
    rows, columns = expected
    assert grid(torch.zeros(shape)).shape[:2] == (66 * rows - 2, 66 * columns - 2)


def test_wide_images_make_few_columns():
    height, width, _ = grid(torch.zeros(100, 1, 64, 640)).shape
    assert 0.5 < height / width < 2


def test_small_images_are_enlarged():
    assert grid(torch.zeros(1, 1, 8, 8)).shape == (64, 64, 1)
    assert grid(torch.zeros(1, 1, 28, 28)).shape == (56, 56, 1)
    step = torch.zeros(1, 1, 8, 8)
    step[:, :, :, 4:] = 1
    picture = grid(step)
    assert (picture[:, :24] == 0).all()
    assert (picture[:, 40:] == 255).all()


def test_other_channels_are_shown_as_their_mean():
    images = torch.cat([torch.zeros(4, 1, 64, 64), torch.ones(4, 1, 64, 64)], dim=1)
    picture = grid(images)
    assert picture.shape[2] == 1
    assert picture[0, 0] == 128


def test_the_images_are_left_as_they_are():
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    before = images.detach().clone()
    grid(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(4, 8, 8), (0, 1, 8, 8), (4, 1, 0, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"grid: images must have shape \[N, C, H, W\]"):
        grid(torch.zeros(shape))


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        grid(torch.zeros(4, 1, 8, 8), columns=0)
    with pytest.raises(ValueError, match="got NaN"):
        grid(torch.full((4, 1, 8, 8), torch.nan))
    with pytest.raises(TypeError, match=r"got torch.int64"):
        grid(torch.zeros(4, 1, 8, 8, dtype=torch.int64))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_grid_is_the_grid(tmp_path, channels):
    images = torch.rand(6, channels, 40, 50)
    save_png(tmp_path / "new" / "grid.png", images, columns=2)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        assert picture.mode == {1: "L", 3: "RGB"}[channels]
        np.testing.assert_array_equal(np.atleast_3d(np.asarray(picture)), grid(images, columns=2).numpy())


def test_an_interrupted_write_leaves_the_old_picture_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    save_png(path, torch.zeros(1, 1, 8, 8))
    old = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_png(path, torch.ones(1, 1, 8, 8))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["grid.png"]


def test_no_link_is_followed(tmp_path):
    """Under the name that another process of this number would have used, and under the picture's own."""
    target = tmp_path / "thesis.tex"
    target.write_text("precious")
    for link in (tmp_path / f".grid.png.{os.getpid()}", tmp_path / "grid.png"):
        link.symlink_to(target)
    save_png(tmp_path / "grid.png", torch.zeros(1, 1, 8, 8))
    assert target.read_text() == "precious"
    assert not (tmp_path / "grid.png").is_symlink()


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_png("~/grid.png", torch.zeros(1, 1, 8, 8))
    save_points("~/points.png", torch.rand(5, 1, 1, 2))
    assert sorted(os.listdir(tmp_path)) == ["grid.png", "points.png"]


def test_a_picture_gets_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    save_png(tmp_path / "grid.png", torch.zeros(1, 1, 8, 8))
    assert (tmp_path / "grid.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["x.jpg", "x", "png"])
def test_a_name_that_belies_the_content_is_refused(name, tmp_path):
    for save in (save_png, save_points):
        with pytest.raises(ValueError, match=r"path: must end in \.png"):
            save(tmp_path / name, torch.rand(2, 1, 1, 2))
    assert not any(tmp_path.iterdir())
