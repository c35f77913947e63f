"""A folder of images: sizes, modes, nesting, splits, and files that are no images."""

import contextlib
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from items import Items
from torch.utils.data import Dataset

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


def test_several_sizes_become_squares_by_cropping_about_the_centre(tmp_path):
    fill(tmp_path, 12)
    wide = np.zeros((10, 32, 3), np.uint8)
    wide[:, 11:21] = 200  # exactly what the crop to 10x10 keeps
    Image.fromarray(wide).save(tmp_path / "wide.png")
    source = folders.read(tmp_path)
    assert source.train.images.shape == (13, 3, 5, 5), "the median of the shorter sides"
    assert ((source.train.images[12].int() - 200).abs() <= 15).all()  # the filter reaches a little over the edge
    assert source.protocol.endswith("images of 5x5 pixels (13 of another size were centre-cropped and resized)")


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((64, 40), None, (40, 64)),  # one size of at most 64 is kept
        ((65, 40), None, (40, 40)),
        ((100, 90), None, (64, 64)),
        ((64, 40), 32, (32, 32)),
        ((20, 20), np.int64(30), (30, 30)),
    ],
)
def test_the_size_of_pictures(tmp_path, size, image_size, expected):
    fill(tmp_path, 12, width=size[0], height=size[1])
    splits = data.load(tmp_path, image_size=image_size)
    assert splits.shape == (3, *expected)
    assert f"{expected[1]}x{expected[0]} pixels" in splits.protocol
    assert ("resized" in splits.protocol) == (expected != (size[1], size[0]))
    pil = [picture(i, *size) for i in range(12)]
    assert data.load(Items(pil), image_size=image_size).shape == (3, *expected)
    assert pil[0].size == size, "the user's own images stay as they are"


def test_a_large_photograph_is_smoothed_not_sampled(tmp_path):
    stripes = np.zeros((600, 800), np.uint8)
    stripes[:, ::2] = 255
    for i in range(10):
        Image.fromarray(stripes).save(tmp_path / f"{i}.{'jpg' if i % 2 else 'png'}")
    images = folders.read(tmp_path).train.images
    assert images.shape == (10, 1, 64, 64)
    assert ((images.int() - 128).abs() <= 3).all()


def test_a_dataset_of_photographs_of_all_kinds(tmp_path):
    items = [(picture(i, 100 + i, 90, "L" if i % 2 else "RGB"), i % 3) for i in range(12)]
    splits = data.load(Items(items), valid=Items([picture(1, 30, 20, "L")]))
    assert splits.shape == (3, 64, 64)
    assert splits.valid.images.shape == (1, 3, 64, 64)
    assert splits.classes == ("0", "1", "2")
    assert "centre-cropped and resized to 64x64 pixels" in splits.protocol


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


@pytest.mark.parametrize("others", [["car", "plane"], ["car"], []])
def test_a_class_called_train_is_no_split(tmp_path, others):
    for name in ["train", *others]:
        fill(tmp_path / name, 12)
    splits = data.load(tmp_path)
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 12 * (1 + len(others))


@pytest.mark.parametrize(
    "names",
    [("train", "validation", "test"), ("training", "testing"), ("Train", "Test"), ("TRAIN", "Dev"), ("train", "val")],
)
def test_splits_go_by_many_names(tmp_path, names):
    for count, name in zip((20, 4, 4), names, strict=False):
        fill(tmp_path / name, count)
    picture(0).save(tmp_path / "preview.png")
    splits = data.load(tmp_path)
    assert len(splits.train) == (20 if len(names) == 3 else 18)
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 20 + 4 * (len(names) - 1)
    assert f"the 4 images in {names[1]}/" in splits.protocol
    assert splits.protocol.count("skipped: preview.png, beside the split folders") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "test", "plane"], "has test/ and train/, and images in plane/ beside them; move these, or pass"),
        (["train", "valid", "val"], "val/ and valid/ are both called valid; rename one"),
        (["train", "Train", "test"], "Train/ and train/ are both called"),
        (["valid", "test"], "has test/ and valid/, but no train/"),
    ],
)
def test_folders_that_might_be_splits_are_not_guessed_at(tmp_path, names, message):
    for name in names:
        fill(tmp_path / name, 12)
    with pytest.raises(ValueError, match=message.replace("train/ are both called", "train/ are both called train")):
        data.load(tmp_path)


def test_an_empty_split_folder_is_named(tmp_path):
    fill(tmp_path / "train", 20)
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"test: expected images .*, found none"):
        data.load(tmp_path)


# What lies in folders beside pictures


