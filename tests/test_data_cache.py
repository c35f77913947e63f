"""Folders that are too large for memory: decoded once into a cache, which is mapped."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_data_folders import fill, picture
from tiny import SETTINGS, run

import pygan
from pygan import data
from pygan.batches import Batches
from pygan.data import cache, folders
from pygan.data.files import no_downloads
from pygan.plan import plan

N = 40


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of pictures in two classes, more than is held in memory."""
    monkeypatch.setenv("PYGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "HELD", 1000)
    for i in range(N):
        (tmp_path / "faces" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / "faces" / str(i % 2) / f"{i:03}.png")
    return tmp_path / "faces"


def caches(tmp_path):
    return sorted((tmp_path / "cache" / "folders").glob("*.pixels"))


def same(one, other):
    return all(
        torch.equal(getattr(one, split).images, getattr(other, split).images)
        and torch.equal(getattr(one, split).labels, getattr(other, split).labels)
        for split in ("train", "valid", "test")
    )


def test_mapped_images_are_those_of_the_folder_split_as_seed_0_does(pictures, tmp_path, monkeypatch, capsys):
    mapped = data.load(pictures, seed=5)
    assert mapped.train.mapped  # a slice of the file, and no copy:
    assert mapped.valid.images.data_ptr() == mapped.test.images.data_ptr() - 4 * 90
    assert capsys.readouterr().err.startswith("pygan: faces: decoding 40 images once, into a cache of 0.00 GiB at ")
    assert "; split in the fixed random order of the cache into 32 train, 4 valid, 4 test" in mapped.protocol
    (file,) = caches(tmp_path)
    written = file.stat().st_mtime_ns
    assert same(data.load(pictures), mapped)
    assert file.stat().st_mtime_ns == written
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(folders, "HELD", 1 << 30)
    file.unlink()
    held = data.load(pictures, seed=0)
    assert not held.train.mapped
    assert same(held, mapped)
    assert caches(tmp_path) == []


def test_a_split_of_mapped_images_is_bounded(pictures, monkeypatch):
    monkeypatch.setattr(sys.modules["pygan.data.splits"], "_MOST", 3)
    splits = data.load(pictures)
    assert [len(split) for split in (splits.train, splits.valid, splits.test)] == [N - 6, 3, 3]


def _flip(file):
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


def _edit(old, new):
    def edit(file):
        assert file.read_bytes().count(old) == 1
        file.write_bytes(file.read_bytes().replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_flip, "is damaged (its checksum)"),
        (lambda file: os.truncate(file, 5000), "is damaged (its length)"),
        (lambda file: file.write_bytes(b"{}".ljust(9000)), "is damaged (its header)"),
        (lambda file: file.write_bytes(b""), "is damaged (its header)"),
        (lambda file: file.write_bytes(b"\xff" * 5000), "is damaged (its header)"),
        (_edit(b'"format": 2', b'"format": 9'), "another version"),
        (_edit(b'"shape": [40, 3, 5, 6]', b'"shape": [3, 40, 5, 6]'), "is damaged (its header)"),
        (_edit(b'"resized": 0', b'"resized": 7'), "is damaged (its header)"),
        (_edit(b'"resized": 0', b'"resized":0 '), "is damaged (its header)"),
        (lambda file: file.write_bytes(b"[" * 4096 + file.read_bytes()[4096:]), "is damaged (its header)"),
    ],
)
def test_a_damaged_cache_is_said_and_made_again(pictures, tmp_path, capsys, damage, said):
    before = data.load(pictures)
    kept = before.train.images.clone()
    (file,) = caches(tmp_path)
    good = file.read_bytes()
    file.unlink()  # what is mapped keeps the old file
    file.write_bytes(good)
    damage(file)
    capsys.readouterr()
    assert torch.equal(data.load(pictures).train.images, kept)
    lines = capsys.readouterr().err.splitlines()
    assert sum(said in line and str(file) in line and "decoded again" in line for line in lines) == 1
    assert len(lines) == 2  # the other one: how many images are decoded
    assert file.read_bytes() == good


def test_a_damaged_cache_is_read_once(pictures, tmp_path, monkeypatch):
    data.load(pictures)
    (file,) = caches(tmp_path)
    file.write_bytes(bytes([*file.read_bytes()[:-1], 7]))
    passes = []
    digest = cache.hashlib.file_digest
    monkeypatch.setattr(cache.hashlib, "file_digest", lambda *args: passes.append(1) or digest(*args))
    data.load(pictures)
    assert len(passes) == 2  # the damaged file, and what was written in its place


