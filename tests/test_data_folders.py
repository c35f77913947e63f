"""A folder of images: sizes, modes, nesting, splits, and files that are no images."""

import contextlib

import numpy as np
import pytest
import torch

import pygan
from pygan import data
from pygan.data import folders

Image = pytest.importorskip("PIL.Image")
hypothesis = pytest.importorskip("hypothesis")
HealthCheck, given, settings = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings
st = hypothesis.strategies


def picture(seed, width=6, height=5, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


def fill(folder, n=12, **keywords):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        picture(i, **keywords).save(folder / f"{i:03}.png")
    return folder


def test_500_colour_pictures_without_a_line_of_configuration(tmp_path, monkeypatch):
    splits = data.load(fill(tmp_path / "faces", 500, width=40, height=30))
    assert splits.name == "faces"
    assert splits.train.images.shape == (400, 3, 30, 40)
    assert splits.train.images.dtype == torch.uint8
    assert splits.protocol.startswith("faces: a folder of 500 colour images of 40x30 pixels; split 80/10/10")
    monkeypatch.chdir(tmp_path)
    run = pygan.train("faces", epochs=1)
    assert run.sample(2).shape == (2, 3, 30, 40)


def test_pixels_arrive_as_they_are_in_order_of_names(tmp_path):
    images = folders.read(fill(tmp_path)).train.images
    assert images.is_contiguous()
    for i in range(12):
        np.testing.assert_array_equal(images[i].permute(1, 2, 0).numpy(), np.asarray(picture(i)))


def test_gray_has_one_channel_and_a_mixture_three(tmp_path):
    source = folders.read(fill(tmp_path, mode="L"))
    images, sentence = source.train.images, source.protocol
    assert images.shape == (12, 1, 5, 6)
    assert "12 gray images" in sentence
    picture(0).save(tmp_path / "colour.png")
    source = folders.read(tmp_path)
    images, sentence = source.train.images, source.protocol
    assert images.shape == (13, 3, 5, 6)
    assert torch.equal(images[0, 0], images[0, 2])


def test_folders_in_folders_hidden_files_and_other_files(tmp_path):
    fill(tmp_path / "a" / "b", 6)
    fill(tmp_path / "c", 6)
    fill(tmp_path / ".thumbnails", 3)
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "c" / "._000.png").write_bytes(b"resource fork")
    picture(0).save(tmp_path / "c" / "LOUD.JPG")
    assert len(folders.read(tmp_path).train.images) == 13


def test_sizes_become_the_median_by_cropping_about_the_centre(tmp_path):
    fill(tmp_path, 12)
    wide = np.zeros((10, 32, 3), np.uint8)
    wide[:, 10:22] = 200  # exactly what the crop to 12x10 keeps
    Image.fromarray(wide).save(tmp_path / "wide.png")
    source = folders.read(tmp_path)
    images, sentence = source.train.images, source.protocol
    assert images.shape == (13, 3, 5, 6)
    assert ((images[12].int() - 200).abs() <= 15).all()  # the filter reaches a little over the edge
    assert sentence.endswith("pixels (1 of another size were centre-cropped and resized)")


def test_many_sizes_have_a_median_too(tmp_path):
    for i in range(5):
        picture(i, width=10 + i, height=20 - i).save(tmp_path / f"{i}.png")
    assert folders.read(tmp_path).train.images.shape == (5, 3, 18, 12)


def test_train_valid_and_test_folders_are_splits(tmp_path):
    fill(tmp_path / "train" / "cats", 12)
    fill(tmp_path / "val", 4, width=12, height=10)
    fill(tmp_path / "test", 3, mode="L")
    splits = data.load(tmp_path)
    assert splits.train.images.shape == (12, 3, 5, 6)
    assert splits.valid.images.shape == (4, 3, 5, 6)
    assert splits.test.images.shape == (3, 3, 5, 6)
    assert splits.protocol.endswith("test = the 3 images in test/; valid = the 4 images in val/")


def test_a_missing_split_is_cut_from_train(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 3)
    splits = data.load(tmp_path)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (18, 2, 3)


@pytest.mark.parametrize("others", [["car", "plane"], ["test", "plane"], ["valid", "val"], []])
def test_a_class_called_train_is_no_split(tmp_path, others):
    for name in ["train", *others]:
        fill(tmp_path / name, 12)
    splits = data.load(tmp_path)
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 12 * (1 + len(others))


def test_a_given_folder_takes_the_size_of_train(tmp_path):
    splits = data.load(fill(tmp_path / "a", 20), valid=fill(tmp_path / "b", 4, width=9, height=9, mode="L"))
    assert splits.valid.images.shape == (4, 3, 5, 6)


def test_home_and_relative_paths(tmp_path, monkeypatch):
    fill(tmp_path / "faces", 20)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "faces")
    for path in ("~/faces", ".", "../faces/"):
        assert data.load(path).name == "faces"


def test_transparent_is_white_and_palettes_are_colours(tmp_path):
    fill(tmp_path, 1, width=2, height=1)
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png")
    alpha, palette = folders.read(tmp_path).train.images[1:]
    assert alpha[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]
    assert palette[:, 0].T.tolist() == [[10, 20, 30]] * 2


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "deep.png")
    images = folders.read(tmp_path).train.images
    assert images.flatten().tolist() == [0, 1, 128, 255]


def test_floats_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(
        ValueError, match=r"float.tiff: not a readable image: expected pixels of 8 or 16 bits, got floats"
    ):
        folders.read(tmp_path)


def test_a_photograph_held_sideways_is_turned(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    sideways = np.zeros((24, 40), np.uint8)
    sideways[:, :20] = 255  # its left is the top
    Image.fromarray(sideways).save(tmp_path / "side.jpg", exif=tags)
    images = folders.read(tmp_path).train.images
    assert images.shape == (1, 1, 40, 24)
    assert (images[0, 0, :16] > 200).all()
    assert (images[0, 0, 24:] < 50).all()


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_an_unreadable_file_is_named(tmp_path, content):
    fill(tmp_path)
    (tmp_path / "007.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"007.png: not a readable image: "):
        data.load(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    fill(tmp_path, 12, width=60, height=60)
    whole = (tmp_path / "007.png").read_bytes()
    (tmp_path / "007.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"007.png: not a readable image: .*truncated"):
        data.load(tmp_path)


def test_no_images_and_too_few(tmp_path):
    with pytest.raises(ValueError, match=r"expected images \(.png .*\), found none"):
        data.load(tmp_path)
    with pytest.raises(ValueError, match="expected at least 10 images, got 9"):
        data.load(fill(tmp_path, 9))


def test_images_that_exceed_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "LARGEST", 12 * 90 - 1)
    monkeypatch.setattr(folders, "_read", None)
    with pytest.raises(ValueError, match="12 images of 6x5 pixels exceed 0 GiB; scale them down"):
        folders.read(fill(tmp_path))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "ppm"]), st.binary(max_size=30), st.data())
@pytest.mark.filterwarnings("ignore")  # Pillow warns about some kinds of damage
def test_fuzzed_pictures_give_an_image_or_a_value_error(tmp_path, kind, noise, draw):
    path = tmp_path / "x.png"
    picture(0).save(path, kind)
    whole = path.read_bytes()
    start = draw.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:start] + noise + whole[start + draw.draw(st.integers(0, 30)) :])
    with contextlib.suppress(ValueError):
        assert folders.read(tmp_path, (3, 5, 6)).train.images.shape == (1, 3, 5, 6)