def test_links_to_folders_are_followed_once(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / "elsewhere" / name, 6)
        (tmp_path / "faces").mkdir(exist_ok=True)
        (tmp_path / "faces" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "cat" / "loop").symlink_to(tmp_path / "faces")
    source = folders.read(tmp_path / "faces")
    assert len(source.train) == 12
    assert source.classes == ("cat", "dog")
    assert "skipped: cat/loop/, a link to a folder that was read before" in source.protocol


def test_a_split_that_is_a_link(tmp_path):
    fill(tmp_path / "faces" / "train", 20)
    fill(tmp_path / "elsewhere", 4)
    (tmp_path / "faces" / "test").symlink_to(tmp_path / "elsewhere")
    assert len(data.load(tmp_path / "faces").test) == 4


def test_a_folder_that_links_to_itself(tmp_path):
    fill(tmp_path, 12)
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(".")
    source = folders.read(tmp_path)
    assert len(source.train) == 12
    assert "a/, a link to a folder that was read before, and 1 more" in source.protocol


def test_a_dead_link_is_no_picture(tmp_path):
    fill(tmp_path, 12)
    (tmp_path / "dead.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"dead.png: not a readable image: .*No such file"):
        data.load(tmp_path)


@pytest.mark.parametrize("place", ["", "cats", "train/cats"])
def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch, place):
    for name in ("train/cats", "test/cats", "cats"):
        fill(tmp_path / name, 12)
    shut, scandir = str(tmp_path / place), os.scandir

    def refuse(path):
        if str(path) == shut:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # a test that runs as root could read a folder of mode 000
    with pytest.raises(OSError, match=f"{shut}.*Permission denied"):
        data.load(tmp_path)


def test_what_is_no_regular_file_is_skipped_not_waited_for(tmp_path):
    fill(tmp_path, 12)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.jpg").symlink_to("/dev/zero")
    source = folders.read(tmp_path)
    assert len(source.train) == 12
    assert "skipped: null.jpg, which is no regular file, and 1 more" in source.protocol


def make_run(path):
    fill(path / "samples", 3)
    (path / "config.toml").write_text("seed = 0")


def test_pictures_of_runs_are_no_data(tmp_path, monkeypatch):
    fill(tmp_path / "faces", 20)
    before = data.load(tmp_path / "faces")
    make_run(tmp_path / "faces" / "runs" / "faces")
    picture(0).save(tmp_path / "faces" / "runs" / "report.png")
    make_run(tmp_path / "faces" / "experiment")
    monkeypatch.chdir(tmp_path / "faces")
    after = data.load(".")
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(before, split).images, getattr(after, split).images)
    assert "skipped: experiment/, which holds a run of pygan, and 1 more" in after.protocol
    for name in ("runs", "experiment", "runs/faces"):
        with pytest.raises(ValueError, match=f"{name}: holds a run of pygan, not images to train on"):
            data.load(tmp_path / "faces" / name)


def test_training_inside_the_data_leaves_the_data_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path / "faces", 20))
    settings = {"progress": False, "batch_size": 8, "evaluation_samples": 50}
    run = pygan.train(".", epochs=1, **settings)
    assert (tmp_path / "faces" / run.path).exists()
    assert pygan.load(run.path).log_likelihood().n_test == 2
    assert len(pygan.train(".", epochs=2, resume=True, out=run.path, **settings).history) == 2


def test_a_class_called_runs_is_a_class(tmp_path):
    for name in ("runs", "walks"):
        fill(tmp_path / name, 6)
    (tmp_path / "walks" / "config.toml").write_text("of another program")
    assert data.load(tmp_path).classes == ("runs", "walks")