def test_a_cache_that_another_process_has_mended_is_taken(pictures, tmp_path, capsys):
    data.load(pictures)
    (file,) = caches(tmp_path)
    header = cache.Header("new", (2, 1, 3, 3), 0)
    one, other = cache.Cache("faces", "key"), cache.Cache("faces", "key")
    one.path = other.path = file
    assert one.read("new") is None
    other.write(header, lambda: np.full((2, 1, 3, 3), 5, np.uint8))
    capsys.readouterr()
    assert one.write(header, None)[1].eq(5).all()  # no images: they are not decoded again
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["content", "time", "more", "fewer", "name"])
def test_a_folder_that_has_changed_is_decoded_again(pictures, tmp_path, capsys, change):
    data.load(pictures)
    first = pictures / "0" / "000.png"
    if change == "content":
        picture(99, width=6, height=5).save(first)
    if change == "time":
        os.utime(first, ns=(0, 0))
    if change == "more":
        picture(99).save(pictures / "0" / "999.png")
    if change == "fewer":
        first.unlink()
    if change == "name":
        first.rename(first.with_name("x.png"))
    capsys.readouterr()
    splits = data.load(pictures)
    assert capsys.readouterr().err.count("is stale (the folder has changed)") == 1
    found = {image.numpy().tobytes() for part in (splits.train, splits.valid, splits.test) for image in part.images}
    assert (
        picture(99).tobytes()
        in {np.frombuffer(f, np.uint8).reshape(3, 5, 6).transpose(1, 2, 0).tobytes() for f in found}
    ) == (change in ("content", "more"))
    assert len(caches(tmp_path)) == 1  # in the old one's place


def test_a_broken_picture_leaves_no_cache(pictures, tmp_path):
    whole = (pictures / "0" / "000.png").read_bytes()
    (pictures / "0" / "000.png").write_bytes(whole[:60])
    with pytest.raises(ValueError, match=r"000\.png: not a readable image"):
        data.load(pictures)
    assert [file.suffix for file in (tmp_path / "cache" / "folders").iterdir()] == [".lock"]


def test_a_full_disk_is_found_before_anything_is_decoded(pictures, monkeypatch):
    monkeypatch.setattr(cache, "_SPARE", 1 << 60)
    monkeypatch.setattr(folders, "_decoded", None)
    with pytest.raises(OSError, match=r"faces: the decoded images need 0\.00 GiB at .*set \$PYGAN_CACHE"):
        data.load(pictures)


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(pictures, tmp_path):
    planned = plan(pictures, **{name: value for name, value in SETTINGS.items() if name != "progress"})
    assert planned.sizes == (32, 4, 4)
    assert "; a training decodes them once, into a cache of 0.00 GiB at " in planned.protocol
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_looks_at_a_few_images_at_a_time(pictures, monkeypatch):
    """All of them are one in its memory, and a maximum over what is expanded so would make a copy of the whole."""
    largest, maximum = [0], torch.Tensor.max
    monkeypatch.setattr(torch.Tensor, "max", lambda x, *dim: largest.append(x.numel()) or maximum(x, *dim))
    fill(pictures / "3", 200)
    with no_downloads():
        loaded = data.load(pictures)
    assert len(loaded.train) > 100
    assert 0 < max(largest) <= 64 * loaded.train.images[0].numel()


def test_two_processes_at_once_write_one_cache(pictures, tmp_path):
    code = (
        "import sys; from pygan import data; from pygan.data import folders; folders.HELD = 1000; "
        "print(data.load(sys.argv[1]).train.images.sum().item())"
    )
    words = [sys.executable, "-c", code, str(pictures)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    out, err = zip(*[process.communicate() for process in both], strict=True)
    assert out[0] == out[1] == f"{data.load(pictures).train.images.sum().item()}\n"
    assert "".join(err).count("decoding 40 images once") == 1


def test_a_run_on_mapped_images_is_the_run_on_held_ones(pictures, tmp_path, monkeypatch):
    mapped = run(tmp_path / "mapped", pictures)
    resumed = pygan.load(mapped.path)
    assert resumed.splits.train.mapped
    monkeypatch.setattr(folders, "HELD", 1 << 30)
    caches(tmp_path)[0].unlink()
    held = run(tmp_path / "held", pictures)
    for one, other in zip(mapped.generator.parameters(), held.generator.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_cache_of_a_folder_that_has_become_small_is_removed(pictures, tmp_path, monkeypatch, capsys):
    data.load(pictures)
    (pictures / "0" / "000.png").unlink()
    monkeypatch.setattr(folders, "HELD", 1 << 30)
    capsys.readouterr()
    data.load(pictures)
    data.load(pictures)
    assert capsys.readouterr().err.count("is stale") == 1
    assert caches(tmp_path) == []


def test_a_small_folder_has_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYGAN_CACHE", str(tmp_path / "cache"))
    data.load(fill(tmp_path / "faces"))
    assert not (tmp_path / "cache").exists()


def test_the_next_batch_is_read_ahead(pictures, monkeypatch):
    ahead = []
    monkeypatch.setattr(Batches, "_load", lambda self, indices: ahead.append(indices.tolist()))
    train = data.load(pictures).train
    batches = Batches(train, 8, 0, torch.device("cpu"), data.make_scale("unit", train))
    used = [batches.indices().tolist() for _ in range(4)]
    batches._reader.shutdown()
    assert ahead == used[1:]