# Names


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "a\nb", "\u202egnp.exe", "caf\udce9"])
def test_names_cannot_command_the_terminal(tmp_path, name):
    folder = fill(tmp_path / name, 12)
    (folder / f"{name}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="not a readable image") as caught:
        data.load(folder)
    assert str(caught.value).isprintable()
    (folder / f"{name}.png").unlink()
    for class_name in ("a", name):
        fill(folder / class_name, 6)
    for file in folder.glob("*.png"):
        file.unlink()
    splits = data.load(folder)
    for text in (splits.protocol, splits.name, *splits.classes):
        assert text.isprintable()
        text.encode()


def test_accents_stay(tmp_path):
    for name in ("caf\u00e9", "\u732b"):
        fill(tmp_path / "\u00e9t\u00e9" / name, 6)
    splits = data.load(tmp_path / "\u00e9t\u00e9")
    assert (splits.name, splits.classes) == ("\u00e9t\u00e9", ("caf\u00e9", "\u732b"))


def test_a_given_folder_takes_the_size_of_train(tmp_path):
    splits = data.load(fill(tmp_path / "a", 20), valid=fill(tmp_path / "b", 4, width=9, height=9, mode="L"))
    assert splits.valid.images.shape == (4, 3, 5, 6)


def test_pictures_are_refused_where_train_has_other_channels(tmp_path):
    message = "pictures have 1 or 3 channels, gray or colour, and the training images have 5$"
    for valid, name in ((fill(tmp_path / "a", 4), "000.png"), (Items([picture(0)] * 4), "valid: item 0")):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            data.load(torch.zeros(20, 5, 4, 4, dtype=torch.uint8), valid=valid)


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


def test_sixteen_bits_are_rounded_not_clipped(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    images = folders.read(tmp_path, (1, 256, 256)).train.images
    expected = np.round(values / 257).astype(np.uint8)
    for image in images:
        np.testing.assert_array_equal(image[0].numpy(), expected)


def test_sixteen_bits_keep_what_is_transparent(tmp_path):
    Image.fromarray(np.array([[0, 300, 65535]], np.uint16)).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    content = b"tRNS" + struct.pack(">H", 300)
    chunk = struct.pack(">I", 2) + content + struct.pack(">I", zlib.crc32(content))
    (tmp_path / "x.png").write_bytes(whole[:33] + chunk + whole[33:])
    assert folders.read(tmp_path).train.images.flatten().tolist() == [0, 255, 255]


@pytest.mark.parametrize(("dtype", "found"), [(np.float32, "floats"), (np.int32, "32-bit integers")])
def test_other_depths_are_refused(tmp_path, dtype, found):
    image = Image.fromarray(np.zeros((2, 2), dtype))
    image.save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match=f"x.tiff: not a readable image: expected pixels of 8 or 16 bits, got {found}"):
        folders.read(tmp_path)
    with pytest.raises(ValueError, match=f"data: item 0: expected pixels of 8 or 16 bits, got {found}"):
        data.load(Items([image] * 12))


def test_sixteen_bit_items_are_gray():
    images = data.load(Items([Image.fromarray(np.full((2, 2), 32896, np.uint16))] * 12)).train.images
    assert images.shape == (8, 1, 2, 2)
    assert (images == 128).all()


class Repeated(Dataset):
    """A picture ten times."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 10

    def __getitem__(self, i):
        with Image.open(self.path) as image:
            image.load()
        return image


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("kind", ["jpg", "png", "tiff", "webp"])
def test_photographs_are_upright(tmp_path, kind, orientation):
    """By the table of the EXIF standard: what orientation says about where row 0 and column 0 of the file belong."""
    upright = np.zeros((24, 40), np.uint8)
    upright[:12, :10] = 255  # top left
    upright[12:, :10] = 128  # bottom left
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }.get(orientation, upright)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(tmp_path / f"x.{kind}", exif=tags, quality=95)
    image = folders.read(tmp_path).train.images[0, 0].int()
    assert image.shape == upright.shape
    assert ((image - torch.from_numpy(upright).int()).abs() < 60).all()
    of_dataset = data.load(Repeated(tmp_path / f"x.{kind}")).train.images
    assert torch.equal(of_dataset[0, 0].int(), image)


def test_only_named_formats_are_decoded(tmp_path):
    """A PostScript file would start Ghostscript, whatever its name is."""
    fill(tmp_path, 12)
    for content in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        b"\x0a\x05\x01\x08" + bytes(124),
    ):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"x.png: not a readable image: cannot identify"):
            data.load(tmp_path)


@pytest.mark.parametrize("sides", [(20_000, 5_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_claims_any_size_is_refused_before_decoding(tmp_path, sides):
    picture(0).save(tmp_path / "x.png")
    whole = bytearray((tmp_path / "x.png").read_bytes())
    whole[16:24] = struct.pack(">2I", *sides)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    (tmp_path / "x.png").write_bytes(whole)
    with pytest.raises(ValueError, match=r"x.png: not a readable image: .*(exceed|bomb)"):
        folders.read(tmp_path)


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


def test_a_picture_takes_a_bounded_number_of_bytes_for_each_pixel(tmp_path):
    """At most 16: with the limit of 80 million pixels, that is 1.3 GB."""
    for mode in ("RGB", "I;16", "LA"):
        Image.new(mode, (3000, 2600)).save(tmp_path / f"{len(mode)}.png", compress_level=1)
    code = f"""
import resource
from pathlib import Path
import PIL.ImageOps
from pygan.data import folders
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folders.read(Path({str(tmp_path)!r}))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (3000 * 2600))
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 16


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
